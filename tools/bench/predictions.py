#!/usr/bin/env python3
"""What the planner says of a swarm, beside what it does: nodes in a LAN in a box, as a pipeline and sharing layers.

    tools/bench/predictions.py [--networks 1gbit,0.15 100mbit,0.15 100mbit,1.5] [--devices 2 3] [--tokens 96]   (root)

Nodes rehearse their links, are asked for a plan, and then for answers; the figure that counts is the ratio of predicted
to measured milliseconds a token. All share this machine's cores, so devices that compute at the same time are declared
as fast as so many processes are beside each other, and those that take turns as fast as one alone. A network is a rate
and a delay each way in ms; the third is good Wi-Fi. Each device has just the memory for its part: all are needed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swarm import kernels
from swarm.node.home import Home
from swarm.node.measure import Speeds, measure
from swarm.store.naming import resolve
from tests.helpers import nodes
from tests.helpers.lan import Lan
from tests.helpers.nodes import THREADS, NodeProcess, Swarm, cost_of, memories_for, wait_for

os.environ.setdefault("SWARM_GUESS", "never")  # what steps cost is measured, not what the text repeats

NETWORKS = ("1gbit,0.15", "100mbit,0.15", "100mbit,1.5")
LAYOUTS = ("slices", "pipeline")
CONTEXT = 512
PROMPT = "The sea is blue, the ships are old, and the people who sail them tell long stories about"
N_PROMPT = 19
SPARE_BYTES = 6_000_000
N_MEASURED = 3


@dataclass(frozen=True)
class Case:
    """One swarm."""

    network: str
    devices: int
    layout: str

    def lan(self) -> Lan:
        rate, _, delay = self.network.partition(",")
        return Lan(self.devices, rate=rate, delay_ms=float(delay))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="RATE,MS")
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS, choices=LAYOUTS)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--answers", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = args.model or resolve(None)
    rows = []
    for devices in args.devices:
        speeds = {layout: speeds_of(devices if layout == "slices" else 1) for layout in args.layouts}
        for network in args.networks:
            for layout in args.layouts:
                row = play(Case(network, devices, layout), path, speeds[layout], args.tokens, args.answers)
                rows.append(row)
                if not args.json:
                    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if args.json:
        print(json.dumps(rows, indent=1))


def speeds_of(n_processes: int) -> Speeds:
    """What a process measures of itself while so many do: the one in the middle by its speed of reading."""
    with multiprocessing.get_context("spawn").Pool(n_processes) as pool:
        found = pool.map(_measured, range(n_processes), chunksize=1)
    return sorted(found, key=lambda speeds: speeds.read_bytes_per_s)[n_processes // 2]


def _measured(_: int) -> Speeds:
    """The best of a few: whatever disturbs one makes it worse."""
    with tempfile.TemporaryDirectory() as folder:
        best: Speeds | None = None
        for _ in range(N_MEASURED):
            best = measure(Home(Path(folder)), kernels.isa(), THREADS, best)
    assert best is not None
    return best


def play(case: Case, path: Path, speed: Speeds, tokens: int, answers: int) -> dict[str, object]:
    """Plan, measure, and say both."""
    nodes.SPEED = speed
    with (
        tempfile.TemporaryDirectory() as folder,
        case.lan() as lan,
        Swarm(
            Path(folder),
            memories(case, path),
            model=path,
            context=CONTEXT,
            layout=case.layout,
            lan=lan,
        ) as swarm,
    ):
        entry = swarm.nodes[0]
        wait_for(lambda: all(map(knows_its_links, swarm.nodes)), "links to be measured")
        time.sleep(1.0)  # others hear of it
        ask(entry, swarm.model, 8)
        plan = entry.post("/swarm/plan", {"model": swarm.model, "context": N_PROMPT + tokens // 2})
        measured = statistics.median(ask(entry, swarm.model, tokens) for _ in range(answers))
        exchanges = [float(d["exchange_s"]) for d in others(entry) if d["exchange_s"]]  # type: ignore[arg-type]
        members = sum(bool(device["shards"]) for device in entry.status()["devices"])  # type: ignore[attr-defined]
    predicted = 1e3 / float(plan["tokens_per_s"])  # type: ignore[arg-type]
    return {
        "network": case.network,
        "devices": members,
        "layout": case.layout,
        "predicted_ms": round(predicted, 1),
        "measured_ms": round(measured, 1),
        "ratio": round(predicted / measured, 2),
        "computing_ms": round(1e3 * float(plan["computing_s"]), 1),  # type: ignore[arg-type]  # of what was predicted
        "exchanges_ms": round(1e3 * float(plan["exchange_s"]), 1),  # type: ignore[arg-type]
        "hops_ms": round(1e3 * float(plan["hops_s"]), 1),  # type: ignore[arg-type]
        "read_gb_per_s": round(speed.read_bytes_per_s / 1e9, 1),
        "others": round(speed.others, 2),
        "exchange_us": round(1e6 * max(exchanges, default=0.0)),
    }


def memories(case: Case, path: Path) -> list[int]:
    """What each device needs for its part, and little more."""
    cost = cost_of(path)
    if case.layout == "pipeline":
        layers = [cost.n_layers // case.devices] * case.devices
        layers[-1] += cost.n_layers - sum(layers)
        return [memory + SPARE_BYTES // 2 for memory in memories_for(cost, layers, CONTEXT)]
    assert cost.cuts is not None, "a model that cannot be cut"
    rest = cost.weight_bytes - cost.embed_bytes + cost.stage_kv_bytes(0, cost.n_layers, CONTEXT)
    heads = cost.cuts.sizes[0]
    most = -(-heads // case.devices) / heads
    return [cost.embed_bytes + int(rest * most) + SPARE_BYTES] * case.devices


def others(node: NodeProcess) -> list[dict[str, object]]:
    devices = node.status()["devices"]
    assert isinstance(devices, list)
    return [device for device in devices if device["health"] != "here"]


def knows_its_links(node: NodeProcess) -> bool:
    """Its links were measured, and exchanges over them rehearsed."""
    return all(device["link_bytes_per_s"] and device["exchange_s"] for device in others(node))


def ask(entry: NodeProcess, model: str, tokens: int) -> float:
    """Milliseconds from token to token."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 1.0, "seed": 1}
    heard = entry.ask({**body, "logit_bias": {"0": -100.0, "2": -100.0}})
    assert not heard.error, heard.error
    return 1e3 * statistics.median(b - a for a, b in pairwise(heard.at))


if __name__ == "__main__":
    main()
