"""`swarm invite`: a code that lets one more device in."""

from __future__ import annotations

import argparse
import json
import time

from swarm import config
from swarm.cli import local
from swarm.cli.terminal import BOLD, note, paint
from swarm.errors import SwarmNetworkError

HELP = "Show a code for ten minutes; the device where it is typed joins the swarm. Three wrong guesses end it."
EXAMPLES = """\
  swarm invite             then, on the new device: swarm join CODE
  swarm invite --key       show the swarm's key instead, for a device that cannot be reached by the code
"""
POLL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", action="store_true", help="show the swarm's key: whoever has it is in, for ever")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until somebody has joined")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and do not wait")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    if args.key:
        return show_key(settings)
    node = local.need(settings)
    began = time.time()
    invited = node.post("/swarm/invite", {}, timeout_s=15.0)
    if args.json:
        print(json.dumps(invited))
        return 0
    print(f"On the new device:  swarm join {paint(str(invited['code']), BOLD)}")
    if not args.no_wait:
        note("waiting for it, ten minutes; Ctrl-C stops waiting, the code stays good")
        wait_for_joiner(node, began, float(str(invited["seconds"])))
    return 0


def wait_for_joiner(node: local.LocalNode, began: float, seconds: float) -> None:
    """Return when somebody has joined; raise SwarmNetworkError when the invitation is over."""
    while time.time() - began < seconds:
        events = node.get("/swarm/status")["events"]
        for event in events if isinstance(events, list) else []:
            if event["at"] > began and event["event"] == "let_in":
                print(f"{event['name']} is in")
                return
            if event["at"] > began and event["event"] == "invitation_ended":
                raise SwarmNetworkError(f"the invitation is over: {event['why']}; run `swarm invite` again")
        time.sleep(POLL_S)
    raise SwarmNetworkError("nobody came within ten minutes; run `swarm invite` again")


def show_key(settings: config.Settings) -> int:
    """Print the key as a person may copy it."""
    from swarm.errors import SwarmKeyError
    from swarm.net.keys import written
    from swarm.node.home import Home

    key = Home(settings.home_path).keys.swarm_key()
    if key is None:
        raise SwarmKeyError("this device is in no swarm yet; run `swarm join`")
    note("whoever has this key is in the swarm; on the new device: swarm join --key -")
    print(written(key))
    return 0
