"""Finding devices, remembering them, letting new ones in, and shutting lost ones out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarm import limits
from swarm.errors import SwarmError, SwarmKeyError
from swarm.net import discovery, joining
from swarm.net.discovery import Announcement, Discovery, Seen
from swarm.net.joining import OpenInvitation
from swarm.net.keys import SwarmKey, new_swarm_key
from swarm.net.pairing import Invitation, Party
from swarm.net.rekey import RESTART_AFTER_S, Rekeying, accept
from swarm.wire.ids import PeerId
from swarm.wire.messages import PROTOCOL, LinkProbe, LinkProbed, Rekey, RekeyDone
from swarm.wire.records import Address

if TYPE_CHECKING:
    from swarm.node.node import Node

PROBE_BYTES = 1024 * 1024
PROBES = 2  # the first one also opens TCP's window
PROBE_DELAY_S = 1.0  # after a device came: its bulk link is up by then, and first words go before
PROBE_TIMEOUT_S = 10.0
REKEY_POLL_S = 0.05
MIN_ID_DIGITS = 6  # of a device's id that a person may type instead of its name


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


class Peers:
    """Owned by the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._discovery: Discovery | None = None
        self._invitation: OpenInvitation | None = None
        self._rekeying: Rekeying | None = None
        self.seen: dict[str, Seen] = {}  # what announced itself lately
        self._met: dict[str, str] = {}  # peer -> HOST:PORT
        self._probes: dict[tuple[PeerId, int], asyncio.Future[int]] = {}
        self._next_probe = 1
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

    def peer_down(self, peer: PeerId) -> None:
        """A device is not connected any more."""
        if self._rekeying is not None:
            self._rekeying.lost(peer)

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
        me = self._node.transport.me
        opened = await joining.invite(Party(me.peer, me.name), self._key(), me.port, self._on_invitation_end)
        self._invitation = opened
        self._node.note("invitation_open", port=opened.port)
        return Invited(str(opened.invitation.code), opened.port, limits.INVITATION_S)

    def _on_invitation_end(self, invitation: Invitation) -> None:
        joined = invitation.joined
        if joined is not None:
            self._node.note("let_in", name=joined.name)
        elif invitation.wrong >= limits.MAX_WRONG_GUESSES:
            self._node.note("invitation_ended", why="the code was guessed wrong three times")
        opened = self._invitation
        if opened is not None and opened.invitation is invitation and not self._node.stopping.is_set():
            self._node.spawn(opened.close())

    async def _end_invitation(self) -> None:
        opened, self._invitation = self._invitation, None
        if opened is not None:
            await opened.close()

    # --- shutting out

    async def new_key(self, without: list[str]) -> Rekeyed:
        """Give every device that is here a new swarm key, but for those named; then this node starts anew with it."""
        node = self._node
        key = new_swarm_key(self._key().generation + 1)
        names = {peer: node.core.members.name_of(peer) for peer in node.core.others()}
        unknown = [name for name in without if not any(_means(name, peer, names[peer]) for peer in names)]
        lost = [peer for peer in names if any(_means(name, peer, names[peer]) for name in without)]
        for peer in lost:
            node.transport.shut_out(peer)
        rekeying = Rekeying(key, [peer for peer in names if peer not in lost], node.now)
        self._rekeying = rekeying
        for peer in list(rekeying.waiting):
            node.send(peer, rekeying.message())
        while not rekeying.is_over(node.now):
            await asyncio.sleep(REKEY_POLL_S)
        await node.run_io(node.home.keys.keep_swarm_key, key)
        node.note("rekeyed", generation=key.generation)
        node.start_anew(RESTART_AFTER_S, "it has a new key")
        return Rekeyed(
            done=tuple(names[peer] for peer in names if peer in rekeying.done),
            missed=tuple(names[peer] for peer in names if peer not in rekeying.done and peer not in lost),
            shut_out=(*(names[peer] for peer in lost), *unknown),
        )

    def rekey(self, peer: PeerId, message: Rekey) -> None:
        """A member has made a new key."""
        self._node.spawn(self._take_key(peer, message))

    def rekey_done(self, peer: PeerId, message: RekeyDone) -> None:
        """A member keeps the new key."""
        if self._rekeying is not None:
            self._rekeying.take(peer, message)

    async def _take_key(self, peer: PeerId, message: Rekey) -> None:
        node = self._node
        try:
            key = accept(self._key(), message)
        except SwarmKeyError as error:
            node.note("key_refused", name=node.core.members.name_of(peer), why=str(error))
            return
        if key is not None:
            await node.run_io(node.home.keys.keep_swarm_key, key)
            node.note("rekeyed", generation=key.generation, by=node.core.members.name_of(peer))
            node.start_anew(RESTART_AFTER_S, "it has a new key")
        node.send(peer, RekeyDone(message.generation))

    def _key(self) -> SwarmKey:
        key = self._node.home.keys.swarm_key()
        if key is None:
            raise SwarmKeyError("this device's swarm key is gone; run `swarm leave`, then `swarm join`")
        return key

    # --- within

    def _on_seen(self, seen: Seen) -> None:
        self.seen[seen.instance] = seen
        if len(self.seen) > limits.MAX_PEERS:
            del self.seen[next(iter(self.seen))]
        if seen.fingerprint == self._node.transport.me.credentials.fingerprint:
            self._node.transport.learn(seen.peer, seen.addresses)

    async def _keep(self, known: dict[str, str]) -> None:
        async with self._keeping:  # one after the other: they write the same file
            await self._node.run_io(self._node.home.keep_addresses, known)

    async def _measure_link(self, peer: PeerId) -> None:
        """Send a megabyte twice when nothing else is going on; the better one counts."""
        best = 0.0
        while not best and peer in self._node.core.others():
            await asyncio.sleep(PROBE_DELAY_S)
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


def _means(text: str, peer: PeerId, name: str) -> bool:
    """True when somebody means this device: by its name, or the beginning of its id."""
    return text == name or (len(text) >= MIN_ID_DIGITS and peer.startswith(text.lower()))
