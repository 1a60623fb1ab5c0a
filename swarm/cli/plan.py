"""`swarm plan`: who would hold what of a model, how fast that would be, and why."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from swarm import config
from swarm.cli import loading, local, options

HELP = "Explain where a model runs: who holds which layers, the speed to expect, what limits it, who is left out."
EXAMPLES = """\
  swarm plan                           the default model on the devices that are here
  swarm plan glm-4-9b --add pi5:8GiB   with a device that you think of buying
  swarm plan ./model.gguf --add pi5x3 --context 8192
"""
PATIENCE_S = 120.0  # a large model file is hashed once before it can be offered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    parser.add_argument(
        "--add",
        metavar="DEVICE",
        action="append",
        default=[],
        help="count with one more: pi4, pi5, n100, laptop or minipc, with its memory as in pi5:8GiB; may be repeated",
    )
    parser.add_argument("--context", metavar="N", type=options.whole(1), help="tokens that a conversation may hold")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    node = local.find(settings)
    if node is None:
        result = plan_alone(args, settings)
    else:
        model = local.name_of_model(node, args.model)
        wanted: dict[str, object] = {"model": model, "add": args.add, "context": args.context or 0}
        result = node.post("/swarm/plan", wanted, PATIENCE_S)
    print(json.dumps(result) if args.json else "\n".join(result["lines"]))
    return 0 if result["fits"] else 1


def plan_alone(args: argparse.Namespace, settings: config.Settings) -> Any:
    """Without a node: this device and what is added."""
    from swarm.node.local_plan import plan_here

    path = loading.find_model(args.model, settings)
    return asyncio.run(plan_here(path, settings, args.add, args.context or 0))
