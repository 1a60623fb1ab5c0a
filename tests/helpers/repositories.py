"""Repositories of models for a stand-in hub: the same tiny model in several quants, whole and split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.helpers.gguf_writer import write_header
from tests.helpers.tiny import TINY, gguf_metadata, make_tiny, tensor_table


def tiny_files(folder: Path, *quants: str, name: str = "Tiny", family: str = "llama") -> dict[str, bytes]:
    """File name -> content of a tiny model in these quants."""
    folder.mkdir(exist_ok=True)
    made = {quant: make_tiny(folder / f"{name}-{quant}.gguf", family, quant) for quant in quants}
    return {path.name: path.read_bytes() for path in made.values()}


class HugeFile:
    """A file of which only the beginning is not zeros: of a size that no test could write."""

    def __init__(self, beginning: bytes, n_bytes: int) -> None:
        self._beginning = beginning
        self._n_bytes = n_bytes

    def __len__(self) -> int:
        return self._n_bytes

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(self._n_bytes)
        part = self._beginning[start:stop]
        return part + bytes(stop - start - len(part))


def air_file(path: Path, mix: str = "Q4_K") -> HugeFile:
    """GLM-4.5-Air in a mix: a header of real size, in front of as many bytes as the model has."""
    moe = TINY["air"].moe
    assert moe is not None
    air = replace(
        TINY["air"],
        n_layers=46,
        hidden=4096,
        n_heads=96,
        n_kv_heads=8,
        head_dim=128,
        rope_dims=64,
        ffn=10944,
        vocab=151_552,
        context=131_072,
        moe=replace(moe, n_experts=128, top_k=8, ffn=1408, shared=1, dense_layers=1),
        mtp="none",
    )
    metadata = {**gguf_metadata(air), "general.name": "GLM 4.5 Air"}
    metadata["tokenizer.ggml.tokens"] = [f"token{number:06d}" for number in range(air.vocab)]
    metadata["tokenizer.ggml.merges"] = [f"merge{number:06d} {number % 997}" for number in range(318_088)]
    del metadata["tokenizer.ggml.token_type"]
    table = {name: (tensor.shape, tensor.quant.name) for name, tensor in tensor_table(air, mix).items()}
    n_bytes = write_header(path, metadata, table)
    return HugeFile(path.read_bytes(), n_bytes)
