"""The types in which weights are stored, and their dequantisation in NumPy.

Which types there are, csrc/quants.h says. Here the meaning of a block's bytes is written a second time, as ggml defines
it: `_READERS` names its fields, and each function below turns the blocks of one type into floats with the operations,
and the order of operations, of the `gguf` package, so both agree bit for bit. This is the oracle of the compiled
kernels and the slow path of everything that is not one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swarm.kernels import _native, grid_blocks

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.void]


@dataclass(frozen=True)
class Quant:
    """A storage type. `id` is its number in ggml_type; a block of `block_cols` columns takes `block_bytes` bytes.

    In memory, packed, it takes `packed_block_bytes`: more, where the file holds places in a grid.
    """

    id: int
    name: str
    block_cols: int
    block_bytes: int
    packed_block_bytes: int

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of a row of n_cols columns, which must be whole blocks."""
        assert n_cols % self.block_cols == 0, (self.name, n_cols)
        return n_cols // self.block_cols * self.block_bytes

    def packed_row_bytes(self, n_cols: int) -> int:
        """Bytes that such a row takes in memory."""
        assert n_cols % self.block_cols == 0, (self.name, n_cols)
        return n_cols // self.block_cols * self.packed_block_bytes


def dequantize(quant: Quant, raw: U8) -> F32:
    """The floats (..., n_cols) that the stored rows `raw` (..., row_bytes) stand for."""
    fields, to_floats = _READERS[quant.name]
    layout = np.dtype(fields)
    assert raw.dtype == np.uint8 and raw.shape[-1] % layout.itemsize == 0, (quant.name, raw.dtype, raw.shape)
    blocks = np.ascontiguousarray(raw).view(layout)  # (..., n_blocks)
    # Scales that are nan or inf are the file's business: they come out as the arithmetic gives them.
    with np.errstate(all="ignore"):
        values = to_floats(blocks)
    return values.reshape(*raw.shape[:-1], -1)


def quant_by_name(name: str) -> Quant:
    """The storage type called `name`; KeyError when there is none such."""
    return _BY_NAME[name]


def quant_names() -> str:
    """The names of all supported types, for messages."""
    return ", ".join(_BY_NAME)


def type_name(type_id: int) -> str:
    """What a number in a file's tensor table is called, supported or not."""
    if type_id in QUANTS:
        return QUANTS[type_id].name
    return UNSUPPORTED_TYPES.get(type_id, f"unknown type {type_id}")


def why_refused(type_id: int) -> str:
    """What a type is called, whose it is, what is supported, and which file of the same model runs."""
    owner = f", a type of {_OWNERS[type_id]}" if type_id in _OWNERS else ""
    digits = re.findall(r"\d", UNSUPPORTED_TYPES.get(type_id, ""))
    instead = _INSTEAD.get(digits[0] if digits else "", "Q4_K_M")
    return (
        f"{type_name(type_id)}{owner}; supported are {quant_names()}: "
        f"a file of the same model with {instead} in its name runs"
    )


# ---- blocks to floats: every function takes (..., n_blocks) records and returns (..., n_blocks, groups, columns) ----


def _scale(field: npt.NDArray[np.float16]) -> F32:
    """One scale per block, ready to multiply (..., n_blocks, groups, columns)."""
    return field.astype(np.float32)[..., None, None]


def _bit_fields(packed: U8, width: int, count: int) -> U8:
    """(..., n) bytes to (..., count, n) fields of `width` bits, lowest bits first."""
    shifts = np.arange(0, width * count, width, dtype=np.uint8)[:, None]
    return (packed[..., None, :] >> shifts) & np.uint8((1 << width) - 1)


