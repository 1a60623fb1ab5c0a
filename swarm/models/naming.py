"""The names of tensors, bound to checked rectangles of them.

A family lists, layer by layer, which tensor holds which roles; `bind` turns that into `TensorRef`s and compares every
tensor of the list with the file's tensor table: presence, shape, type.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import replace

from swarm.architectures import quoted
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models.header import Header
from swarm.models.spec import OUTSIDE_LAYERS, ModelSpec, MtpSpec, Role, RoleShape, TensorRef, role_shape

# One tensor of the file and the roles whose rows it holds, in order.
Name = tuple[str, tuple[Role, ...]]


def qkv_names(h: Header, layer: int, bias: bool) -> list[Name]:
    """Query, key and value as one fused tensor where the file has it, else as three."""
    block = f"blk.{layer}."
    names: list[Name] = []
    for suffix, roles in (("weight", _QKV), ("bias", _QKV_BIAS)):
        if suffix == "bias" and not bias:
            continue
        if h.has(f"{block}attn_qkv.{suffix}"):
            names.append((f"{block}attn_qkv.{suffix}", roles))
        else:
            names += [(f"{block}attn_{part}.{suffix}", (role,)) for part, role in zip("qkv", roles, strict=True)]
    return names


_QKV = (Role.Q, Role.K, Role.V)
_QKV_BIAS = (Role.Q_BIAS, Role.K_BIAS, Role.V_BIAS)


def has_qkv_bias(h: Header) -> bool:
    """Whether the query of any layer has a bias; then all must."""
    return any(name.endswith((".attn_q.bias", ".attn_qkv.bias")) for name in h.tensors)


def layer_names(layer: int, *names: tuple[str, Role]) -> list[Name]:
    """Tensors `blk.LAYER.NAME.weight` that hold one role each."""
    return [(f"blk.{layer}.{name}.weight", (role,)) for name, role in names]


def bias_names(layer: int, *names: tuple[str, Role]) -> list[Name]:
    """Tensors `blk.LAYER.NAME.bias` that hold one role each."""
    return [(f"blk.{layer}.{name}.bias", (role,)) for name, role in names]


def expert_names(h: Header, layer: int) -> list[Name]:
    """The routed experts of a layer: gate and up as one fused tensor (gate rows first) where the file has it."""
    block = f"blk.{layer}."
    down = [(f"{block}ffn_down_exps.weight", (Role.EXPERT_DOWN,))]
    if h.has(f"{block}ffn_gate_up_exps.weight"):
        return [(f"{block}ffn_gate_up_exps.weight", (Role.EXPERT_GATE, Role.EXPERT_UP)), *down]
    return layer_names(layer, ("ffn_gate_exps", Role.EXPERT_GATE), ("ffn_up_exps", Role.EXPERT_UP)) + down


def shared_names(layer: int) -> list[Name]:
    """The shared expert of a layer."""
    return layer_names(
        layer,
        ("ffn_gate_shexp", Role.SHARED_GATE),
        ("ffn_up_shexp", Role.SHARED_UP),
        ("ffn_down_shexp", Role.SHARED_DOWN),
    )


def outside_names(h: Header) -> list[Name]:
    """Tensors outside layers; without output.weight the embedding is the LM head too."""
    names: list[Name] = [("token_embd.weight", (Role.EMBED,)), ("output_norm.weight", (Role.OUTPUT_NORM,))]
    names.append(("token_embd.weight" if is_tied(h) else "output.weight", (Role.LM_HEAD,)))
    if h.has("rope_freqs.weight"):
        names.append(("rope_freqs.weight", (Role.ROPE_FREQS,)))
    return names


def is_tied(h: Header) -> bool:
    """Whether the embedding serves as the LM head."""
    return not h.has("output.weight")


# ---- names to checked rectangles ----


def bind(
    h: Header, spec: ModelSpec, layer_names: Iterable[list[Name]], beside: Container[str] = frozenset()
) -> ModelSpec:
    """The spec with a TensorRef for every role, after checking each tensor's presence, shape and type.

    Keys and tensors that the family has no use for are refused, but for the blocks called `beside`, by their numbers.
    """
    h.refuse_other_keys()
    outside = _refs(h, spec, OUTSIDE_LAYERS, outside_names(h))
    layers = tuple(
        replace(block, tensors=_refs(h, spec, layer, names))
        for layer, (block, names) in enumerate(zip(spec.layers, layer_names, strict=True))
    )
    bound = replace(spec, layers=layers, tensors=outside)
    _refuse_other_tensors(h, bound, beside)
    return bound


def bind_mtp(h: Header, spec: ModelSpec, prefix: str, layer: list[Name]) -> MtpSpec:
    """A block that predicts a further token, a model of one layer but for what feeds it; its tensors are checked.

    What it does not have of its own is the model's: the embedding, the last norm, the head.
    """

    def own_or(name: str, other: str) -> str:
        return f"{prefix}{name}.weight" if h.has(f"{prefix}{name}.weight") else other

    head = "token_embd.weight" if is_tied(h) else "output.weight"
    outside: list[Name] = [
        (own_or("embed_tokens", "token_embd.weight"), (Role.EMBED,)),
        (own_or("shared_head_norm", "output_norm.weight"), (Role.OUTPUT_NORM,)),
        (own_or("shared_head_head", head), (Role.LM_HEAD,)),
    ]
    if h.has("rope_freqs.weight"):
        outside.append(("rope_freqs.weight", (Role.ROPE_FREQS,)))
    feeds: list[Name] = [
        (f"{prefix}eh_proj.weight", (Role.MTP_PROJECTION,)),
        (f"{prefix}enorm.weight", (Role.MTP_TOKEN_NORM,)),
        (f"{prefix}hnorm.weight", (Role.MTP_STATE_NORM,)),
        (own_or("shared_head_norm", "output_norm.weight"), (Role.MTP_NORM,)),
    ]
    blocks = (replace(spec.layers[0], tensors=_refs(h, spec, 0, [*layer, *feeds])),)
    bound = replace(spec, layers=blocks, tensors=_refs(h, spec, OUTSIDE_LAYERS, outside))
    return MtpSpec(bound, prefix)


def _refs(h: Header, spec: ModelSpec, layer: int, names: list[Name]) -> dict[Role, TensorRef]:
    refs: dict[Role, TensorRef] = {}
    for name, roles in names:
        shapes = [role_shape(spec, layer, role) for role in roles]
        row = 0
        for role, shape in zip(roles, shapes, strict=True):
            refs[role] = TensorRef(name, (range(row, row + shape.rows),), range(shape.cols))
            row += shape.rows
        _check_tensor(h, name, RoleShape(row, shapes[0].cols, shapes[0].n_experts))
    return refs


def _check_tensor(h: Header, name: str, want: RoleShape) -> None:
    info = h.tensors.get(name)
    if info is None:
        raise BadModelFile(f"tensor {name} is missing: a {h.arch} model needs it; the file is not complete")
    expected = _file_shape(want)
    if tuple(info.shape) != expected:
        found = " x ".join(map(str, info.shape))
        raise BadModelFile(f"tensor {name} is {found}: the metadata makes it {' x '.join(map(str, expected))}")
    block = info.quant.block_cols
    if want.cols % block or (want.cols == 1 and block != 1):
        raise BadModelFile(f"tensor {name} is {info.quant.name}: its rows are not whole blocks of {block} columns")


def _file_shape(want: RoleShape) -> tuple[int, ...]:
    if want.n_experts > 1:
        return (want.n_experts, want.rows, want.cols)
    return (want.rows,) if want.cols == 1 else (want.rows, want.cols)


# What files of 2023 carry beside a layer's weights; it changes nothing.
_HARMLESS = re.compile(r"blk\.\d+\.attn_rot_embd(\.weight)?")


def _refuse_other_tensors(h: Header, spec: ModelSpec, beside: Container[str]) -> None:
    """UnsupportedModel for a tensor that the spec does not use: leaving it out would compute nonsense."""
    groups = (spec.tensors, *(block.tensors for block in spec.layers))
    used = {ref.name for tensors in groups for ref in tensors.values()}
    for name in h.tensors:
        prefix, block, *_ = *name.split(".", 2), ""
        if name not in used and not (prefix == "blk" and block in beside) and not _HARMLESS.fullmatch(name):
            raise UnsupportedModel(f"tensor {quoted(name)}: Swarm's {h.arch} has no use for it, so it is another model")
