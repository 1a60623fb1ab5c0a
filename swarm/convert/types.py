"""Which type each tensor of a new file gets, and its bytes in it.

Single types are what llama.cpp's converter makes: every matrix in it, but vectors, biases and routers as floats, and
rows that are no whole blocks in the next larger type. Mixes keep more bits where they count most: for the LM head and,
in some layers, for values and down projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import gguf
import numpy as np
import numpy.typing as npt

from swarm.convert import k_quants
from swarm.kernels.quants import Quant, quant_by_name

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Mix:
    """A kind of file: the type of most matrices, of those in which more bits count, and of the LM head."""

    number: int  # general.file_type
    most: str
    careful: str
    head: str


MIXES: Mapping[str, Mix] = {
    "F32": Mix(0, "F32", "F32", "F32"),
    "F16": Mix(1, "F16", "F16", "F16"),
    "BF16": Mix(32, "BF16", "BF16", "BF16"),
    "Q8_0": Mix(7, "Q8_0", "Q8_0", "Q8_0"),
    "Q4_0": Mix(2, "Q4_0", "Q4_0", "Q6_K"),
    "Q4_K_M": Mix(15, "Q4_K", "Q6_K", "Q6_K"),
}
# Where a row is no whole blocks of the type.
FALLBACK = {"Q4_K": "Q5_0", "Q6_K": "Q8_0", "Q4_0": "F16", "Q5_0": "F16", "Q8_0": "F16"}

_ROUTER = "ffn_gate_inp"
_VALUES_OR_DOWN = re.compile(r"(attn_v|attn_qkv|attn_v_b|ffn_down|ffn_down_exps|ffn_down_shexp)\.weight$")
_LAYER = re.compile(r"blk\.(\d+)\.")


def quant_of(mix: str, name: str, shape: tuple[int, ...], n_layers: int, *, tied: bool) -> Quant:
    """The type in which a file of this mix stores a tensor. tied: the embedding is the LM head too."""
    if len(shape) == 1 or not name.endswith(".weight") or _ROUTER in name:
        return quant_by_name("F32")
    kind = MIXES[mix]
    wanted = kind.most
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        wanted = kind.head
    elif _VALUES_OR_DOWN.search(name) and counts_more(layer_of(name), n_layers):
        wanted = kind.careful
    while shape[-1] % quant_by_name(wanted).block_cols:
        wanted = FALLBACK[wanted]
    return quant_by_name(wanted)


def counts_more(layer: int, n_layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def layer_of(name: str) -> int:
    """The layer that a tensor is of; 0 for those outside layers."""
    match = _LAYER.match(name)
    return int(match[1]) if match else 0


def stored(quant: Quant, values: F32) -> U8:
    """The rows (rows, row_bytes) of values (rows, cols); a vector's bytes of a vector."""
    values = np.ascontiguousarray(values, np.float32)
    if quant.name in k_quants.QUANTIZE:
        raw = k_quants.QUANTIZE[quant.name](values.reshape(-1, k_quants.COLUMNS))
    else:
        with np.errstate(over="ignore"):  # what halfs cannot hold becomes infinite, as in llama.cpp's converter
            raw = np.ascontiguousarray(gguf.quantize(values, gguf.GGMLQuantizationType(quant.id))).view(np.uint8)
    return raw.reshape(*values.shape[:-1], quant.row_bytes(values.shape[-1]))
