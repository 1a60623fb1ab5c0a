"""The files of a model's experts, one for each layer: written when they are first needed, found again by later runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.engine.expert_file import NOTE, PIECE_BYTES, ExpertFile, ExpertShape, write_experts
from swarm.engine.packed import PackedFile
from swarm.files import PRIVATE_DIRECTORY, check_space, disk_errors, locked, spare_bytes, taken_bytes
from swarm.models.header import TensorEntry
from swarm.models.spec import EXPERT_ROLES, NeededTensor, Role, TensorRef

U8 = npt.NDArray[np.uint8]
SUFFIX = ".experts"
DROP_BYTES = 32 * 1024 * 1024  # of a source, read before its pages are given back


class SlabSource(Protocol):
    """What experts are read from: a GGUF file, or chunks that peers sent."""

    @property
    def tensors(self) -> Mapping[str, TensorEntry]: ...
    def slabs(
        self, name: str, rows: Sequence[range] | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterable[U8]: ...
    def drop(self, name: str) -> None: ...


class ExpertFolder:
    """Files of experts of one model, in a directory of their own among those of other models.

    setting: how a person chooses another place. waiting: called when another process is writing the same files.
    """

    def __init__(
        self,
        path: Path,
        *,
        setting: str = "XDG_CACHE_HOME",
        spare: int = 0,
        piece_bytes: int = PIECE_BYTES,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path.with_name(path.name + SUFFIX)
        self._setting, self._spare, self._piece_bytes, self._waiting = setting, spare, piece_bytes, waiting

    @property
    def hot_list(self) -> Path:
        """Where what was learnt about the use of experts is kept."""
        return self.path / "experts.hot"

    def open(self, needed: Sequence[NeededTensor], tensors: Mapping[str, TensorEntry]) -> ExpertFile | None:
        """The file of a layer's experts; None when it is still to be written."""
        return ExpertFile.open(self._file(needed), shape_of(needed, tensors), self._piece_bytes)

    def write(
        self, source: SlabSource, needed: Sequence[NeededTensor], *, threads: int, written: Callable[[int], None]
    ) -> ExpertFile:
        """Write the file of a layer, or wait while another process does; raise DiskFull."""
        path, shape = self._file(needed), shape_of(needed, source.tensors)
        with disk_errors(self.path, self._setting):
            self.path.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            with locked(self.path / "lock", self._waiting):
                if (file := self.open(needed, source.tensors)) is not None:
                    return file
                experts = _each_expert(source, needed, shape.expert_bytes)
                write_experts(path, shape, experts, threads=threads, piece_bytes=self._piece_bytes, written=written)
        file = self.open(needed, source.tensors)
        assert file is not None
        return file

    def mapped(self, n_bytes: int, contents: str) -> PackedFile | None:
        """A place for weights of which little is read, that are mapped; None where it cannot be had now."""
        return PackedFile.open(self.path, "embedding", n_bytes, contents, always=True)

    def make_room(self, n_bytes: int) -> None:
        """Delete experts of models that were used longest ago, as long as that helps; raise DiskFull."""
        others = sorted(self.path.parent.glob(f"*{SUFFIX}"), key=lambda folder: folder.stat().st_mtime)
        for folder in others:
            if spare_bytes(self.path) >= n_bytes + self._spare:
                break
            if folder != self.path and not any(folder.glob(f"*{NOTE}")):  # those are chunks: the store's to delete
                shutil.rmtree(folder, ignore_errors=True)
        remedy = (
            f"the experts of this model are kept there a second time, packed: free some space, or set {self._setting}"
        )
        check_space(self.path, n_bytes + self._spare, remedy)
        with suppress(OSError):
            os.utime(self.path)

    def _file(self, needed: Sequence[NeededTensor]) -> Path:
        return self.path / f"layer{needed[0].layer:04}-{name_of(need.ref for need in needed)}.experts"


def delete_experts(path: Path) -> int:
    """Delete the experts of a model whose folder was made with this `path`; the bytes that the disk gained."""
    folder = path.with_name(path.name + SUFFIX)
    n_bytes = taken_bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return n_bytes


def experts_by_layer(needed: Iterable[NeededTensor]) -> dict[int, list[NeededTensor]]:
    """Gate, up and down of the experts of each layer that has any."""
    found: dict[int, dict[Role, NeededTensor]] = {}
    for need in needed:
        if need.role in EXPERT_ROLES:
            found.setdefault(need.layer, {})[need.role] = need
    order = (Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN)
    return {layer: [of_layer[role] for role in order] for layer, of_layer in found.items()}


def shape_of(needed: Sequence[NeededTensor], tensors: Mapping[str, TensorEntry]) -> ExpertShape:
    """What the experts of a layer look like."""
    gate, up, down = ((tensors[need.ref.name].quant.id, need.rows, need.cols) for need in needed)
    return ExpertShape(needed[0].n_experts, (gate, up, down))


def name_of(refs: Iterable[TensorRef]) -> str:
    """Another name for other rectangles of a model, or the same in another order: slices of equal size differ."""
    listed = [(ref.name, [(r.start, r.stop) for r in (*ref.rows, ref.columns, *_listed(ref.slabs))]) for ref in refs]
    return str(blake3(repr(listed).encode()).hexdigest()[:16])


def _listed(slabs: range | None) -> list[range]:
    return [] if slabs is None else [slabs]


def _each_expert(source: SlabSource, needed: Sequence[NeededTensor], expert_bytes: int) -> Iterator[tuple[U8, ...]]:
    """Gate, up and down of one expert after the other; the pages of the source are given back on the way."""
    each = [source.slabs(need.ref.name, need.ref.rows, need.ref.columns, need.ref.slabs) for need in needed]
    read = 0
    for matrices in zip(*each, strict=True):
        yield matrices
        read += expert_bytes
        if read >= DROP_BYTES:
            read = 0
            for need in needed:
                source.drop(need.ref.name)
    for need in needed:
        source.drop(need.ref.name)
