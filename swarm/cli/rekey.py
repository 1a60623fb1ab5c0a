"""`swarm rekey`: a new key for every device that is here; one that was lost or stolen stays outside."""

from __future__ import annotations

import argparse
import json

from swarm import config
from swarm.cli import local
from swarm.cli.terminal import harmless

HELP = "Give all devices that are here a new swarm key. Devices that are off, or named with --without, are shut out."
EXAMPLES = """\
  swarm rekey --without pi-attic      pi-attic was stolen
"""
PATIENCE_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without", metavar="NAME", action="append", default=[], help="a device to shut out; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    node = local.need(config.load({"home": args.home}))
    result = node.post("/swarm/rekey", {"without": args.without}, timeout_s=PATIENCE_S)
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"the new key is on {_names(result['done']) or 'this device only'}")
    if result["missed"]:
        print(f"did not take it, invite again: {_names(result['missed'])}")
    if result["shut_out"]:
        print(f"shut out: {_names(result['shut_out'])}")
    return 0


def _names(value: object) -> str:
    return ", ".join(harmless(str(name)) for name in value) if isinstance(value, list) else ""
