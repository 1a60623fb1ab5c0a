"""How much quantised arithmetic changes what a model says: perplexity, and KL from the dequantised float model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from swarm.engine.decoder import Decoder
from swarm.engine.weights import load_weights
from swarm.kernels.quants import Quant, dequantize, quant_by_name
from swarm.models import spec_from_gguf
from swarm.models.header import TensorEntry
from swarm.parts import all_parts
from swarm.store.gguf import GGUF, open_gguf
from swarm.text.tokenizer import Tokenizer
from tools.bench.shapes import Shape, write_model

TEXT = Path(__file__).resolve().parents[1] / "data" / "alice.txt"  # the first chapter; in the public domain
CHUNK = 256  # positions whose logits are looked at together
# Small, with the proportions of GLM-4-9B and GLM-4.5-Air, down to rows that K-quants do not divide.
GLM = {
    "glm4": Shape("glm4", 4, 40, 1024, 16, 2, 64, 2816, 8192, 32),
    "glm4moe": Shape("glm4moe", 4, 46, 1024, 24, 2, 64, 2816, 8192, 32, 1e6, 32, 4, 352, shared=1, dense_layers=1),
}
LLAMA = {"f16": ("f16", False), "f16 flash": ("f16", True), "q8_0 flash": ("q8_0", True)}

# In a process of its own: a build for another CPU dies of an illegal instruction.
LLAMA_SCRIPT = """
import json, sys
import numpy as np
import llama_cpp
path, out, kv, flash, threads = sys.argv[1:]
ids = json.load(sys.stdin)
kind = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}[kv]
model = llama_cpp.Llama(path, n_ctx=len(ids) + 64, logits_all=True, verbose=False, n_threads=int(threads),
                        n_threads_batch=int(threads), type_k=kind, type_v=kind, flash_attn=flash == "True")
model.eval(ids)
np.save(out, model.scores[:len(ids)])
"""


class NoLlama(Exception):
    """llama-cpp-python is not installed, or does not run on this CPU."""


@dataclass(frozen=True)
class Quality:
    """One engine on one file and text."""

    engine: str
    perplexity: float
    kl: np.ndarray  # (tokens,) from the dequantised model, in nats

    def no_worse_than(self, peer: Quality) -> bool:
        """Whether the mean KL is at most the peer's, up to two standard errors of the difference on the same tokens."""
        difference = self.kl - peer.kl
        return bool(difference.mean() <= 2 * difference.std() * len(difference) ** -0.5)


@dataclass(frozen=True)
class _FloatTensor:
    quant: Quant


class Dequantised:
    """A GGUF file as one whose tensors are all float32."""

    def __init__(self, model: GGUF) -> None:
        self._model = model
        self.tensors: Mapping[str, TensorEntry] = dict.fromkeys(model.tensors, _FloatTensor(quant_by_name("F32")))

    def raw(self, name: str, rows: Sequence[range] | None = None, columns: range | None = None) -> np.ndarray:
        """The values' bytes, shaped as a GGUF file's raw tensor."""
        values = dequantize(self._model.tensors[name].quant, self._model.raw(name, rows, columns))
        return np.ascontiguousarray(values, np.float32).view(np.uint8)

    def slabs(
        self, name: str, rows: Sequence[range] | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterator[np.ndarray]:
        """The same, expert by expert."""
        every = self.raw(name, rows, columns)
        yield from every if slabs is None else every[slabs.start : slabs.stop]

    def drop(self, name: str) -> None:
        """Nothing is kept."""
        self._model.drop(name)


def text_ids(path: Path, n: int) -> list[int]:
    """The first n ids of the text, by the model's own tokenizer."""
    with open_gguf(path) as model:
        ids = Tokenizer.from_metadata(model.metadata).encode(TEXT.read_text())
    assert len(ids) >= n, f"the text has {len(ids)} tokens"
    return ids[:n]


def glm_model(name: str, mix: str, folder: Path) -> Path:
    """A random model of GLM and a mix of types."""
    return write_model(folder / f"{name}-{mix}.gguf", GLM[name], mix)


def random_ids(name: str, n: int) -> list[int]:
    """Ids for a random model, to which all texts are alike."""
    return np.random.default_rng(1).integers(0, GLM[name].vocab, n).tolist()


def measure(
    path: Path, ids: list[int], folder: Path, *, kvs: tuple[str, ...], peers: tuple[str, ...], threads: int = 2
) -> list[Quality]:
    """Swarm with each type of KV cache, and llama.cpp in each of these ways; `folder` is for large files."""
    reference = log_softmax(np.concatenate(list(swarm_logits(path, ids, "f32", threads, exact=True))))
    rows = [quality(f"swarm {kv}", reference, ids, swarm_logits(path, ids, kv, threads)) for kv in kvs]
    for peer in peers:
        rows.append(quality(f"llama.cpp {peer}", reference, ids, llama_logits(path, ids, peer, threads, folder)))
    return rows


def swarm_logits(path: Path, ids: list[int], kv: str, threads: int, *, exact: bool = False) -> Iterator[np.ndarray]:
    """Our engine's logits, some positions at a time; `exact`: with dequantised weights."""
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        source = Dequantised(model) if exact else model
        weights = load_weights(source, spec, all_parts(spec.n_layers), threads=threads)
    decoder = Decoder(spec, weights, context=len(ids), threads=threads, kv=kv)
    cache = decoder.new_kv()
    for start in range(0, len(ids), CHUNK):
        yield decoder.forward_all(ids[start : start + CHUNK], cache)


def llama_logits(path: Path, ids: list[int], peer: str, threads: int, folder: Path) -> Iterator[np.ndarray]:
    """llama.cpp's logits, some positions at a time; raise NoLlama where it does not run."""
    if find_spec("llama_cpp") is None:
        raise NoLlama("llama-cpp-python is not installed: `make oracles`")
    out = folder / "llama.npy"
    kv, flash = LLAMA[peer]
    command = [sys.executable, "-c", LLAMA_SCRIPT, str(path), str(out), kv, str(flash), str(threads)]
    run = subprocess.run(command, input=str(ids).encode(), capture_output=True, check=False, timeout=900)
    if run.returncode < 0:
        raise NoLlama(f"llama-cpp-python does not run on this CPU (signal {-run.returncode})")
    assert run.returncode == 0, run.stderr.decode()[-500:]
    logits = np.load(out, mmap_mode="r")
    yield from (logits[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
    out.unlink()


def quality(engine: str, reference: np.ndarray, ids: list[int], logits: Iterator[np.ndarray]) -> Quality:
    """Compare logits that come some positions at a time with the reference's log-probabilities."""
    kls: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    at = 0
    for part in logits:
        found, expected = log_softmax(part), reference[at : at + len(part)]
        kls.append((np.exp(expected) * (expected - found)).sum(axis=1))
        following = np.asarray(ids[at + 1 : at + len(part) + 1])
        losses.append(-found[np.arange(len(following)), following])
        at += len(part)
    return Quality(engine, float(np.exp(np.concatenate(losses).mean())), np.concatenate(kls))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
