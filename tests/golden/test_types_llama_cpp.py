"""Files in types of less than four bits: the engine beside llama.cpp, and beside the floats that a file stands for."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.golden.test_models_llama_cpp import IDS, SCRIPT
from tests.helpers.families import open_decoder, random_ids, same_bits
from tests.helpers.tiny import TINY, after_storage, make_tiny, make_weights, wide, write_tiny

TYPES = ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0")
# llama.cpp's scales of activations are for 256 columns of a float, the engine's for 32.
FLOATS_BOUND, LLAMA_CPP_BOUND = 0.05, 0.06  # of the largest logit: both round activations to int8


def write(folder: Path, mix: str, name: str = "llama") -> tuple[Path, Path]:
    """The checkpoint in a type, and the same values in floats."""
    tiny = wide(TINY[name])
    weights = make_weights(tiny)
    stored = write_tiny(folder / f"{mix}.gguf", tiny, weights, mix)
    return stored, write_tiny(folder / f"{mix}-floats.gguf", tiny, after_storage(tiny, weights, mix), "F32")


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("mix", TYPES)
def test_a_file_of_a_type_answers_as_the_floats_that_it_stands_for(mix: str, tmp_path: Path) -> None:
    stored, floats = write(tmp_path, mix)
    ids = random_ids(open_decoder(stored).spec.vocab, seed=1)
    found = open_decoder(stored).logits(ids)
    assert difference(found, open_decoder(floats).logits(ids)) <= FLOATS_BOUND
    assert same_bits(stored, ids, found)


@pytest.mark.parametrize("mix", ["IQ2_S", "IQ3_XXS", "IQ1_M"])
def test_experts_of_a_type_answer_as_the_floats_that_they_stand_for(mix: str, tmp_path: Path) -> None:
    stored, floats = write(tmp_path, mix, "air")
    found, expected = (open_decoder(path, kv="f32").logits(IDS) for path in (stored, floats))
    by_position = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(by_position) <= FLOATS_BOUND  # rounding tips routers at near ties


@pytest.mark.oracle
def test_llama_cpp_reads_the_same_from_each_type(tmp_path: Path) -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: `make oracles`")
    paths = [make_tiny(tmp_path / f"{mix}.gguf", "llama-wide", mix) for mix in TYPES]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, paths)], capture_output=True, check=False, timeout=120
    )
    if run.returncode < 0:
        pytest.skip(f"llama-cpp-python does not run on this CPU (signal {-run.returncode})")
    assert run.returncode == 0, run.stderr.decode()[-500:]
    found = {path.name: difference(open_decoder(path, kv="f32").logits(IDS), np.load(f"{path}.npy")) for path in paths}
    print(found)
    assert max(found.values()) <= LLAMA_CPP_BOUND, found
