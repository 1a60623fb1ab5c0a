"""Converted checkpoints of every family run in llama.cpp and here, with the same greedy tokens.

As floats: of halfs llama.cpp rounds the activations, too, which tips near ties of random networks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from swarm.convert.checkpoint import open_checkpoint
from swarm.convert.convert import convert_checkpoint
from swarm.engine.decoder import Decoder
from tests.golden.test_models_llama_cpp import chosen
from tests.helpers.checkpoints import write_checkpoint
from tests.helpers.families import open_decoder

PROMPT = list(range(60, 72))  # none of the tokens that follow is a near tie, which a grid of sums may tip
N_TOKENS = 16

SCRIPT = f"""
import json, sys
import numpy as np
from llama_cpp import Llama
for path in sys.argv[1:]:
    model = Llama(path, n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0)
    ids = {PROMPT}
    model.eval(ids)
    for _ in range({N_TOKENS}):
        ids.append(int(np.argmax(model.scores[len(ids) - 1])))
        model.eval(ids[-1:])
    print(json.dumps(ids))
"""


def greedy(decoder: Decoder) -> list[int]:
    ids = list(PROMPT)
    kv = decoder.new_kv()
    logits = decoder.forward(ids, kv)
    for _ in range(N_TOKENS):
        ids.append(int(np.argmax(logits)))
        logits = decoder.forward(ids[-1:], kv)
    return ids


@pytest.mark.oracle
def test_the_same_tokens_come_from_both(tmp_path: Path) -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: `make oracles`")
    paths = []
    for name, tiny in chosen().items():
        paths.append(tmp_path / f"{name}.gguf")
        convert_checkpoint(open_checkpoint(write_checkpoint(tmp_path / name, tiny)), "F32", paths[-1])
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, paths)], capture_output=True, check=False, timeout=120, text=True
    )
    if run.returncode < 0:
        pytest.skip(f"llama-cpp-python does not run on this CPU (signal {-run.returncode})")
    assert run.returncode == 0, run.stderr[-500:]
    for path, line in zip(paths, run.stdout.splitlines(), strict=True):
        assert greedy(open_decoder(path, kv="f32")) == json.loads(line), path.name
