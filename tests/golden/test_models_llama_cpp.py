"""The small checkpoints' files in llama.cpp: a second opinion on names, row orders and defaults of GGUF files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.families import open_decoder, same_rounding
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.tiny import TINY, Tiny, make_weights, write_tiny

# Left out: files that leave out keys for which llama.cpp's defaults are not those of the checkpoints (its issue 12946);
# experts with gate and up in one tensor. It wants the q width of chatglm to be the hidden one, and of a deepseek2
# without q_lora_rank, 27 layers.
SHAPED = {
    tiny.name: tiny
    for tiny in (
        replace(TINY["chatglm"], name="chatglm-square", hidden=128),
        replace(TINY["deepseek-lite"], name="deepseek-lite-27", n_layers=27),
    )
}
CHECKPOINTS = TINY | SHAPED
NAMES = (
    *SHAPED,
    "llama",
    "llama-tied",
    "llama-linear",
    "qwen2",
    "qwen3",
    "qwen3-yarn",
    "qwen3moe",
    "smollm3",
    "flash",
    "gpt-oss-near",
    "granite",
    "granitemoe-shared",
    "mistral3",
    "glm4",
    "air",
    "glm-groups",
)
IDS = list(range(40, 64))

# In a process of its own: a build for another CPU dies of an illegal instruction.
SCRIPT = f"""
import sys
import numpy as np
from llama_cpp import Llama
for path in sys.argv[1:]:
    model = Llama(path, n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0)
    model.eval({IDS})
    np.save(path + ".npy", np.array(model.scores[:{len(IDS)}]))
"""


@pytest.mark.oracle
def test_engine_computes_what_llama_cpp_does(tmp_path: Path) -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: `make oracles`")
    paths = [write_tiny(tmp_path / f"{name}.gguf", tiny, make_weights(tiny)) for name, tiny in chosen().items()]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, paths)], capture_output=True, check=False, timeout=120
    )
    if run.returncode < 0:
        pytest.skip(f"llama-cpp-python does not run on this CPU (signal {-run.returncode})")
    assert run.returncode == 0, run.stderr.decode()[-500:]
    for path in paths:
        expected = np.load(f"{path}.npy")
        found = open_decoder(path, kv="f32").logits(IDS)
        # what remains is the grid of the exact sums; without it NumPy is that much nearer, and near the engine with it
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max(), path.name
        numpy = NumpyDecoder.open(path).logits(IDS)
        assert np.abs(numpy - expected).max() <= 1e-5 * np.abs(expected).max(), path.name
        assert same_rounding(path, rounded=False) <= 1e-5, path.name


def chosen() -> dict[str, Tiny]:
    """The checkpoints that both run."""
    return {name: CHECKPOINTS[name] for name in NAMES}


def test_every_family_is_compared() -> None:
    assert {tiny.arch for tiny in chosen().values()} == {tiny.arch for tiny in TINY.values()}
