"""`swarm show`: what a model is made of, what it needs, and whether it fits on this device."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm import config
from swarm.cli import loading, machine, options
from swarm.cli.terminal import harmless, human_count
from swarm.cluster.expert_hits import CURVE, expected_hit_rate, own_curve
from swarm.units import size_text

if TYPE_CHECKING:
    from swarm.models.header import TensorEntry
    from swarm.models.spec import ModelSpec

HELP = "Show what a model is: its shape, how its weights are stored, the memory it needs, and whether it fits here."
EXAMPLES = """\
  swarm show                      the default model
  swarm show ./GLM-4-9B.gguf      a model file of yours
  swarm show hf.co/bartowski/Qwen_Qwen3-8B-GGUF:Q4_K_M    one that is not here: its header is read, a few MB
  swarm show MODEL --json         for scripts
"""
CONTEXTS = (2048, 8192, 32768, 131072)
SHARES = (3, 6, 10, 20, 30, 50, 70)  # per cent of the experts in memory, as docs/experts.md has them


@dataclass(frozen=True)
class Summary:
    """Everything that `show` prints; sizes in bytes."""

    path: str
    name: str
    family: str
    parameters: int
    file_bytes: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    latent: int  # columns that latent attention keeps of a token; 0 for any other
    ffn: int
    experts: int
    experts_per_token: int
    vocabulary: int
    context: int
    quants: dict[str, int]  # bytes of each
    weights_bytes: int
    read_per_token_bytes: int
    kv_bytes_per_token: dict[str, int]
    ram_bytes: dict[int, int]  # context -> what it needs, with the KV type in force
    available_bytes: int
    fetching: str = ""  # what it takes to have it here
    words: str = ""  # how they are cut, where the file does not say
    mtp_bytes: int = 0  # of a block that predicts further tokens
    least_bytes: int = 0  # with the experts of a mixture on disk; 0 for dense models
    available_share: float = 1.0  # of the experts that would be in memory here; 0 when not even that fits
    available_hits: float = 1.0  # of their uses, those that would find their expert there
    own_hits: dict[int, float] = field(default_factory=dict)  # the same by per cent in memory, as runs here noted it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    parser.add_argument("--kv", choices=config.KV_TYPES, help="count past tokens as f16 (default) or q8_0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = options.settings_of(args)
    with loading.see_model(args.model, settings) as seen:
        summary = summarise(seen, settings.kv)
    print(json.dumps(asdict(summary), indent=1) if args.json else "\n".join(lines(summary, settings.kv)))
    return 0


def summarise(seen: loading.SeenModel, kv: str) -> Summary:
    """What the header of a model says; its weights are not touched."""
    from swarm.models import kv_bytes_per_token, kv_kinds, model_sizes, spec_from_gguf
    from swarm.models.appraise import OVERHEAD_BYTES

    file = seen.header
    spec = spec_from_gguf(file.metadata, file.tensors)
    sizes = model_sizes(spec, file.tensors)
    quants: Counter[str] = Counter()
    for tensor in file.tensors.values():
        quants[tensor.quant.name] += tensor.n_bytes
    mtp = _mtp_block(file.metadata, file.tensors)
    moe = next((layer.moe for layer in spec.layers if layer.moe), None)
    kinds = dict.fromkeys([*kv_kinds(spec, config.KV_TYPES), kv])
    per_token = {name: kv_bytes_per_token(spec, name.upper()) for name in kinds}
    contexts = [n for n in CONTEXTS if n < spec.context_length] + [spec.context_length]
    return Summary(
        path=seen.where,
        name=str(file.metadata.get("general.name", Path(seen.where).stem)),
        family=spec.family,
        parameters=sum(math.prod(tensor.shape) for tensor in file.tensors.values()),
        file_bytes=file.size_bytes,
        layers=spec.n_layers,
        hidden=spec.hidden,
        heads=spec.n_heads,
        kv_heads=spec.n_kv_heads,
        head_dim=spec.q_width // spec.n_heads,
        latent=spec.head_dim if spec.latent else 0,
        ffn=max(layer.ffn for layer in spec.layers),
        experts=moe.n_experts if moe else 0,
        experts_per_token=moe.top_k if moe else 0,
        vocabulary=spec.vocab,
        context=spec.context_length,
        quants=dict(quants.most_common()),
        weights_bytes=sizes.total,
        read_per_token_bytes=sizes.active_per_token,
        kv_bytes_per_token=per_token,
        ram_bytes={n: sizes.total + n * per_token[kv] + OVERHEAD_BYTES for n in contexts},
        available_bytes=machine.memory().available,
        fetching=seen.fetching,
        words=_words(file.metadata),
        mtp_bytes=sum(tensor.n_bytes for name, tensor in file.tensors.items() if mtp and name.startswith(mtp)),
        **_from_disk(spec, file.tensors, kv, loading.learnt_here(seen)),
    )


def _mtp_block(metadata: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> str:
    """How the names of the block that predicts further tokens begin; "" where there is none that is of use here."""
    from swarm.models.registry import mtp_from_gguf

    mtp = mtp_from_gguf(metadata, tensors)
    return mtp.prefix.removesuffix("nextn.") if mtp is not None else ""


def _words(metadata: Mapping[str, Any]) -> str:
    """How words are cut, where the file does not say; "" where it does."""
    from swarm.text.pretokenizers import pre_of_tokens
    from swarm.text.tokenizer import CUT_BY_GUESS

    tokens = metadata.get("tokenizer.ggml.tokens")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get("tokenizer.ggml.pre") or not tokens:
        return ""
    pre = pre_of_tokens(tokens)
    return f"cut as {pre}, by its tokens: it has no tokenizer.ggml.pre" if pre else CUT_BY_GUESS


def _from_disk(spec: ModelSpec, tensors: Mapping[str, TensorEntry], kv: str, ranks: Sequence[float]) -> dict[str, Any]:
    """What a mixture needs and gets when its experts may stay on disk. ranks: how runs here used them."""
    from swarm.errors import OutOfMemory
    from swarm.local.memory import least_bytes, memory_plan
    from swarm.models.appraise import OVERHEAD_BYTES

    mixtures = [layer.moe for layer in spec.layers if layer.moe]
    if not mixtures:
        return {}
    least = least_bytes(spec, tensors, kv=kv) + OVERHEAD_BYTES
    try:
        free = machine.memory().available - OVERHEAD_BYTES
        share = memory_plan(spec, tensors, wanted_context=0, kv=kv, free_bytes=free).resident_share
    except OutOfMemory:
        share = 0.0
    curve = own_curve(ranks, sum(moe.top_k for moe in mixtures))
    own = {per_cent: expected_hit_rate(per_cent / 100, curve) for per_cent in SHARES} if curve is not CURVE else {}
    hits = expected_hit_rate(share, curve)
    return {"least_bytes": least, "available_share": share, "available_hits": hits, "own_hits": own}


def lines(summary: Summary, kv: str) -> list[str]:
    """The summary as a person reads it."""
    return [
        f"{harmless(summary.name)}: {summary.family}, {human_count(summary.parameters)} parameters, "
        f"{size_text(summary.file_bytes)}",
        f"  {'at  ' if summary.fetching else 'file'}         {harmless(summary.path)}",
        *([f"  to fetch     {harmless(summary.fetching)}"] if summary.fetching else []),
        f"  shape        {_shape(summary)}",
        f"  vocabulary   {summary.vocabulary:,} tokens",
        *([f"  words        {summary.words}"] if summary.words else []),
        f"  stored as    {_quants(summary)}",
        *_packed_lines(summary),
        f"  a token      reads {size_text(summary.read_per_token_bytes)} of weights and keeps "
        + ", ".join(f"{size_text(size)} ({name})" for name, size in summary.kv_bytes_per_token.items()),
        f"  needs RAM    ({kv} keys and values; {size_text(summary.available_bytes)} is free here)",
        *(f"    {_need(summary, context)}" for context in summary.ram_bytes),
        *_disk_lines(summary),
        *_mtp_lines(summary),
    ]


def _mtp_lines(summary: Summary) -> list[str]:
    """What of the file guesses, if it is asked to."""
    if not summary.mtp_bytes:
        return []
    size = size_text(summary.mtp_bytes)
    return [f"  guesses      {size} of it predict further tokens (MTP): loaded with --draft mtp only"]


def _packed_lines(summary: Summary) -> list[str]:
    """Said where the weights are larger in memory than in the file."""
    if summary.weights_bytes <= summary.file_bytes:
        return []
    return [f"  in memory    {size_text(summary.weights_bytes)}: types below 4 bits take more there (docs/models.md)"]


def _disk_lines(summary: Summary) -> list[str]:
    if not summary.least_bytes:
        return []
    lines = [f"  from disk    runs, slowly, from {size_text(summary.least_bytes)} of memory on (docs/experts.md)"]
    if 0 < summary.available_share < 1:
        hits, share = 100 * summary.available_hits, 100 * summary.available_share
        lines.append(
            f"    here {share:.0f} % of its experts would be in memory, and {hits:.0f} % of their uses found there"
        )
    if summary.own_hits:
        shares = ", ".join(map(str, summary.own_hits))
        found = ", ".join(f"{100 * hits:.0f}" for hits in summary.own_hits.values())
        lines.append(f"    with {shares} % in memory, {found} % would be found, as runs here used them")
    return lines


def _shape(summary: Summary) -> str:
    keys = f"one latent of {summary.latent}" if summary.latent else f"{summary.kv_heads} KV heads"
    heads = f"{summary.heads} heads of {summary.head_dim} on {keys}"
    ffn = f"FFN {summary.ffn}" if summary.ffn else ""
    experts = f"{summary.experts} experts, {summary.experts_per_token} a token" if summary.experts else ""
    parts = (f"{summary.layers} layers of {summary.hidden}", heads, ffn, experts)
    return ", ".join(part for part in parts if part)


def _quants(summary: Summary) -> str:
    total = sum(summary.quants.values())
    return ", ".join(f"{name} {100 * size / total:.3g} %" for name, size in summary.quants.items())


def _need(summary: Summary, context: int) -> str:
    need = summary.ram_bytes[context]
    verdict = "fits" if need <= summary.available_bytes else f"{size_text(need - summary.available_bytes)} too much"
    return f"context {context:>7,}: {size_text(need):>8}  {verdict}"
