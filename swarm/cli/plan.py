"""`swarm plan`: who would hold what of a model, how fast that would be, and why."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from typing import Any

from swarm import config
from swarm.cli import loading, local, options
from swarm.errors import ModelNotFound
from swarm.store.naming import remote_of

HELP = "Explain where a model runs: who holds which layers, the speed to expect, what limits it, who is left out."
EXAMPLES = """\
  swarm plan                           the default model on the devices that are here
  swarm plan glm-4-9b --add pi5:8GiB   with a device that you think of buying; the model need not be here
  swarm plan hf.co/unsloth/GLM-4.5-Air-GGUF:Q4_K_M --add pi5:8GiBx8
  swarm plan ./model.gguf --add pi5x3 --context 8192
  swarm plan glm-4-9b --chats 8        what is best for eight at once
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
    parser.add_argument(
        "--chats",
        metavar="N",
        type=options.whole(1),
        default=1,
        help="so many conversations at once: what is fastest for all of them together",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    node = local.find(settings)
    result = plan_alone(args, settings) if node is None else plan_there(node, args, settings)
    print(json.dumps(result) if args.json else "\n".join(result["lines"]))
    return 0 if result["fits"] else 1


def plan_there(node: local.LocalNode, args: argparse.Namespace, settings: config.Settings) -> Any:
    """By the node: on the devices of its swarm. A model that none of them has is told by its header."""
    wanted: dict[str, object] = {"add": args.add, "context": args.context or 0, "chats": args.chats}
    try:
        return node.post("/swarm/plan", {"model": local.name_of_model(node, args.model), **wanted}, PATIENCE_S)
    except ModelNotFound:
        if not args.model or remote_of(args.model) is None:
            raise
    from swarm.models.registry import spec_from_gguf
    from swarm.node.model_cost import model_cost

    with loading.see_model(args.model, settings) as seen:
        spec = spec_from_gguf(seen.header.metadata, seen.header.tensors)
        cost = model_cost(seen.name, spec, seen.header.tensors)
        result = node.post("/swarm/plan", {"cost": asdict(cost), **wanted}, PATIENCE_S)
        return with_fetching(result, seen)


def with_fetching(result: Any, seen: loading.SeenModel) -> Any:
    """The plan of a model that lies elsewhere, and what bringing it takes."""
    if seen.found is not None:
        result["lines"] = [*result["lines"], f"to fetch: {seen.fetching}"]
        result["fetch"] = {"from": seen.found.place, "bytes": seen.header.size_bytes}
    return result


def plan_alone(args: argparse.Namespace, settings: config.Settings) -> Any:
    """Without a node: this device and what is added."""
    from swarm.node.local_plan import plan_here

    with loading.see_model(args.model, settings) as seen:
        ranks, context = loading.learnt_here(seen), args.context or 0
        is_here = seen.found is None
        planning = plan_here(seen.header, settings, args.add, context, chats=args.chats, is_here=is_here, ranks=ranks)
        result = asyncio.run(planning)
        return with_fetching(result, seen)
