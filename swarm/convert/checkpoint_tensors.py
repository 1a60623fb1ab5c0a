"""From the tensors of a checkpoint to those of a GGUF file: names, the order of rows, what is joined and what is cut.

Names are those of the gguf package's tables. What families need beside: llama and its like turn adjacent pairs, so rows
of queries and keys alternate between the halves of a head; experts become one tensor; gate and up are parted; keys and
values of latent attention are parted, and the keys' matrices transposed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import gguf
import numpy as np
import numpy.typing as npt

from swarm.convert.checkpoint import Checkpoint, SourceTensor
from swarm.convert.checkpoint_keys import Fields, architecture_of
from swarm.convert.output import OutputTensor, Piece, rows_of
from swarm.convert.types import F32, U8, quant_of
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.kernels.quants import quant_by_name
from swarm.kernels.reference import llama3_divisors
from swarm.limits import CONVERT_PIECE_BYTES

Rows = npt.NDArray[np.int64]

PERMUTED = frozenset({"granite", "granitemoe", "llama", "mistral3", "smollm3"})
_LEFT_OUT = re.compile(r"(rotary_emb\.inv_freq|rotary_pos_emb|^vision|multi_modal_projector|visual\.)")
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "transformer.")
_EXPERT = re.compile(r"(?P<front>.+\.experts)\.(?P<number>\d+)\.(?P<part>\w+_proj)\.weight$")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
LLAMA3_CONTEXT = 8192


@dataclass(frozen=True)
class Draft:
    """A tensor before its type is chosen: its name in the checkpoint's words, and its slabs one after the other.

    A slab is read by rows; all have the same shape. `raw`: they are stored bytes already, of this type.
    """

    name: str
    shape: tuple[int, ...]
    slabs: tuple[Callable[[int, int], F32 | U8], ...]
    raw: str = ""


def output_tensors(checkpoint: Checkpoint, mix: str) -> list[OutputTensor]:
    """Every tensor of the new file, outside ones first, then layer by layer."""
    arch, fields = architecture_of(checkpoint.config), Fields(checkpoint.config)
    n_blocks = fields.whole("num_hidden_layers") + fields.whole("num_nextn_predict_layers", 0)
    table = gguf.get_tensor_name_map(_gguf_arch(arch), n_blocks)
    tied = bool(fields.find("tie_word_embeddings"))
    found: dict[str, OutputTensor] = {}
    for draft in drafts(checkpoint, arch, fields):
        if tied and draft.name == "lm_head.weight":
            continue
        name = table.get_name(draft.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UnsupportedModel(f"tensor {draft.name!r} of the checkpoint: Swarm's {arch} has no use for it")
        if name in found:
            raise BadModelFile(f"tensor {draft.name!r} of the checkpoint is there twice, in two ways")
        found[name] = _typed(name, draft, mix, n_blocks, tied)
    return sorted(found.values(), key=lambda tensor: _order(tensor.name))


def drafts(checkpoint: Checkpoint, arch: str, fields: Fields) -> Iterator[Draft]:
    """The tensors of the checkpoint in the order and shape that files have them."""
    named = {_plain_name(t.name): t for t in checkpoint.tensors.values() if not _LEFT_OUT.search(t.name)}
    last = fields.whole("num_hidden_layers") if arch == "deepseek2" else 1 << 30  # what comes after predicts further
    experts: dict[str, dict[int, SourceTensor]] = {}
    for name, tensor in named.items():
        layer, expert = _LAYER.match(name), _EXPERT.match(name)
        if layer and int(layer[1]) >= last:
            continue
        if expert:
            experts.setdefault(f"{expert['front']}.{expert['part']}.weight", {})[int(expert["number"])] = tensor
        else:
            yield from _drafts_of(name, tensor, arch, fields, named)
    for name, parts in experts.items():
        yield _stacked(name, parts, fields.whole("num_experts"))
    if fields.rope.get("rope_type") == "llama3":
        yield _divisors(fields)


def _drafts_of(
    name: str, tensor: SourceTensor, arch: str, fields: Fields, named: Mapping[str, SourceTensor]
) -> Iterator[Draft]:
    """What becomes of one tensor that is no single expert."""
    if arch == "gpt-oss" and ".mlp.experts." in name:
        yield from _gpt_oss_experts(name, tensor, named)
    elif name.endswith("kv_b_proj.weight"):
        yield from _parted_latents(name, tensor, fields)
    elif name.endswith((".experts.gate_up_proj", "block_sparse_moe.input_linear.weight")):
        yield from _parted_experts(name, tensor)
    elif name.endswith("shared_mlp.input_linear.weight"):
        half = tensor.shape[0] // 2
        for part, first in (("gate_proj", 0), ("up_proj", half)):
            yield _plain(_shared_name(name, part), tensor, np.arange(first, first + half))
    elif name.endswith(".experts.down_proj"):
        yield _slabs(_expert_name(name, "down_proj"), tensor)
    elif len(tensor.shape) == 3:
        yield _slabs(_renamed(name), tensor)
    else:
        yield _plain(_renamed(name), tensor, _row_order(name, tensor, arch, fields))


def _plain(name: str, tensor: SourceTensor, order: Rows | None) -> Draft:
    """A matrix or vector, its rows in another order where one is given."""

    def read(start: int, end: int) -> F32:
        return tensor.floats(slice(start, end) if order is None else order[start:end])

    shape = tensor.shape if order is None else (len(order), *tensor.shape[1:])
    return Draft(name, shape, (read,))


def _row_order(name: str, tensor: SourceTensor, arch: str, fields: Fields) -> Rows | None:
    """Of queries and keys of families whose files turn adjacent pairs: first and second half of a head alternate."""
    part = re.search(r"\.([qk])_proj\.(weight|bias)$", name)
    if arch not in PERMUTED or part is None:
        return None
    heads = fields.whole("num_attention_heads")
    heads = heads if part[1] == "q" else fields.whole("num_key_value_heads", heads)
    if not heads or tensor.shape[0] % (2 * heads):
        raise BadModelFile(f"tensor {name!r} has {tensor.shape[0]} rows: not those of {heads} heads")
    return np.arange(tensor.shape[0]).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _stacked(name: str, parts: Mapping[int, SourceTensor], n_experts: int) -> Draft:
    """One tensor of matrices that the checkpoint has one by one."""
    if sorted(parts) != list(range(n_experts)) or len({tensor.shape for tensor in parts.values()}) != 1:
        raise BadModelFile(f"{name}: the checkpoint has {len(parts)} of {n_experts} experts, or of several shapes")
    slabs = tuple(_rows_of(parts[i]) for i in range(n_experts))
    return Draft(name, (n_experts, *parts[0].shape), slabs)


def _rows_of(tensor: SourceTensor) -> Callable[[int, int], F32]:
    return lambda start, end: tensor.floats(slice(start, end))


def _slabs(
    name: str,
    tensor: SourceTensor,
    rows: range | None = None,
    columns: slice = slice(None),
    *,
    transposed: bool = False,
) -> Draft:
    """A tensor of matrices: of each these rows and columns, transposed after that where it is said."""
    picked = range(tensor.shape[1]) if rows is None else rows
    width = len(range(tensor.shape[2])[columns])

    def reader(i: int) -> Callable[[int, int], F32]:
        def read(start: int, end: int) -> F32:
            if transposed:
                return tensor.floats(i, slice(picked.start, picked.stop), columns).T[start:end]
            return tensor.floats(i, slice(picked.start + start, picked.start + end), columns)

        return read

    shape = (width, len(picked)) if transposed else (len(picked), width)
    return Draft(name, (tensor.shape[0], *shape), tuple(reader(i) for i in range(tensor.shape[0])))


def _parted_experts(name: str, tensor: SourceTensor) -> Iterator[Draft]:
    """Gate and up of all experts, gate's rows first."""
    half = tensor.shape[1] // 2
    yield _slabs(_expert_name(name, "gate_proj"), tensor, range(half))
    yield _slabs(_expert_name(name, "up_proj"), tensor, range(half, 2 * half))