def _bits32(packed: npt.NDArray[np.uint32]) -> U8:
    """Words (...) to (..., 2, 16) single bits: bit i belongs to column i."""
    bits = (packed[..., None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return bits.astype(np.uint8).reshape(*packed.shape, 2, 16)


def _f32(blocks: Blocks) -> F32:
    return np.asarray(blocks["x"], dtype=np.float32)


def _bf16(blocks: Blocks) -> F32:
    return (blocks["x"].astype(np.uint32) << np.uint32(16)).view(np.float32)


def _q8_0(blocks: Blocks) -> F32:
    return np.asarray(blocks["q"].astype(np.float32) * _scale(blocks["d"])[..., 0], dtype=np.float32)


def _q4_0(blocks: Blocks) -> F32:
    q = _bit_fields(blocks["q"], 4, 2).astype(np.int8) - np.int8(8)
    return _scale(blocks["d"]) * q.astype(np.float32)


def _q4_1(blocks: Blocks) -> F32:
    q = _bit_fields(blocks["q"], 4, 2).astype(np.float32)
    return _scale(blocks["d"]) * q + _scale(blocks["m"])


def _q5_0(blocks: Blocks) -> F32:
    q = _bit_fields(blocks["q"], 4, 2) | (_bits32(blocks["high"]) << np.uint8(4))
    return _scale(blocks["d"]) * (q.astype(np.int8) - np.int8(16)).astype(np.float32)


def _q5_1(blocks: Blocks) -> F32:
    q = _bit_fields(blocks["q"], 4, 2) | (_bits32(blocks["high"]) << np.uint8(4))
    return _scale(blocks["d"]) * q.astype(np.float32) + _scale(blocks["m"])


def _q2_k(blocks: Blocks) -> F32:
    scales = blocks["scales"][..., None]  # (..., 16, 1): low nibble scale, high nibble minimum
    d = _scale(blocks["d"]) * (scales & np.uint8(15)).astype(np.float32)
    m = _scale(blocks["dmin"]) * (scales >> np.uint8(4)).astype(np.float32)
    q = _bit_fields(blocks["q"].reshape(*blocks.shape, 2, 32), 2, 4)  # (..., 2, 4, 32)
    return d * q.reshape(*blocks.shape, 16, 16).astype(np.float32) - m


def _q3_k(blocks: Blocks) -> F32:
    low = _bit_fields(blocks["scales"][..., :8], 4, 2).reshape(*blocks.shape, 16)
    high = _bit_fields(blocks["scales"][..., 8:], 2, 4).reshape(*blocks.shape, 16)
    scales = (low | (high << np.uint8(4))).astype(np.int8) - np.int8(32)
    q = _bit_fields(blocks["q"].reshape(*blocks.shape, 2, 32), 2, 4).reshape(*blocks.shape, 16, 16)
    # A set bit of the mask means "nothing to subtract".
    missing = _bit_fields(blocks["mask"], 1, 8).reshape(*blocks.shape, 16, 16) ^ np.uint8(1)
    values = q.astype(np.int8) - (missing << np.uint8(2)).astype(np.int8)
    return _scale(blocks["d"]) * scales.astype(np.float32)[..., None] * values.astype(np.float32)


def _k_scales(packed: U8) -> tuple[F32, F32]:
    """The eight 6-bit scales and minima of Q4_K and Q5_K, (..., 12) bytes to two (..., 8, 1)."""
    a, b, c = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=-1)
    minima = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=-1)
    return scales.astype(np.float32)[..., None], minima.astype(np.float32)[..., None]


def _q4_k(blocks: Blocks) -> F32:
    scales, minima = _k_scales(blocks["scales"])
    q = _bit_fields(blocks["q"].reshape(*blocks.shape, 4, 32), 4, 2)  # (..., 4, 2, 32)
    d, m = _scale(blocks["d"]) * scales, _scale(blocks["dmin"]) * minima
    return d * q.reshape(*blocks.shape, 8, 32).astype(np.float32) - m


def _q5_k(blocks: Blocks) -> F32:
    scales, minima = _k_scales(blocks["scales"])
    low = _bit_fields(blocks["q"].reshape(*blocks.shape, 4, 32), 4, 2).reshape(*blocks.shape, 8, 32)
    q = low | (_bit_fields(blocks["high"], 1, 8) << np.uint8(4))
    d, m = _scale(blocks["d"]) * scales, _scale(blocks["dmin"]) * minima
    return d * q.astype(np.float32) - m


def _q6_k(blocks: Blocks) -> F32:
    low = _bit_fields(blocks["q"].reshape(*blocks.shape, 2, 64), 4, 2).reshape(*blocks.shape, 8, 32)
    high = _bit_fields(blocks["high"].reshape(*blocks.shape, 2, 32), 2, 4).reshape(*blocks.shape, 8, 32)
    q = (low | (high << np.uint8(4))).astype(np.int8) - np.int8(32)
    d = _scale(blocks["d"]) * blocks["scales"].astype(np.float32)[..., None]
    return d * q.reshape(*blocks.shape, 16, 16).astype(np.float32)


# The sixteen levels of IQ4_NL and IQ4_XS (ggml: kvalues_iq4nl).
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_LEVELS = np.array(IQ4_LEVELS, dtype=np.float32)


def _iq4_nl(blocks: Blocks) -> F32:
    return _scale(blocks["d"]) * _LEVELS[_bit_fields(blocks["q"], 4, 2)]


def _iq4_xs(blocks: Blocks) -> F32:
    low = np.swapaxes(_bit_fields(blocks["scales_low"], 4, 2), -1, -2).reshape(*blocks.shape, 8)
    high = (blocks["scales_high"][..., None] >> np.arange(0, 16, 2, dtype=np.uint16)) & np.uint16(3)
    scales = (low | (high.astype(np.uint8) << np.uint8(4))).astype(np.int8) - np.int8(32)
    q = _bit_fields(blocks["q"].reshape(*blocks.shape, 8, 16), 4, 2).reshape(*blocks.shape, 8, 32)
    return _scale(blocks["d"]) * scales.astype(np.float32)[..., None] * _LEVELS[q]


