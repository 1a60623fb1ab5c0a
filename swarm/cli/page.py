"""`swarm page`: the node's page in a browser, with the right to change things."""

from __future__ import annotations

import argparse

from swarm import config
from swarm.cli import local
from swarm.cli.terminal import note

HELP = """\
Open the page of the node on this device: chat, devices, plans, models, invitations. The address that is shown lets one
browser change things too, once and for a minute; to chat and to look, the address without its end is enough."""
EXAMPLES = """\
  swarm page
  swarm page --no-open      only show the address, for a browser at the other end of `ssh -L 8642:127.0.0.1:8642`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    node = local.need(config.load({"home": args.home}))
    code = node.post("/swarm/page", {})["code"]
    address = f"http://{local.HOST}:{node.api_port}/#enter={code}"
    print(address, flush=True)
    if not args.no_open and config.has_screen() and not opened(address):
        note("swarm: no browser could be opened; open the address in one")
    return 0


def opened(address: str) -> bool:
    """Whether a browser took the address."""
    import webbrowser

    return webbrowser.open(address)
