"""Finding devices, remembering them, letting new ones in, and shutting lost ones out."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import swarm
from swarm import limits
from swarm.errors import SwarmError, SwarmNetworkError
from swarm.net import discovery
from swarm.net.discovery import Announcement, Discovery, Seen
from swarm.net.invite import InvitationServer
from swarm.net.keys import SwarmKey, new_swarm_key
from swarm.net.pairing import Invitation, Party, Secret, new_code
from swarm.wire.ids import PeerId
from swarm.wire.messages import PROTOCOL, LinkProbe, LinkProbed, Rekey, RekeyDone
from swarm.wire.records import Address

if TYPE_CHECKING:
    from swarm.node.node import Node

PROBE_BYTES = 1024 * 1024
PROBES = 2  # the first one also opens TCP's window
PROBE_DELAY_S = 1.0  # after a device came: its bulk link is up by then, and first words go before
PROBE_TIMEOUT_S = 10.0
REKEY_GRACE_S = 0.5  # between telling that the new key is kept and using it


@dataclass(frozen=True)
class Invited:
    """An open invitation: the code to type on the new device."""

    code: str
    port: int
    seconds: float


@dataclass(frozen=True)
class Rekeyed:
    """What came of a new key: names of devices that have it, and of those that must be invited again."""

    done: tuple[str, ...]
    missed: tuple[str, ...]
    shut_out: tuple[str, ...]


class Neighbours:
    """Owned by the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._discovery: Discovery | None = None
        self._server: InvitationServer | None = None
        self._inviting: Discovery | None = None
        self._met: dict[str, str] = {}  # peer -> HOST:PORT
        self._probes: dict[tuple[PeerId, int], asyncio.Future[int]] = {}
        self._next_probe = 1
        self._rekeyed: dict[PeerId, int] = {}  # generation that a peer says it keeps
        self._rekey_news = asyncio.Event()
        self._keeping = asyncio.Lock()

    @property
    def problem(self) -> str:
        """Why there is no discovery just now; empty when there is."""
        if self._discovery is None:
            return "switched off"
        return self._discovery.problem

    async def start(self) -> None:
        """Call those who were met before or are named, and look around."""
        node, me = self._node, self._node.transport.me
        for peer, text in node.home.addresses().items():
            host, _, port = text.rpartition(":")
            if host and port.isdecimal() and 0 < int(port) < 65536:
                node.transport.learn(PeerId(peer), [Address(host.strip("[]"), int(port))])
        for text in node.options.calls:
            await node.run_io(node.transport.call, text)
        if node.options.discover:
            credentials = me.credentials
            instance = f"{me.peer[:8]}-{me.boot[:8]}"
            announcement = Announcement(
                discovery.NODE_SERVICE, instance, me.peer, PROTOCOL, me.port, credentials.fingerprint
            )
            self._discovery = Discovery(discovery.NODE_SERVICE, self._on_seen, announcement)
            await self._discovery.start()

    async def stop(self) -> None:
        """Take all announcements back."""
        await self._end_invitation()
        if self._discovery is not None:
            await self._discovery.stop()

    def peer_up(self, peer: PeerId, address: Address) -> None:
        """A device is connected: remember where, and measure the link when there is time."""
        if self._met.get(peer) != str(address):
            self._met[peer] = str(address)
            known = dict(list({**self._node.home.addresses(), **self._met}.items())[-limits.MAX_REMEMBERED_PEERS :])
            self._node.spawn(self._keep(known))
        self._node.spawn(self._measure_link(peer))

    def link_probed(self, peer: PeerId, message: LinkProbed) -> None:
        """The bytes of a probe have arrived."""
        future = self._probes.get((peer, message.sequence))
        if future is not None and not future.done():
            future.set_result(message.n_bytes)

    # --- letting in

    async def invite(self) -> Invited:
        """Open an invitation in place of an older one; raise SwarmNetworkError when nobody could answer it."""
        await self._end_invitation()
        node, me = self._node, self._node.transport.me
        key = node.home.keys.swarm_key()
        if key is None:
            raise SwarmNetworkError("this device's swarm key is gone; run `swarm leave`, then `swarm join`")
        code = new_code()
        secret = Secret(key.secret, key.generation, me.port, swarm.__version__)
        invitation = Invitation(code, Party(me.peer, me.name), secret, time.monotonic())
        server = InvitationServer(invitation, self._on_invitation_end)
        try:
            await server.start(port=me.bulk_port + 1 if me.bulk_port < 65535 else 0)
        except SwarmNetworkError:
            await server.start()
        self._server = server
        if node.options.discover:
            instance = f"{code.place}-{secrets.token_hex(6)}"
            announcement = Announcement(discovery.INVITATION_SERVICE, instance, me.peer, PROTOCOL, server.port)
            self._inviting = Discovery(discovery.INVITATION_SERVICE, lambda seen: None, announcement)
            await self._inviting.start()
        node.note("invitation_open", port=server.port)
        return Invited(str(code), server.port, limits.INVITATION_S)

    def _on_invitation_end(self, invitation: Invitation) -> None:
        joined = invitation.joined
        if joined is not None:
            self._node.note("let_in", name=joined.name)
        elif invitation.wrong >= limits.MAX_WRONG_GUESSES:
            self._node.note("invitation_ended", why="the code was guessed wrong three times")
        inviting, self._inviting = self._inviting, None
        if inviting is not None:
            self._node.spawn(inviting.stop())

    async def _end_invitation(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        inviting, self._inviting = self._inviting, None
        if inviting is not None:
            await inviting.stop()

    # --- shutting out

    async def new_key(self, without: list[str], patience_s: float = limits.REKEY_TIMEOUT_S) -> Rekeyed:
        """Give every device that is here a new swarm key, but for those named; then this node starts anew with it."""
        node = self._node
        old = node.home.keys.swarm_key()
        key = new_swarm_key(old.generation + 1 if old is not None else 0)
        names = {peer: node.core.members.name_of(peer) for peer in node.core.others()}
        lost = [peer for peer, name in names.items() if name in without or any(peer.startswith(w) for w in without)]
        for peer in lost:
            node.transport.shut_out(peer)
        peers = [peer for peer in names if peer not in lost]
        self._rekeyed = {}
        told = [peer for peer in peers if node.send(peer, Rekey(key.generation, key.secret))]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while any(self._rekeyed.get(peer, -1) < key.generation for peer in told):
                    self._rekey_news.clear()
                    await self._rekey_news.wait()
        done = [peer for peer in peers if self._rekeyed.get(peer, -1) >= key.generation]
        await node.run_io(node.home.keys.keep_swarm_key, key)
        node.note("rekeyed", generation=key.generation)
        node.start_anew(REKEY_GRACE_S)
        missed = [names[peer] for peer in peers if peer not in done]
        return Rekeyed(tuple(names[peer] for peer in done), tuple(missed), tuple(names[peer] for peer in lost))

    def rekey(self, peer: PeerId, message: Rekey) -> None:
        """A member has made a new key."""
        self._node.spawn(self._take_key(peer, SwarmKey(message.swarm_key, message.generation)))

    def rekey_done(self, peer: PeerId, message: RekeyDone) -> None:
        """A member keeps the new key."""
        self._rekeyed[peer] = message.generation
        self._rekey_news.set()

    async def _take_key(self, peer: PeerId, key: SwarmKey) -> None:
        node = self._node
        old = node.home.keys.swarm_key()
        if old is not None and key.generation <= old.generation:
            return
        await node.run_io(node.home.keys.keep_swarm_key, key)
        node.send(peer, RekeyDone(key.generation))
        node.note("rekeyed", generation=key.generation, by=node.core.members.name_of(peer))
        node.start_anew(REKEY_GRACE_S)

    # --- within

    def _on_seen(self, seen: Seen) -> None:
        if seen.fingerprint == self._node.transport.me.credentials.fingerprint:
            self._node.transport.learn(seen.peer, seen.addresses)

    async def _keep(self, known: dict[str, str]) -> None:
        async with self._keeping:  # one after the other: they write the same file
            await self._node.run_io(self._node.home.keep_addresses, known)

    async def _measure_link(self, peer: PeerId) -> None:
        """Send a megabyte twice when nothing else is going on; the better one counts."""
        await asyncio.sleep(PROBE_DELAY_S)
        best = 0.0
        for _ in range(PROBES):
            while self._node.is_serving and peer in self._node.core.others():
                await asyncio.sleep(PROBE_DELAY_S)
            best = max(best, await self._probe(peer))
        if best:
            self._node.core.link_measured(peer, best)

    async def _probe(self, peer: PeerId) -> float:
        number, self._next_probe = self._next_probe, self._next_probe % (2**31 - 1) + 1
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._probes[peer, number] = future
        started = time.perf_counter()
        try:
            self._node.transport.send(peer, LinkProbe(number), bytes(PROBE_BYTES))
            n_bytes = await asyncio.wait_for(future, PROBE_TIMEOUT_S)
        except (SwarmError, TimeoutError):
            return 0.0
        finally:
            del self._probes[peer, number]
        took_s = time.perf_counter() - started
        info = next((info for info in self._node.transport.peers() if info.peer == peer), None)
        rtt_s: float = info.rtt_s if info is not None and info.rtt_s is not None else 0.0
        return n_bytes / max(took_s - rtt_s, 1e-4)
