"""Compile the kernels of csrc into a small shared library and call them through ctypes, without the extension."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from swarm.kernels.grids import grid_of
from swarm.kernels.quants import QUANTS

CSRC = Path(__file__).parents[2] / "csrc"
FLAGS = [
    "-O3",
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Werror",
]
N_TYPES = max(QUANTS) + 1


class Mat(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("tile_cols", ctypes.c_int32),
        ("streams", ctypes.c_int32),
        ("ahead", ctypes.c_int32),
    )


class Act(ctypes.Structure):
    _fields_ = (
        ("f", ctypes.c_void_p),
        ("q", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
        ("f_stride", ctypes.c_ssize_t),
        ("q_stride", ctypes.c_ssize_t),
        ("s_stride", ctypes.c_ssize_t),
        ("n_tokens", ctypes.c_int32),
        ("cols", ctypes.c_int32),
    )


class Sums(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_int32),
        ("group_cols", ctypes.c_int32),
        ("factor", ctypes.c_void_p),
        ("row", ctypes.c_void_p),
        ("near", ctypes.c_void_p),
        ("far", ctypes.c_void_p),
        ("stride", ctypes.c_ssize_t),
        ("wide", ctypes.c_void_p),
        ("broken", ctypes.c_void_p),
    )


INT = ctypes.c_int
MATMUL = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(Mat), ctypes.POINTER(Act), INT, INT, INT, INT, ctypes.c_void_p, ctypes.c_ssize_t
)
SUMS = ctypes.CFUNCTYPE(None, ctypes.POINTER(Mat), ctypes.POINTER(Act), INT, INT, INT, INT, ctypes.POINTER(Sums))
QUANTIZE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, INT, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class Kernels(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("streams", ctypes.c_int32),
        ("matmul", MATMUL * N_TYPES),
        ("sums", SUMS * N_TYPES),
        ("quantize", QUANTIZE),
    )


def guarded(n_bytes: int, fill: int = 0xA5, align: int = 64, guard: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A buffer of n bytes, aligned, between guard bytes: (all, inside)."""
    whole = np.full(n_bytes + 2 * guard + align, fill, np.uint8)
    start = guard + (-(whole.ctypes.data + guard)) % align
    return whole, whole[start : start + n_bytes]


def guards_intact(whole: np.ndarray, inside: np.ndarray, fill: int = 0xA5) -> bool:
    start = inside.ctypes.data - whole.ctypes.data
    return bool((whole[:start] == fill).all() and (whole[start + inside.size :] == fill).all())


@dataclass
class Packed:
    """A packed matrix and the buffer that holds it."""

    whole: np.ndarray
    data: np.ndarray
    mat: Mat


@dataclass
class Activations:
    f: np.ndarray
    q: np.ndarray
    scale: np.ndarray
    sum: np.ndarray
    act: Act
    guards: list[tuple[np.ndarray, np.ndarray]]


