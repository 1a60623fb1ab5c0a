"""`swarm forget`: drop the keys; the device is in no swarm then."""

from __future__ import annotations

import argparse

from swarm import config
from swarm.cli import local
from swarm.cli.leave import end
from swarm.cli.terminal import note

HELP = (
    "Drop this device's keys: it is in no swarm then, and gets a new id. Chunks of models stay; what it kept of "
    "conversations is deleted."
)
EXAMPLES = """\
  swarm forget             then `swarm join CODE` joins another swarm
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    from swarm.node.home import Home

    settings = config.load({"home": args.home})
    node = local.find(settings)
    if node is not None:
        end(settings, node)
    home = Home(settings.home_path)
    gone = home.keys.forget()
    home.peers_file.unlink(missing_ok=True)
    home.say_not_alone()
    home.forget_conversations()
    note("swarm: the keys are gone; this device is in no swarm" if gone else "swarm: this device was in no swarm")
    return 0
