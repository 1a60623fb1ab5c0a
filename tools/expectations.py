#!/usr/bin/env python3
"""What `swarm plan` expects of typical devices with large models: tables in docs/glm-4.md, intellect-3.md, slices.md.

    python tools/expectations.py            print them
    python tools/expectations.py --write    put them into the pages

No device is measured and no model is read: sizes come from the shapes of the models and the rules of their quants
(tools/bench/shapes.py), figures of devices from swarm/cluster/devices.py, which says where it has them.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from swarm.cluster.cost import LayerCost, ModelCost  # noqa: E402
from swarm.cluster.cuts import Cuts  # noqa: E402
from swarm.cluster.devices import WIFI, WIRED, with_added  # noqa: E402
from swarm.cluster.planner import Demand, NoPlan, Plan, plan  # noqa: E402
from swarm.engine.row_table import SUM_BYTES  # noqa: E402
from swarm.units import size_text, time_text  # noqa: E402
from tools.bench.shapes import SHAPES, Shape, matrices, quant_for  # noqa: E402

CONTEXT = 4096
AMPLE_DISK = 2**50  # a disk is the cheapest part
BASE_BYTES = 150 * 2**20  # of a node itself: swarm/node/measure.py
TABLES: dict[str, tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "glm-4.md": (
        "glm4-9b",
        "Q4_K_M",
        (
            ("one Raspberry Pi 4, 8 GB", ("pi4:8GiB",)),
            ("one Raspberry Pi 5, 8 GB", ("pi5:8GiB",)),
            ("two Raspberry Pi 5, 4 GB", ("pi5:4GiBx2",)),
            ("one Raspberry Pi 5, 8 GB, and an old laptop, 8 GB", ("pi5:8GiB", "laptop:8GiB")),
            ("an old laptop, 16 GB", ("laptop:16GiB",)),
            ("a mini PC with an N100, 16 GB", ("n100:16GiB",)),
            ("a mini PC with DDR5, 32 GB", ("minipc:32GiB",)),
        ),
    ),
    "intellect-3.md": (
        "glm4.5-air",
        "Q4_K_M",
        (
            ("eight Raspberry Pi 5, 8 GB", ("pi5:8GiBx8",)),
            ("twelve Raspberry Pi 5, 8 GB", ("pi5:8GiBx12",)),
            ("six Raspberry Pi 5, 16 GB", ("pi5:16GiBx6",)),
            ("two mini PCs with DDR5, 32 GB, and a Raspberry Pi 5, 16 GB", ("minipc:32GiBx2", "pi5:16GiB")),
            ("three mini PCs with DDR5, 32 GB", ("minipc:32GiBx3",)),
            ("one mini PC with DDR5, 96 GB", ("minipc:96GiB",)),
        ),
    ),
}
PAGES = (*TABLES, "slices.md")
LINKS = {"cable": WIRED, "Wi-Fi": WIFI}
SHARED = "slices.md"  # the page whose table is of devices that share every layer
KINDS = {
    "Raspberry Pi 5, 16 GB": "pi5:16GiB",
    "mini PC with an N100, 16 GB": "n100:16GiB",
    "laptop with DDR4, 32 GB": "laptop:32GiB",
    "mini PC or laptop with DDR5, 32 GB": "minipc:32GiB",
}
COUNTS = (1, 2, 4, 8)
LARGE = {"GLM-4-9B, Q4_0": ("glm4-9b", "Q4_0"), "INTELLECT-3, Q4_K_M": ("glm4.5-air", "Q4_K_M")}
AXIS_OF = {"attn_q": "query", "attn_output": "query", "attn_k": "key", "attn_v": "key"}


def cost_of(shape: Shape, mix: str) -> ModelCost:
    """A model of this shape with all its layers, as the planner sees it."""
    shape = replace(shape, n_layers=shape.real_layers)
    dense, routed, macs, query, key, ffn, shared = ([0] * shape.n_layers for _ in range(7))
    ends = {}
    share = shape.top_k / shape.n_experts if shape.n_experts else 0.0
    for name, layer, dims in matrices(shape):
        quant = quant_for(shape, mix, name, layer, dims[-1])
        count = math.prod(dims)
        n_bytes = count // quant.block_cols * quant.block_bytes
        if layer < 0:
            ends[name] = n_bytes
        elif name.endswith("_exps"):
            routed[layer] += n_bytes
            macs[layer] += int(share * count)
        else:
            dense[layer] += n_bytes
            macs[layer] += count
            kind = AXIS_OF.get(name) or ("shared" if name.endswith("_shexp") else "ffn")
            {"query": query, "key": key, "shared": shared, "ffn": ffn}[kind][layer] += n_bytes
    kv = 2 * 2 * shape.n_kv_heads * shape.head_dim
    layers = tuple(
        LayerCost(
            dense[i],
            macs[i],
            kv,
            routed[i],
            share if routed[i] else 0.0,
            2 * shape.n_heads * shape.head_dim,
            query_bytes=query[i],
            key_bytes=key[i],
            ffn_bytes=ffn[i],
            shared_bytes=shared[i],
        )
        for i in range(shape.n_layers)
    )
    head = shape.vocab * shape.hidden
    return ModelCost(
        name=shape.arch,
        layers=layers,
        embed_bytes=SUM_BYTES * shape.vocab,
        lm_head_bytes=ends["output"],
        hidden=shape.hidden,
        lm_head_macs=head,
        cuts=cuts_of(shape, mix),
        embed_stored_bytes=ends["token_embd"],
    )


def cuts_of(shape: Shape, mix: str) -> Cuts:
    """Where such a model may be cut: between blocks of its columns."""
    blocks = {
        name: quant_for(shape, mix, name, layer, dims[-1]).block_cols
        for name, layer, dims in matrices(shape)
        if name in ("attn_output", "ffn_down", "ffn_down_exps")
    }
    heads = max(blocks["attn_output"] // shape.head_dim, 1)
    ffn, expert = (math.lcm(64, blocks.get(name, 64)) for name in ("ffn_down", "ffn_down_exps"))
    expert_ffn = shape.expert_ffn if shape.n_experts else 0
    sizes = (shape.n_heads, shape.ffn, expert_ffn, expert_ffn * shape.shared, shape.vocab)
    return Cuts(sizes, (heads, ffn, expert, expert, 16), shape.n_kv_heads)


def row(model: ModelCost, text: str, added: Sequence[str]) -> str:
    """One line of a table: what is bought, whether the model fits, and how fast it would be."""
    added_devices = with_added([], added)
    devices = [replace(d, memory_bytes=d.memory_bytes - BASE_BYTES, disk_bytes=AMPLE_DISK) for d in added_devices]
    cells = []
    for link in LINKS.values():
        result = plan(Demand(model, CONTEXT), devices, lambda a, b, link=link: link)
        if isinstance(result, NoPlan):
            return f"| {text} | no: {size_text(result.missing_bytes)} too little | | | |"
        cells.append(f"{result.prediction.tokens_per_s:.1f}")
        if link is WIRED:
            first_s, n = result.prediction.first_token_s, sum(len(stage.members) for stage in result.stages)
    by_wifi = cells[1] if n > 1 else cells[0]
    return f"| {text} | {n} device{'s' * (n != 1)} | {cells[0]} | {by_wifi} | {time_text(first_s)} |"


def shared_table() -> str:
    """What one, two, four and eight equal devices would do by cable, and what they would do as a pipeline."""
    lines = []
    for name, (shape, mix) in LARGE.items():
        model = cost_of(SHAPES[shape], mix)
        head = " | ".join(f"{n}" for n in COUNTS)
        lines += [f"| {name}, tok/s | {head} |", "|---" * (1 + len(COUNTS)) + "|"]
        lines += [f"| {text} | {' | '.join(_cell(model, added, n) for n in COUNTS)} |" for text, added in KINDS.items()]
        lines.append("")
    return "\n".join(lines[:-1])


def _cell(model: ModelCost, kind: str, n: int) -> str:
    devices = [replace(d, disk_bytes=AMPLE_DISK) for d in with_added([], [f"{kind}x{n}"])]
    found = plan(Demand(model, CONTEXT), devices, lambda a, b: WIRED)
    if isinstance(found, NoPlan):
        return "no room"
    in_a_row = plan(Demand(model, CONTEXT, layout="pipeline"), devices, lambda a, b: WIRED)
    beside = f" ({_rate(in_a_row)})" if not isinstance(in_a_row, NoPlan) and n > 1 else ""
    return f"{_rate(found)}{beside}"


def _rate(found: Plan) -> str:
    rate = found.prediction.tokens_per_s
    return f"{rate:.1f}" if rate >= 0.1 else f"{rate:.2f}"


def table(page: str) -> str:
    """The table of one page."""
    if page == SHARED:
        return shared_table()
    shape, mix, rows = TABLES[page]
    model = cost_of(SHAPES[shape], mix)
    kv = size_text(model.stage_kv_bytes(0, model.n_layers, CONTEXT))
    read = model.lm_head_bytes + sum(layer.read_bytes() for layer in model.layers)
    lines = [
        f"{mix}: {size_text(model.all_stored_bytes)} of weights, of which a token reads {size_text(read)}; {kv} for a "
        f"conversation of {CONTEXT} tokens.",
        "",
        "| what you have | takes part | tok/s by cable | tok/s by Wi-Fi | first word after 256 tokens of prompt |",
        "|---|---|---|---|---|",
        *(row(model, text, added) for text, added in rows),
    ]
    return "\n".join(lines)


def with_table(page: str, text: str) -> str:
    """The text of a page with its table made anew."""
    new = f"<!-- expectations -->\n{table(page)}\n<!-- /expectations -->"
    return re.sub(r"<!-- expectations -->.*<!-- /expectations -->", lambda _: new, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    args = parser.parse_args()
    for page in PAGES:
        path = ROOT / "docs" / page
        if args.write:
            path.write_text(with_table(page, path.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            print(f"{page}\n{table(page)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