def _parted_latents(name: str, tensor: SourceTensor, fields: Fields) -> Iterator[Draft]:
    """Of each head the matrix of its keys, transposed, and that of its values."""
    heads, nope, value = (fields.whole(n) for n in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    rank = tensor.shape[1]
    if tensor.shape[0] != heads * (nope + value):
        raise BadModelFile(f"tensor {name!r} has {tensor.shape[0]} rows: not {heads} heads of {nope} and {value}")

    def reader(head: int, *, of_keys: bool) -> Callable[[int, int], F32]:
        first = head * (nope + value)
        if of_keys:
            return lambda start, end: tensor.floats(slice(first, first + nope)).T[start:end]
        return lambda start, end: tensor.floats(slice(first + nope + start, first + nope + end))

    keys = tuple(reader(h, of_keys=True) for h in range(heads))
    values = tuple(reader(h, of_keys=False) for h in range(heads))
    yield Draft(name.replace("kv_b_proj", "k_b_proj"), (heads, rank, nope), keys)
    yield Draft(name.replace("kv_b_proj", "v_b_proj"), (heads, value, rank), values)


def _gpt_oss_experts(name: str, tensor: SourceTensor, named: Mapping[str, SourceTensor]) -> Iterator[Draft]:
    """Gate and up alternate; matrices are transposed, or blocks of MXFP4 with scales beside them."""
    both = name.rsplit(".", 1)[1].startswith("gate_up_proj")
    for target, step in (("gate_proj", slice(0, None, 2)), ("up_proj", slice(1, None, 2))) if both else ():
        yield from _gpt_oss_part(name, target, step, tensor, named)
    if not both:
        yield from _gpt_oss_part(name, "down_proj", slice(None), tensor, named)


def _gpt_oss_part(
    name: str, target: str, step: slice, tensor: SourceTensor, named: Mapping[str, SourceTensor]
) -> Iterator[Draft]:
    front, part = name.rsplit(".", 1)
    if part.endswith("_scales"):
        return
    if part.endswith("_bias"):
        values = tensor.shape[1] if step == slice(None) else tensor.shape[1] // 2
        shape = (tensor.shape[0], values)
        yield Draft(f"{front}.{target}.bias", shape, (lambda start, end: tensor.floats(slice(start, end), step),))
    elif part.endswith("_blocks"):
        scales = named.get(f"{front}.{part.removesuffix('_blocks')}_scales")
        if scales is None or scales.shape != tensor.shape[:-1] or len(tensor.shape) != 4:
            raise BadModelFile(f"tensor {front}.{part} has no scales, or scales of another shape")
        slabs = tuple(_blocks_of(tensor, scales, i, step) for i in range(tensor.shape[0]))
        rows = len(range(tensor.shape[1])[step])
        yield Draft(f"{front}.{target}.weight", (len(slabs), rows, tensor.shape[2] * 32), slabs, raw="MXFP4")
    else:
        yield _slabs(f"{front}.{target}.weight", tensor, columns=step, transposed=True)


def _blocks_of(blocks: SourceTensor, scales: SourceTensor, i: int, step: slice) -> Callable[[int, int], U8]:
    """The rows of one expert, as a file has them."""
    return lambda start, end: mxfp4(blocks.bytes_(i, step), scales.bytes_(i, step))[start:end]


def mxfp4(blocks: U8, scales: U8) -> U8:
    """GGUF's rows (rows, bytes) of the checkpoint's nibbles (rows, n_blocks, 16) and scales (rows, n_blocks).

    A byte of the checkpoint holds columns 2i and 2i + 1, low nibble first; one of GGUF columns i and i + 16.
    """
    columns = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    packed = columns[..., :16] | columns[..., 16:] << 4
    whole = np.concatenate([scales[..., None], packed], axis=-1)
    return whole.reshape(len(whole), -1)


def _divisors(fields: Fields) -> Draft:
    """Llama 3's stretched frequencies."""
    rope = fields.rope
    values = llama3_divisors(
        fields.head_dim,
        float(rope["rope_theta"]),
        factor=float(rope.get("factor", 8.0)),
        low_factor=float(rope.get("low_freq_factor", 1.0)),
        high_factor=float(rope.get("high_freq_factor", 4.0)),
        original_context=int(rope.get("original_max_position_embeddings", LLAMA3_CONTEXT)),
    )
    return Draft("rope_freqs.weight", values.shape, (lambda start, end: values[start:end],))


# ---- names ----


def _plain_name(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return rest if prefix in ("transformer.", "language_model.") else f"model.{rest}"
    return name


def _renamed(name: str) -> str:
    """As the tables of the gguf package know it."""
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    name = name.replace("block_sparse_moe.router.weight", "block_sparse_moe.router.layer.weight")
    return f"{name}.weight" if name.endswith(".sinks") else name


def _expert_name(name: str, part: str) -> str:
    return f"{name[: name.index('.layers.')]}.layers.{_number(name)}.mlp.experts.{part}.weight"


def _shared_name(name: str, part: str) -> str:
    return f"{name[: name.index('.layers.')]}.layers.{_number(name)}.mlp.shared_experts.{part}.weight"


def _number(name: str) -> str:
    match = _LAYER.match(name)
    if match is None:
        raise BadModelFile(f"tensor {name!r} of the checkpoint belongs to no layer")
    return match[1]


def _gguf_arch(arch: str) -> gguf.MODEL_ARCH:
    return next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)


def _order(name: str) -> tuple[int, int, str]:
    parts = name.split(".")
    return (1, int(parts[1]), name) if parts[0] == "blk" else (0, 0, name)


def _typed(name: str, draft: Draft, mix: str, n_layers: int, tied: bool) -> OutputTensor:
    quant = quant_by_name(draft.raw) if draft.raw else quant_of(mix, name, draft.shape, n_layers, tied=tied)
    per_slab = int(np.prod(draft.shape[:-1], dtype=np.int64)) // len(draft.slabs)
    if len(draft.shape) == 1:
        per_slab = draft.shape[0]
    row_bytes = 4 * draft.shape[-1] if len(draft.shape) > 1 else 4
    pieces: list[Piece] = []
    for read in draft.slabs:
        # A slab that is transposed or repacked is read as a whole, so it is one piece.
        pieces += rows_of(read, per_slab, row_bytes, CONVERT_PIECE_BYTES * (1 if len(draft.slabs) == 1 else 8))
    return OutputTensor(name, draft.shape, quant, pieces)