# The values of MXFP4, doubled (OCP Microscaling Formats, E2M1), for half of its scale (E8M0).
_FP4_VALUES = np.array((0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), dtype=np.float32)


def _mxfp4(blocks: Blocks) -> F32:
    e = blocks["e"].astype(np.uint32)
    bits = np.where(e < 2, np.uint32(0x00200000) << e, (e - np.uint32(1)) << np.uint32(23))
    half_scale = bits.astype(np.uint32).view(np.float32)[..., None, None]
    return np.asarray(half_scale * _FP4_VALUES[_bit_fields(blocks["q"], 4, 2)], dtype=np.float32)


Fields = list[tuple[str, str] | tuple[str, str, tuple[int]]]

_READERS: dict[str, tuple[Fields, Callable[[Blocks], F32]]] = {
    "F32": ([("x", "<f4", (1,))], _f32),
    "F16": ([("x", "<f2", (1,))], _f32),
    "BF16": ([("x", "<u2", (1,))], _bf16),
    "Q8_0": ([("d", "<f2"), ("q", "i1", (32,))], _q8_0),
    "Q4_0": ([("d", "<f2"), ("q", "u1", (16,))], _q4_0),
    "Q4_1": ([("d", "<f2"), ("m", "<f2"), ("q", "u1", (16,))], _q4_1),
    "Q5_0": ([("d", "<f2"), ("high", "<u4"), ("q", "u1", (16,))], _q5_0),
    "Q5_1": ([("d", "<f2"), ("m", "<f2"), ("high", "<u4"), ("q", "u1", (16,))], _q5_1),
    "Q2_K": ([("scales", "u1", (16,)), ("q", "u1", (64,)), ("d", "<f2"), ("dmin", "<f2")], _q2_k),
    "Q3_K": ([("mask", "u1", (32,)), ("q", "u1", (64,)), ("scales", "u1", (12,)), ("d", "<f2")], _q3_k),
    "Q4_K": ([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("q", "u1", (128,))], _q4_k),
    "Q5_K": (
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("high", "u1", (32,)), ("q", "u1", (128,))],
        _q5_k,
    ),
    "Q6_K": ([("q", "u1", (128,)), ("high", "u1", (64,)), ("scales", "i1", (16,)), ("d", "<f2")], _q6_k),
    "IQ4_NL": ([("d", "<f2"), ("q", "u1", (16,))], _iq4_nl),
    "IQ4_XS": ([("d", "<f2"), ("scales_high", "<u2"), ("scales_low", "u1", (4,)), ("q", "u1", (128,))], _iq4_xs),
    "MXFP4": ([("e", "u1"), ("q", "u1", (16,))], _mxfp4),
}


def _reader_of_grids(name: str, block_bytes: int) -> tuple[Fields, Callable[[Blocks], F32]]:
    return [("b", "u1", (block_bytes,))], lambda blocks: grid_blocks.to_floats(name, blocks["b"])


QUANTS: dict[int, Quant] = {row[0]: Quant(*row) for row in _native.quant_types()}

_BY_NAME = {quant.name: quant for quant in QUANTS.values()}

_READERS |= {name: _reader_of_grids(name, _BY_NAME[name].block_bytes) for name in grid_blocks.READERS}

# What ggml calls its types; those in csrc/quants.h are supported.
_TYPE_NAMES = {
    4: "Q4_2",
    5: "Q4_3",
    9: "Q8_1",
    15: "Q8_K",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "I2_S",  # of files that people have; for a while llama.cpp had it as IQ4_NL_4_4, which was never in files
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
    40: "NVFP4",
    41: "Q1_0",
    42: "Q2_0",
}
_OF_IK_LLAMA = {
    133: "Q6_0",
    134: "IQ1_BN",
    135: "IQ2_BN",
    137: "IQ2_K",
    138: "IQ3_K",
    139: "IQ4_K",
    140: "IQ5_K",
    141: "IQ6_K",
    144: "IQ4_KS",
    145: "IQ2_KS",
    146: "IQ4_KSS",
    152: "IQ5_KS",
    153: "IQ2_KT",
    154: "IQ3_KT",
    155: "IQ4_KT",
    156: "IQ3_KS",
    157: "IQ2_KL",
    158: "IQ1_KT",
}
_OWNERS = {36: "bitnet.cpp", **dict.fromkeys((*range(96, 200), *range(202, 400)), "ik_llama.cpp")}

UNSUPPORTED_TYPES = {number: name for number, name in (_TYPE_NAMES | _OF_IK_LLAMA).items() if number not in QUANTS}
# What files of about as many bits a weight are called that run, by the first digit of the type's name.
_INSTEAD = {"1": "Q2_K", "2": "Q2_K", "3": "Q3_K_M", "5": "Q5_K_M", "6": "Q6_K"}