class Library:
    """The C functions with NumPy arrays in and out."""

    def __init__(self, path: Path) -> None:
        lib = ctypes.CDLL(str(path))
        self.lib = lib
        lib.sw_packed_bytes.restype = ctypes.c_size_t
        lib.sw_packed_bytes.argtypes = [INT] * 4
        lib.sw_type_bytes.restype = ctypes.c_size_t
        lib.sw_group_cols.argtypes = [INT, INT]
        lib.sw_pack.argtypes = [ctypes.POINTER(Mat), *[ctypes.c_void_p] * 2, INT, INT, ctypes.c_void_p]
        lib.sw_unpack.argtypes = [ctypes.POINTER(Mat), ctypes.c_void_p, INT, INT]
        lib.sw_dequant_row.argtypes = [ctypes.POINTER(Mat), INT, ctypes.c_void_p]
        lib.sw_kernels_by_name.restype = ctypes.POINTER(Kernels)
        lib.sw_kernels_by_name.argtypes = [ctypes.c_char_p]
        lib.sw_kernels_best.restype = ctypes.POINTER(Kernels)

    def kernels(self, name: str) -> Kernels | None:
        found = self.lib.sw_kernels_by_name(name.encode())
        return found.contents if found else None

    def table(self, symbol: str) -> Kernels:
        """A kernel table by its C name, usable here or not."""
        return Kernels.in_dll(self.lib, symbol)

    def names(self) -> list[str]:
        names = (ctypes.c_char_p * 16)()
        return [(names[i] or b"").decode() for i in range(self.lib.sw_kernels_list(names, 16))]

    def block(self, qtype: int) -> int:
        return int(self.lib.sw_type_block(qtype))

    def pack(self, qtype: int, blocks: np.ndarray, rows: int, cols: int, tile_cols: int | None = None) -> Packed:
        tile_cols = cols if tile_cols is None else tile_cols
        whole, data = guarded(self.lib.sw_packed_bytes(qtype, rows, cols, tile_cols))
        mat = Mat(data.ctypes.data, qtype, rows, cols, tile_cols)
        source = np.ascontiguousarray(blocks)  # stays alive during the call
        grid = grid_of(QUANTS[qtype].name)
        places = None if grid is None else grid.ctypes.data
        self.lib.sw_pack(mat, data.ctypes.data, source.ctypes.data, 0, rows, places)
        return Packed(whole, data, mat)

    def unpack(self, packed: Packed) -> np.ndarray:
        mat = packed.mat
        size = mat.rows * (mat.cols // self.block(mat.type)) * self.lib.sw_type_bytes(mat.type)
        whole, out = guarded(size)
        self.lib.sw_unpack(mat, out.ctypes.data, 0, mat.rows)
        assert guards_intact(whole, out)
        return out

    def dequant_row(self, packed: Packed, row: int) -> np.ndarray:
        whole, out = guarded(packed.mat.cols * 4)
        self.lib.sw_dequant_row(packed.mat, row, out.ctypes.data)
        assert guards_intact(whole, out)
        return out.view(np.float32)

    def activations(self, kernels: Kernels, x: np.ndarray) -> Activations:
        """Quantise (tokens, cols) floats."""
        tokens, cols = x.shape
        q_stride = -(-cols // 64) * 64
        s_stride, blocks = q_stride // 32, -(-cols // 32)
        buffers = [guarded(n) for n in (x.size * 4, tokens * q_stride, tokens * s_stride * 4, tokens * s_stride * 4)]
        f = buffers[0][1].view(np.float32).reshape(tokens, cols)
        f[:] = x
        q = buffers[1][1].view(np.int8).reshape(tokens, q_stride)
        scale = buffers[2][1].view(np.float32).reshape(tokens, s_stride)
        sums = buffers[3][1].view(np.int16).reshape(tokens, 2 * s_stride)
        for t in range(tokens):
            kernels.quantize(f[t].ctypes.data, cols, q[t].ctypes.data, scale[t].ctypes.data, sums[t].ctypes.data)
        pointers = (b.ctypes.data for b in (f, q, scale, sums))
        act = Act(*pointers, cols, q_stride, s_stride, tokens, cols)
        return Activations(f, q[:, : 32 * blocks], scale[:, :blocks], sums[:, : 2 * blocks], act, buffers)

    def matmul(
        self,
        kernels: Kernels,
        packed: Packed,
        x: Activations,
        *,
        tokens: tuple[int, int] | None = None,
        panels: tuple[int, int] | None = None,
        fill: float = -77.5,
    ) -> np.ndarray:
        """(tokens, rows); what a range leaves out stays `fill`."""
        rows, n = packed.mat.rows, x.act.n_tokens
        t0, t1 = tokens or (0, n)
        p0, p1 = panels or (0, -(-rows // 16))
        whole, out = guarded(n * rows * 4)
        y = out.view(np.float32).reshape(n, rows)
        y[:] = fill
        kernels.matmul[packed.mat.type](packed.mat, x.act, t0, t1, p0, p1, y.ctypes.data, rows)
        assert guards_intact(whole, out), "wrote outside y"
        return y

    def sums(
        self,
        kernels: Kernels,
        packed: Packed,
        x: Activations,
        *,
        columns: int,
        factor: np.ndarray,
        own: bool = False,
        tokens: tuple[int, int] | None = None,
        panels: tuple[int, int] | None = None,
        rows: np.ndarray | None = None,
        start: int = 0,
    ) -> np.ndarray:
        """int64 (tokens, rows), added to `start`; OverflowError when broken. rows: the token of each activation."""
        n_rows, n = packed.mat.rows, x.act.n_tokens
        t0, t1 = tokens or (0, n)
        p0, p1 = panels or (0, -(-n_rows // 16))
        n_out = n if rows is None else int(rows.max()) + 1
        whole, out = guarded(n_out * n_rows * 8)
        whole_near, near = guarded(n_out * n_rows * (8 if own else 4))
        far = out.view(np.int64).reshape(n_out, n_rows)
        far[:] = start
        near[:] = 0
        factors, wide, broken = np.ascontiguousarray(factor, np.float32).reshape(n), np.int32([0]), np.int32([0])
        row = 0 if rows is None else rows.ctypes.data
        places = (near.ctypes.data, far.ctypes.data, n_rows, wide.ctypes.data, broken.ctypes.data)
        kernels.sums[packed.mat.type](
            packed.mat, x.act, t0, t1, p0, p1, Sums(int(own), columns, factors.ctypes.data, row, *places)
        )
        assert guards_intact(whole, out), "wrote outside the far sums"
        assert guards_intact(whole_near, near), "wrote outside the near sums"
        if broken[0]:
            raise OverflowError("broken")
        assert wide[0] or (far == start).all(), "far sums that are not told of"
        self.far_sums = bool(wide[0])
        added = near.view(np.float64) * 2.0**24 if own else near.view(np.int32)
        return far + added.astype(np.int64).reshape(n_out, n_rows)


def sources(family: str = "x86" if os.uname().machine == "x86_64" else "arm") -> list[Path]:
    other = {"x86": "arm", "arm": "x86"}[family]
    names = [*CSRC.glob("matmul*.c"), *CSRC.glob("pack*.c"), CSRC / "dispatch.c"]
    return sorted(p for p in names if not p.name.endswith(f"_{other}.c"))


@dataclass
class Objects:
    """Compilers at work, side by side; paths() waits for them."""

    folder: Path
    jobs: list[tuple[Path, subprocess.Popen[str]]] = field(default_factory=list)

    def add(self, file: Path, *flags: str, cc: str = "gcc") -> None:
        out = self.folder / f"{file.stem}-{len(self.jobs)}.o"
        command = [cc, *FLAGS, f"-I{CSRC}", *flags, "-c", "-o", str(out), str(file)]
        self.jobs.append((out, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))

    def paths(self) -> list[str]:
        failures = [errors for _, job in self.jobs if (errors := job.communicate()[1])]
        assert not failures, failures[0]
        return [str(out) for out, _ in self.jobs]


@functools.cache
def library() -> Library:
    """The kernels of this machine's processor family."""
    with tempfile.TemporaryDirectory(prefix="swarm-kernels-") as folder:
        path, objects = Path(folder) / "native.so", Objects(Path(folder))
        for file in sources():
            objects.add(file, "-fPIC")
        subprocess.run(["gcc", "-shared", "-o", str(path), *objects.paths(), "-lm"], check=True)
        return Library(path)  # stays loaded when the file goes
