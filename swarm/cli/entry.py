"""How a device comes into a swarm: back into its own, by a code, by a key, or by beginning one."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from swarm.cli.terminal import note
from swarm.errors import ConfigError

if TYPE_CHECKING:
    from swarm.net.keys import SwarmKey
    from swarm.node.home import Home


def get_key(home: Home, name: str, args: argparse.Namespace) -> list[str]:
    """See that there is a swarm key: kept, given, or got by a code; else a swarm begins. Return whom to call.

    A swarm of one that nobody ever joined is left for the one that the code or key is of.
    """
    from swarm.net import keys as keys_of

    code = args.code or args.invite
    if code and args.key:
        raise ConfigError("give a code or a key, not both")
    keys = home.keys
    current = keys.swarm_key()
    given = keys_of.from_written(sys.stdin.readline() if args.key == "-" else args.key) if args.key else None
    if current is not None and not (home.is_alone and (code or given)):
        if given not in (None, current):
            raise ConfigError("this device is in another swarm; `swarm forget` first, to join the one of this key")
        if code:
            note(
                "swarm: this device is in a swarm already and comes back to it; the code is not needed, and still good"
            )
            note("swarm: (to join another swarm: `swarm forget`, then `swarm join` with its code)")
        return []
    if code:
        return [accept(home, name, code, args.peer)]
    if given is not None:
        keep(home, given)
        return []
    keys.keep_swarm_key(keys_of.new_swarm_key())
    home.say_alone()
    note("swarm: this device begins a new swarm; `swarm invite` here lets others in")
    return []


def accept(home: Home, name: str, code: str, peers: list[str]) -> str:
    """Use an invitation; return where the device is that gave the key."""
    from swarm.net import joining
    from swarm.net.pairing import Party, parse_code
    from swarm.net.transport import resolve
    from swarm.wire.proof import Credentials

    parsed = parse_code(code)
    me = Party(Credentials(b"", home.keys.device_secret()).peer, name)
    by_hand = [address for peer in peers for address in resolve(with_port(peer, joining.INVITATION_PORT))]
    key, inviter, address = asyncio.run(joining.join(parsed, me, by_hand))
    keep(home, key)
    note(f"swarm: let in by {inviter.name}")
    return str(address)


def keep(home: Home, key: SwarmKey) -> None:
    """Keep the key of a swarm that others began."""
    home.keys.keep_swarm_key(key)
    home.say_not_alone()


def with_port(peer: str, port: int) -> str:
    """HOST:PORT, where only a host (or a bare IPv6 address) was given."""
    host, separator, tail = peer.rpartition(":")
    if separator and tail.isdecimal() and (":" not in host or host.endswith("]")):
        return peer
    return f"[{peer}]:{port}" if ":" in peer and not peer.startswith("[") else f"{peer}:{port}"
