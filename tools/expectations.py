#!/usr/bin/env python3
"""What `swarm plan` expects of typical devices with large models: the tables in docs/glm-4.md and docs/intellect-3.md.

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
from swarm.cluster.devices import WIFI, WIRED, with_added  # noqa: E402
from swarm.cluster.planner import Demand, NoPlan, plan  # noqa: E402
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
LINKS = {"cable": WIRED, "Wi-Fi": WIFI}


def cost_of(shape: Shape, mix: str) -> ModelCost:
    """A model of this shape with all its layers, as the planner sees it."""
    shape = replace(shape, n_layers=shape.real_layers)
    dense, routed, macs = ([0] * shape.n_layers for _ in range(3))
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
    kv = 2 * 2 * shape.n_kv_heads * shape.head_dim
    layers = tuple(
        LayerCost(dense[i], macs[i], kv, routed[i], share if routed[i] else 0.0, 2 * shape.n_heads * shape.head_dim)
        for i in range(shape.n_layers)
    )
    head = shape.vocab * shape.hidden
    return ModelCost(shape.arch, layers, ends["token_embd"], ends["output"], shape.hidden, head)


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
        first_s, n = result.prediction.first_token_s, len(result.stages)
    by_wifi = cells[1] if n > 1 else cells[0]
    return f"| {text} | {n} device{'s' * (n != 1)} | {cells[0]} | {by_wifi} | {time_text(first_s)} |"


def table(page: str) -> str:
    """The table of one page."""
    shape, mix, rows = TABLES[page]
    model = cost_of(SHAPES[shape], mix)
    kv = size_text(model.stage_kv_bytes(0, model.n_layers, CONTEXT))
    read = model.lm_head_bytes + sum(layer.read_bytes() for layer in model.layers)
    lines = [
        f"{mix}: {size_text(model.weight_bytes)} of weights, of which a token reads {size_text(read)}; {kv} for a "
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
    for page in TABLES:
        path = ROOT / "docs" / page
        if args.write:
            path.write_text(with_table(page, path.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            print(f"{page}\n{table(page)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
