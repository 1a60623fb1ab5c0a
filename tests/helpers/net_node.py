"""A node that only connects: discovery and transport, events as JSON lines. Run by tests of the network.

    net_node.py < setup        setup is one JSON line: {"key": hex, "device": hex, "name": ..., "calls": [...]}

Ends when its input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from swarm.net import discovery
from swarm.net.discovery import Announcement, Discovery, Seen
from swarm.net.events import Event, Received
from swarm.net.inbox import LoopInbox
from swarm.net.transport import Transport
from swarm.wire.messages import PROTOCOL
from swarm.wire.proof import Credentials


def say(kind: str, **fields: object) -> None:
    """Print one event with the machine's clock, which all hosts of a LAN in a box share."""
    print(json.dumps({"event": kind, "at": time.monotonic(), **fields}), flush=True)


def on_event(event: Event) -> None:
    """Print what the tests look at."""
    if not isinstance(event, Received):
        fields = {name: str(getattr(event, name)) for name in event.__slots__}
        say(type(event).__name__, **fields)


async def main() -> None:
    """Run until the input closes."""
    setup = json.loads(sys.stdin.readline())
    loop = asyncio.get_running_loop()
    credentials = Credentials(bytes.fromhex(setup["key"]), bytes.fromhex(setup["device"]))
    inbox = LoopInbox(loop, on_event).inbox()
    transport = Transport.start(credentials, name=setup["name"], inbox=inbox)
    me = transport.me
    say("Started", peer=me.peer, port=str(me.port))
    for call in setup.get("calls", []):
        transport.call(call)

    def on_seen(seen: Seen) -> None:
        if seen.fingerprint == credentials.fingerprint:
            transport.learn(seen.peer, seen.addresses)

    instance = f"{me.peer[:8]}-{me.boot[:8]}"
    announcement = Announcement(discovery.NODE_SERVICE, instance, me.peer, PROTOCOL, me.port, credentials.fingerprint)
    search = Discovery(discovery.NODE_SERVICE, on_seen, announcement)
    if setup.get("discovery", True):
        await search.start()
    await loop.run_in_executor(None, sys.stdin.read)
    await search.stop()
    transport.stop()


if __name__ == "__main__":
    asyncio.run(main())
