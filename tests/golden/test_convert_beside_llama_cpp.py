"""What `swarm convert` writes, beside llama.cpp's own converter on the same checkpoints.

LLAMA_CPP_SOURCE names a folder with its sources (convert_hf_to_gguf.py, conversion/, gguf-py/).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from swarm.convert.checkpoint import open_checkpoint
from swarm.convert.convert import convert_checkpoint
from swarm.store.gguf import GGUF, open_gguf
from tests.golden.test_models_llama_cpp import CHECKPOINTS
from tests.helpers.checkpoints import split_experts, write_checkpoint, write_safetensors
from tests.helpers.tiny import Tiny

SOURCE = Path(os.environ.get("LLAMA_CPP_SOURCE") or "/nonexistent")
# Its list of tokenizers does not have the small one, which cuts as Qwen's.
SCRIPT = """
import runpy, sys
source, folder, out, kind = sys.argv[1:]
sys.path[:0] = [source, source + "/gguf-py"]
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = ["convert_hf_to_gguf.py", folder, "--outfile", out, "--outtype", kind]
runpy.run_path(source + "/convert_hf_to_gguf.py", run_name="__main__")
"""
# What only one of them writes, where readers have defaults: of groups of experts 1, of further ones 0.
NOT_IN_BOTH = {"vocab_size", "rope.dimension_count", "expert_weights_norm"}
NOT_IN_BOTH |= {"expert_group_count", "expert_group_used_count", "nextn_predict_layers"}
NOT_IN_BOTH |= {"expert_shared_feed_forward_length"}
# What theirs takes from the names of ChatGLM's own code alone, and of a checkpoint without them guesses.
WIDTHS = {"attention.key_length", "attention.value_length"}  # of heads, where they are hidden / heads
NOT_IN_BOTH_OF = {
    "chatglm": {"context_length", "attention.layer_norm_rms_epsilon", *WIDTHS},
    "granite": WIDTHS,
    "granitemoe": WIDTHS,
}
# What the configurations of real checkpoints say besides, and theirs asks for.
SAID = {
    "mistral3": {"model_type": "ministral3"},
    "flash": {"scoring_func": "sigmoid"},
    "deepseek-lite": {"scoring_func": "softmax"},
}
# How checkpoints of granitemoe call what transformers has in one tensor.
RENAMED = {
    ".experts.gate_up_proj": ".input_linear.weight",
    ".experts.down_proj": ".output_linear.weight",
    ".router.weight": ".router.layer.weight",
}
NAMES = ("llama", "llama-linear", "qwen2", "qwen3", "qwen3moe", "smollm3", "glm4", "air", "glm355b", "chatglm-square")
NAMES += ("flash", "deepseek-lite", "gpt-oss", "granite", "granitemoe", "granitemoe-shared", "mistral3")
SPLIT = frozenset({"qwen3moe", "glm4moe", "deepseek2"})  # each expert's matrices on their own


def checkpoint(folder: Path, tiny: Tiny) -> Path:
    """A checkpoint as both read it."""
    write_checkpoint(folder, tiny, dtype="BF16")
    if tiny.arch in SPLIT:
        split_experts(folder)
    if tiny.arch == "granitemoe":
        rename(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | SAID.get(tiny.name, {})))
    return folder


def rename(folder: Path) -> None:
    """Write the folder's tensors anew, by the names of RENAMED."""
    state = {}
    for name, tensor in open_checkpoint(folder).tensors.items():
        new = next((name.replace(old, new) for old, new in RENAMED.items() if name.endswith(old)), name)
        state[new] = tensor.floats()
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    write_safetensors(folder / "model.safetensors", state, "BF16")


def theirs(folder: Path, kind: str) -> Path:
    out = folder.with_suffix(f".{kind}.theirs.gguf")
    command = [sys.executable, "-c", SCRIPT, str(SOURCE), str(folder), str(out), kind.lower()]
    run = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert run.returncode == 0, run.stderr[-500:]
    return out


def same_values(a: GGUF, b: GGUF, tensor: str) -> bool:
    if tensor == "rope_freqs.weight":  # factors that were computed, there by torch
        return np.allclose(a.raw(tensor).view(np.float32), b.raw(tensor).view(np.float32), rtol=2e-7)
    return np.array_equal(a.raw(tensor), b.raw(tensor))


@pytest.mark.oracle
@pytest.mark.skipif(not (SOURCE / "conversion").is_dir(), reason="LLAMA_CPP_SOURCE names no sources of llama.cpp")
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_tensors_and_numbers_come_from_both(name: str, kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / name, CHECKPOINTS[name])
    ours = tmp_path / "ours.gguf"
    convert_checkpoint(open_checkpoint(folder), kind, ours)
    with open_gguf(ours) as a, open_gguf(theirs(folder, kind)) as b:
        described = [{name: (t.shape, t.quant.name) for name, t in file.tensors.items()} for file in (a, b)]
        assert described[0] == described[1]
        assert [tensor for tensor in a.tensors if not same_values(a, b, tensor)] == []
        arch = CHECKPOINTS[name].arch
        for key in {key for key in (*a.metadata, *b.metadata) if key.startswith(f"{arch}.")}:
            if key.removeprefix(f"{arch}.") not in NOT_IN_BOTH | NOT_IN_BOTH_OF.get(arch, set()):
                assert np.array_equal(a.metadata.get(key), b.metadata.get(key)), key
        for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
            assert a.metadata[key] == b.metadata[key], key
