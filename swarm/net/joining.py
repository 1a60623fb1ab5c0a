"""An invitation that can be found, and finding it: pairing, its listener and its announcement put together."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable

from swarm.errors import SwarmKeyError, SwarmNetworkError
from swarm.net.discovery import INVITATION_SERVICE, Announcement, Discovery, Seen
from swarm.net.invite import InvitationServer, accept_invitation
from swarm.net.keys import SwarmKey
from swarm.net.pairing import Code, Guesses, Invitation, Party, Secret, new_code
from swarm.net.transport import DEFAULT_PORT
from swarm.wire.messages import PROTOCOL
from swarm.wire.records import Address

INVITATION_PORT = DEFAULT_PORT + 2  # so that --peer HOST is enough where multicast is blocked
SEARCH_S = 10.0  # an announcement is heard within two seconds, or after the next query


class OpenInvitation:
    """An invitation that other devices can find until it ends."""

    def __init__(self, server: InvitationServer, search: Discovery) -> None:
        self._server = server
        self._search = search

    @property
    def invitation(self) -> Invitation:
        """The code, and who joined."""
        return self._server.invitation

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    async def close(self) -> None:
        """Withdraw it; also after it has ended by itself."""
        await self._server.stop()
        await self._search.stop()


async def invite(
    me: Party, key: SwarmKey, node_port: int, on_end: Callable[[Invitation], None], host: str | None = None
) -> OpenInvitation:
    """Open an invitation and announce it; `on_end` is called once, when it was used, guessed at or grew old.

    Raise SwarmNetworkError when this device cannot listen.
    """
    secret = Secret(key.secret, key.generation, node_port)
    server = InvitationServer(Invitation(new_code(), me, secret, time.monotonic()), on_end)
    try:
        await server.start(host, INVITATION_PORT)
    except SwarmNetworkError:
        await server.start(host, 0)
    instance = f"{server.invitation.code.place}-{os.urandom(4).hex()}"
    announcement = Announcement(INVITATION_SERVICE, instance, me.peer, PROTOCOL, server.port)
    search = Discovery(INVITATION_SERVICE, lambda _: None, announcement)
    await search.start()
    return OpenInvitation(server, search)


async def join(code: Code, me: Party, by_hand: Iterable[Address] = ()) -> tuple[SwarmKey, Party, Address]:
    """Use a code at the addresses given by hand, or at whatever announces an invitation with its first digit.

    Return the key, who invited, and where its node is. Raise SwarmKeyError when the code is wrong, SwarmNetworkError
    when no such invitation is found.
    """
    addresses = tuple(by_hand)
    if addresses:
        return await accept_invitation(code, me, addresses)
    found: asyncio.Queue[Seen] = asyncio.Queue()
    search = Discovery(INVITATION_SERVICE, found.put_nowait)
    await search.start()
    try:
        return await _join_first(code, me, found, search)
    finally:
        await search.stop()


async def _join_first(
    code: Code, me: Party, found: asyncio.Queue[Seen], search: Discovery
) -> tuple[SwarmKey, Party, Address]:
    tried: set[str] = set()
    guesses = Guesses()  # in all: an announcement costs nothing
    trouble = f"no invitation with a code that begins with {code.place} was found on this network"
    try:
        async with asyncio.timeout(SEARCH_S):
            while True:
                seen = await found.get()
                if seen.instance in tried or not seen.instance.startswith(f"{code.place}-"):
                    continue
                tried.add(seen.instance)
                try:
                    return await accept_invitation(code, me, seen.addresses, guesses)
                except SwarmKeyError:
                    raise
                except SwarmNetworkError as error:  # one that has just ended: there may be another
                    trouble = str(error)
    except TimeoutError:
        reason = f" ({search.problem})" if search.problem else ""
        raise SwarmNetworkError(
            f"{trouble}{reason}; run `swarm invite` on a device of the swarm, or add --peer with its address"
        ) from None
