"""The new device's side of an invitation: find who invites, and use the code."""

from __future__ import annotations

import asyncio

from swarm.errors import SwarmNetworkError
from swarm.net import discovery
from swarm.net.discovery import Discovery, Seen
from swarm.net.invite import accept_invitation
from swarm.net.keys import KeyStore, SwarmKey
from swarm.net.pairing import Code, Party, parse_code
from swarm.net.transport import DEFAULT_PORT, resolve
from swarm.wire.proof import Credentials
from swarm.wire.records import Address

LOOK_S = 10.0  # for the device that invites
INVITATION_PORT = DEFAULT_PORT + 2  # where a node listens for the code, if that is free


async def use_code(keys: KeyStore, name: str, text: str, peers: list[str]) -> tuple[SwarmKey, str, Address]:
    """Return the swarm's key, the name of the device that gave it, and where its node is."""
    code = parse_code(text)
    me = Party(Credentials(b"", keys.device_secret()).peer, name)
    if peers:
        addresses = [address for peer in peers for address in resolve(_with_port(peer))]
    else:
        addresses = await look_for(code)
    key, inviter, address = await accept_invitation(code, me, addresses)
    return key, inviter.name, address


async def look_for(code: Code) -> list[Address]:
    """Where an invitation with this code's place is announced."""
    found: asyncio.Queue[tuple[Address, ...]] = asyncio.Queue()

    def on_seen(seen: Seen) -> None:
        if seen.instance.partition("-")[0] == str(code.place) and seen.addresses:
            found.put_nowait(seen.addresses)

    search = Discovery(discovery.INVITATION_SERVICE, on_seen)
    await search.start()
    try:
        return list(await asyncio.wait_for(found.get(), LOOK_S))
    except TimeoutError:
        hint = f" ({search.problem})" if search.problem else ""
        raise SwarmNetworkError(
            f"no device here shows an invitation that begins with {code.place}{hint}; run `swarm invite` on a device "
            "of the swarm, or name it with --peer HOST"
        ) from None
    finally:
        await search.stop()


def _with_port(peer: str) -> str:
    """The invitation's port, where only a host is given."""
    host, separator, port = peer.rpartition(":")
    if separator and port.isdecimal() and (":" not in host or host.endswith("]")):
        return peer
    return f"[{peer}]:{INVITATION_PORT}" if ":" in peer else f"{peer}:{INVITATION_PORT}"
