"""From GGUF tensors to packed matrices: the weights of a shard in memory.

Every matrix is repacked once into the layout of csrc/README.md, into one arena of huge pages. The pages of the GGUF
file are given back tensor by tensor, so that memory never holds the weights twice.

A router that is stored as floats of 32 bits, and whose values are all such as 16 bits hold (bf16, in which most models
were trained), is packed so: each device that shares layers reads all of it for every token.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from swarm.engine.expert_file import ExpertFile
from swarm.engine.expert_folder import ExpertFolder, experts_by_layer, name_of, shape_of
from swarm.engine.row_table import RowReader, RowTable
from swarm.errors import OutOfMemory
from swarm.kernels import _native
from swarm.kernels.quants import QUANTS, Quant, dequantize, quant_by_name
from swarm.models.header import TensorEntry
from swarm.models.spec import EXPERT_ROLES, HEAD_ROLES, ModelSpec, NeededTensor, Role, TensorRef, tensors_needed
from swarm.parts import EMBED, Part, layers_of
from swarm.units import size_text

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
HUGE_PAGE = 2 * 1024 * 1024
PANEL = 16  # rows of a panel, see csrc/README.md
PACK_BYTES = 32 * 1024 * 1024  # of a tensor, packed before its pages of the file are given back
MATRICES = frozenset(
    {Role.EMBED, Role.LM_HEAD, Role.Q, Role.K, Role.V, Role.O, Role.GATE, Role.UP, Role.DOWN, Role.ROUTER}
    | {Role.SHARED_GATE, Role.SHARED_UP, Role.SHARED_DOWN, Role.Q_A, Role.KV_A, Role.MTP_PROJECTION}
    | EXPERT_ROLES
    | HEAD_ROLES
)
LISTS = EXPERT_ROLES | HEAD_ROLES  # roles of which there are many matrices
LOWER_HALF = np.uint32(0xFFFF)  # of a float: zeros where bf16 holds all of it

Progress = Callable[[int, int], None]  # bytes done, bytes in all
OpenRows = Callable[[str], RowReader]  # of a matrix on this device's disk


class TensorSource(Protocol):
    """What weights are read from: a GGUF file, or chunks that peers sent."""

    @property
    def tensors(self) -> Mapping[str, TensorEntry]: ...

    def raw(self, name: str, rows: Sequence[range] | None = None, columns: range | None = None) -> U8:
        """The stored bytes (rows, row_bytes) of these rows and columns of a matrix, or of these values of a vector."""

    def slabs(
        self, name: str, rows: Sequence[range] | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterable[U8]:
        """The same of every expert (or of these), one after the other."""

    def drop(self, name: str) -> None:
        """Give back the memory that reading this tensor has filled."""


@dataclass(frozen=True)
class Weights:
    """A shard's weights: by (layer, role), layer -1 for those outside layers.

    `experts` are lists of matrices: one for each expert, or of HEAD_ROLES for each head. Or, layer by layer, experts
    are in files from which a cache reads them; `n_bytes` are those in memory. `mapped` are the files that weights lie
    in while they are used.
    """

    layers: range
    matrices: Mapping[tuple[int, Role], _native.Mat]
    experts: Mapping[tuple[int, Role], list[_native.Mat]]
    vectors: Mapping[tuple[int, Role], F32]
    n_bytes: int
    expert_files: Mapping[int, ExpertFile] = field(default_factory=dict)
    expert_slots: int = 0  # that experts of these files may have in memory
    mapped: tuple[Arena, ...] = ()
    table: RowTable | None = None  # the embedding, where its rows are read from disk

    def is_float(self, layer: int) -> bool:
        """True when the layer's down projection is stored as floats, so that its input is needed as floats too."""
        down = [self.matrices.get((layer, role)) for role in (Role.DOWN, Role.SHARED_DOWN)]
        down += self.experts.get((layer, Role.EXPERT_DOWN), [])[:1]
        quants = [m.qtype for m in down if m is not None]
        if layer in self.expert_files:
            quants.append(self.expert_files[layer].shape.matrices[-1][0])
        return any(QUANTS[quant].block_cols == 1 for quant in quants)


