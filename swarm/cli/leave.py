"""`swarm leave`: say goodbye and end the node; the device remembers its swarm."""

from __future__ import annotations

import argparse
import time

from swarm import config
from swarm.cli import local
from swarm.cli.terminal import note
from swarm.errors import SwarmNetworkError

HELP = "End this device's part in the swarm for now: the others take over at once. `swarm join` comes back."
EXAMPLES = """\
  swarm leave
"""
END_S = 15.0  # to finish a step and close its files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    end(settings, local.need(settings))
    note("swarm: this device has left; `swarm join` comes back")
    return 0


def end(settings: config.Settings, node: local.LocalNode) -> None:
    """Tell a node to leave, and wait until it has."""
    from swarm.node.home import Home

    home = Home(settings.home_path)
    node.post("/swarm/leave", {})
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        running = home.running()
        if running is None or running.pid != node.pid:
            return
        time.sleep(0.05)
    raise SwarmNetworkError(f"the node does not end; stop process {node.pid}")