def load_weights(
    source: TensorSource,
    spec: ModelSpec,
    parts: Collection[Part],
    *,
    threads: int = 1,
    memory_bytes: int | None = None,
    keep: Keep | None = None,
    experts: ExpertFolder | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Pack the tensors of a shard's parts; raise OutOfMemory when they need more than `memory_bytes`.

    keep: gives a place that outlasts the process and may hold these weights already, or None.
    experts: where experts are to be on disk instead of in memory; raise DiskFull when they do not fit there. The
    embedding, of which a token needs a row, is then mapped from there.
    """
    needed = tensors_needed(spec, parts)
    on_disk = experts_by_layer(needed) if experts is not None else {}
    needed = [need for need in needed if need.layer not in on_disk or need.role not in EXPERT_ROLES]
    # A tied model names the same rows as EMBED and LM_HEAD; they are packed once.
    distinct = {n.ref: n for n in needed if n.role in MATRICES}
    mapped = {ref: n for ref, n in distinct.items() if n.role is Role.EMBED} if experts is not None else {}
    quants = {ref: _quant_in_memory(source, need) for ref, need in distinct.items()}
    total = _total_bytes(quants, distinct) - _total_bytes(quants, mapped)
    if memory_bytes is not None and total > memory_bytes:
        raise OutOfMemory(
            f"the weights need {size_text(total)} and {size_text(memory_bytes)} are free; "
            "use a smaller quant or model, or join more devices"
        )
    arena = (keep and keep(total, name_of(distinct))) or Memory(total)
    in_all = total + _total_bytes(quants, mapped)
    loader = _Loader(source, quants, arena, threads=threads, progress=progress, total=in_all)
    files: Mapping[int, ExpertFile] = {}
    arenas: tuple[Arena, ...] = (arena,)
    if experts is not None:
        files = loader.expert_files(on_disk, experts)
        loader.pack_all(mapped, experts.mapped(_total_bytes(quants, mapped), name_of(mapped)) if mapped else None)
        arenas = (arena, loader.arena)
    loader.pack_all({ref: n for ref, n in distinct.items() if ref not in mapped}, arena)
    vectors = {(n.layer, n.role): loader.vector(n) for n in needed if n.role not in MATRICES}
    matrices = {(n.layer, n.role): loader.packed[n.ref] for n in needed if n.role in MATRICES}
    return Weights(
        layers=layers_of(parts),
        matrices={key: mats[0] for key, mats in matrices.items() if key[1] not in LISTS},
        experts={key: mats for key, mats in matrices.items() if key[1] in LISTS},
        vectors=vectors,
        n_bytes=total,
        expert_files=files,
        mapped=tuple(arena for arena in arenas if not isinstance(arena, Memory)),
    )


def load_table(source: TensorSource, spec: ModelSpec, open_rows: OpenRows) -> Weights:
    """The embedding, of which a token needs a row: verified, and left on the disk. Raise BadModelFile."""
    (need,) = tensors_needed(spec, [EMBED])
    table = RowTable(open_rows(need.ref.name), source.tensors[need.ref.name].quant, need.rows, need.cols)
    return Weights(range(0), {}, {}, {}, table.n_bytes, table=table)


def _total_bytes(quants: Mapping[TensorRef, Quant], needed: Mapping[TensorRef, NeededTensor]) -> int:
    return sum(packed_bytes(need, quants[ref]) for ref, need in needed.items())


def _quant_in_memory(source: TensorSource, need: NeededTensor) -> Quant:
    """The type that a matrix is packed in: that of the file, but for routers whose values need only half of it."""
    stored = source.tensors[need.ref.name].quant
    if need.role is not Role.ROUTER or stored.name != "F32":
        return stored
    values = np.ascontiguousarray(source.raw(need.ref.name, need.ref.rows, need.ref.columns)).view("<u4")
    needs_all = bool((values & LOWER_HALF).any())
    source.drop(need.ref.name)
    return stored if needs_all else quant_by_name("BF16")


def join_weights(shards: Iterable[Weights], layers: range) -> Weights:
    """The weights of one shard with these layers from shards of single layers (and ends): nothing is copied."""
    joined = Weights(layers, {}, {}, {}, 0)
    for shard in shards:
        joined = Weights(
            layers=layers,
            matrices={**joined.matrices, **shard.matrices},
            experts={**joined.experts, **shard.experts},
            vectors={**joined.vectors, **shard.vectors},
            n_bytes=joined.n_bytes + shard.n_bytes,
            expert_files={**joined.expert_files, **shard.expert_files},
            expert_slots=joined.expert_slots + shard.expert_slots,
            mapped=joined.mapped + shard.mapped,
            table=joined.table or shard.table,
        )
    return joined


def packed_bytes(need: NeededTensor, quant: Quant) -> int:
    """Bytes that a matrix, or all its experts, take when packed; each starts on a cache line."""
    return int(_aligned(_native.packed_bytes(quant.id, need.rows, need.cols, need.cols))) * need.n_experts


def _aligned(n: int) -> int:
    return (n + 63) // 64 * 64


def _disk_bytes(needed: Sequence[NeededTensor], tensors: Mapping[str, TensorEntry]) -> int:
    shape = shape_of(needed, tensors)
    return shape.n_experts * shape.expert_bytes


class Arena(Protocol):
    """Where the matrices of a shard lie, one after the other, always in the same order."""

    is_filled: bool

    def take(self, n_bytes: int) -> U8: ...
    def finish(self) -> None: ...
    def check(self) -> None: ...


Keep = Callable[[int, str], Arena | None]  # the bytes needed, and a name for what will lie there


class Memory:
    """An arena in memory, backed by huge pages where the system has them."""

    is_filled = False

    def __init__(self, n_bytes: int) -> None:
        # Private: what is shared counts as a file, and most systems give files no huge pages.
        self._map = mmap.mmap(-1, n_bytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._map, np.uint8)
        start = -whole.ctypes.data % HUGE_PAGE
        if hasattr(mmap, "MADV_HUGEPAGE") and n_bytes >= HUGE_PAGE:
            with suppress(OSError):  # a kernel without huge pages: everything works, some per cent slower
                # The rest of the last huge page would be taken, too: a shard of one layer may be small.
                self._map.madvise(mmap.MADV_HUGEPAGE, start, n_bytes // HUGE_PAGE * HUGE_PAGE)
        self._start, self._free = start, whole[start:]

    def take(self, n_bytes: int) -> U8:
        taken, self._free = self._free[:n_bytes], self._free[_aligned(n_bytes) :]
        return taken

    def give_back(self, start: int, end: int) -> None:
        """The system may have these bytes of what was taken, whole pages, until they are written again."""
        if hasattr(mmap, "MADV_DONTNEED") and end > start:
            self._map.madvise(mmap.MADV_DONTNEED, self._start + start, end - start)

    def finish(self) -> None:
        """Nothing to keep."""

    def check(self) -> None:
        """Nothing is read from a disk again."""


class _Loader:
    def __init__(
        self,
        source: TensorSource,
        quants: Mapping[TensorRef, Quant],
        arena: Arena,
        *,
        threads: int,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.source, self.arena, self.threads, self.progress = source, arena, threads, progress
        self.quants = quants  # of what is packed
        self.done, self.total = 0, total
        self.read = 0  # bytes of the source that wait to be packed
        self.waiting: list[tuple[int, U8, int, U8]] = []  # as `_native.pack_many` takes them
        self.names: dict[str, None] = {}  # of tensors whose pages were read since they were last given back
        self.packed: dict[object, list[_native.Mat]] = {}

    def pack_all(self, needed: Mapping[TensorRef, NeededTensor], arena: Arena | None) -> None:
        """Pack these into an arena of their own; None: into memory."""
        self.arena = arena or Memory(_total_bytes(self.quants, needed))
        for need in needed.values():
            self.pack(need)
        self._pack_waiting()
        self.arena.finish()

    def pack(self, need: NeededTensor) -> None:
        quant = self.quants[need.ref]
        if self.arena.is_filled:
            self.packed[need.ref] = [self._as_packed(quant, need) for _ in range(need.n_experts)]
            return
        rectangle = need.ref.name, need.ref.rows, need.ref.columns
        # Expert by expert: a source that must put rows together then never holds all of them.
        many = need.role in LISTS
        slabs = self.source.slabs(*rectangle, need.ref.slabs) if many else [self.source.raw(*rectangle)]
        if quant is not self.source.tensors[need.ref.name].quant:
            slabs = [_upper_halves(slab) for slab in slabs]
        self.packed[need.ref] = [self._pack_rows(quant, slab, need) for slab in slabs]

    def expert_files(self, layers: Mapping[int, Sequence[NeededTensor]], folder: ExpertFolder) -> dict[int, ExpertFile]:
        """The experts of these layers on disk: what a run before has written, and the rest now."""
        sizes = {layer: _disk_bytes(needed, self.source.tensors) for layer, needed in layers.items()}
        files = {layer: folder.open(needed, self.source.tensors) for layer, needed in layers.items()}
        missing = sum(size for layer, size in sizes.items() if files[layer] is None)
        self.total += missing
        if missing:
            folder.make_room(missing)
        for layer, needed in layers.items():
            if files[layer] is None:
                files[layer] = folder.write(self.source, needed, threads=self.threads, written=self._advance)
        return {layer: file for layer, file in files.items() if file is not None}

    def _pack_rows(self, quant: Quant, raw: U8, need: NeededTensor) -> _native.Mat:
        n_bytes = _native.packed_bytes(quant.id, need.rows, need.cols, need.cols)
        out = self.arena.take(n_bytes)
        # Slice by slice, so that the file's pages of many rows or experts are not in memory beside the packed ones.
        step = max(PACK_BYTES // raw.shape[1] // PANEL, 1) * PANEL
        for row in range(0, need.rows, step):
            start = _native.packed_bytes(quant.id, row, need.cols, need.cols)
            piece = np.ascontiguousarray(raw[row : row + step])  # some columns of a mapped file are not
            self.waiting.append((quant.id, piece, need.cols, out[start:]))
            self.names[need.ref.name] = None
            self.read += piece.size
            if self.read + piece.size > PACK_BYTES:
                self._pack_waiting()
        self._advance(n_bytes)
        return _native.Mat(quant.id, need.rows, need.cols, out)

    def _pack_waiting(self) -> None:
        """Many small matrices at once: threads that meet for each of them would do little else."""
        _native.pack_many(self.waiting, self.threads)
        for name in self.names:
            self.source.drop(name)
        self.waiting.clear()
        self.names.clear()
        self.read = 0

    def _as_packed(self, quant: Quant, need: NeededTensor) -> _native.Mat:
        n_bytes = _native.packed_bytes(quant.id, need.rows, need.cols, need.cols)
        self._advance(n_bytes)
        return _native.Mat(quant.id, need.rows, need.cols, self.arena.take(n_bytes))

    def _advance(self, n_bytes: int) -> None:
        self.done += _aligned(n_bytes)
        if self.progress:
            self.progress(self.done, self.total)

    def vector(self, need: NeededTensor) -> F32:
        raw = self.source.raw(need.ref.name, need.ref.rows, need.ref.columns if need.cols > 1 else None)
        flat = np.ascontiguousarray(raw).reshape(1, -1)  # some columns of a mapped file are not
        return dequantize(self.source.tensors[need.ref.name].quant, flat).reshape(-1).copy()


def _upper_halves(floats: U8) -> U8:
    """Floats (rows, 4 * cols) as bf16 (rows, 2 * cols), of which only zeros are left out."""
    return (np.ascontiguousarray(floats).view("<u4") >> 16).astype("<u2").view(np.uint8)
