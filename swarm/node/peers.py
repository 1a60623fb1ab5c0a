"""Finding devices, remembering them, letting new ones in, and shutting lost ones out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swarm import limits
from swarm.cluster.core import Core
from swarm.errors import ConfigError, SwarmError, SwarmKeyError
from swarm.net import discovery, joining
from swarm.net.discovery import Announcement, Discovery, Seen
from swarm.net.joining import OpenInvitation
from swarm.net.keys import SwarmKey, new_swarm_key
from swarm.net.pairing import Invitation, Party
from swarm.net.rekey import RESTART_AFTER_S, Rekeying, accept
from swarm.net.transport import Transport
from swarm.node.background import Background
from swarm.node.driver import Driver, is_serving
from swarm.node.event_log import EventLog
from swarm.node.home import Home
from swarm.node.outbox import Outbox
from swarm.node.routes import Routes
from swarm.plain import one_line
from swarm.wire.ids import PeerId
from swarm.wire.messages import PROTOCOL, LinkProbe, LinkProbed, Rekey, RekeyDone
from swarm.wire.records import Address

PROBE_BYTES = 1024 * 1024
PROBES = 2  # the first one also opens TCP's window
PROBE_DELAY_S = 1.0  # after a device came: its bulk link is up by then, and first words go before
PROBE_TIMEOUT_S = 10.0
REKEY_POLL_S = 0.05
HEARD_S = 60.0  # four times the interval of announcements
MAX_OTHERS_TOLD = 8  # devices of other swarms
TO_ENTER = "`swarm invite` there, then `swarm join CODE` here"
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
    """Of one node, on its loop."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        *,
        transport: Transport,
        outbox: Outbox,
        events: EventLog,
        home: Home,
        announce_s: Callable[[], float] = lambda: limits.ANNOUNCE_INTERVAL_S,
    ) -> None:
        """`announce_s`: until this device announces itself and looks for others afresh."""
        self._announce_s = announce_s
        self._driver = driver
        self._background = background
        self._transport = transport
        self._outbox = outbox
        self._events = events
        self._home = home
        self._discovery: Discovery | None = None
        self._invitation: OpenInvitation | None = None
        self._rekeying: Rekeying | None = None
        self.seen: dict[str, Seen] = {}  # what announced itself lately
        self._heard_at: dict[PeerId, float] = {}
        self.of_others: dict[PeerId, str] = {}  # devices of another swarm, while this one is alone: HOST:PORT
        self._met: dict[str, str] = {}  # peer -> HOST:PORT
        self._probes: dict[tuple[PeerId, int], asyncio.Future[int]] = {}
        self._next_probe = 1
        self._keeping = asyncio.Lock()

    def take_messages(self, routes: Routes) -> None:
        """What peers say of links and keys."""
        routes.take(LinkProbed, self.link_probed)
        routes.take(Rekey, self.rekey)
        routes.take(RekeyDone, self.rekey_done)

    @property
    def looks_around(self) -> bool:
        """This node finds others by itself."""
        return self._discovery is not None

    @property
    def problem(self) -> str:
        """Why there is no discovery just now; empty when there is."""
        if self._discovery is None:
            return "switched off"
        return self._discovery.problem

    async def start(self, calls: Sequence[str], *, discover: bool) -> None:
        """Call those who were met before or are named in `calls`, and look around."""
        me = self._transport.me
        for peer, text in self._home.addresses().items():
            host, _, port = text.rpartition(":")
            if host and port.isdecimal() and 0 < int(port) < 65536:
                self._transport.learn(PeerId(peer), [Address(host.strip("[]"), int(port))])
        for text in calls:
            await self._background.run_io(self._transport.call, text)
        if discover:
            credentials = me.credentials
            instance = f"{me.peer[:8]}-{me.boot[:8]}"
            announcement = Announcement(
                discovery.NODE_SERVICE, instance, me.peer, PROTOCOL, me.port, credentials.fingerprint
            )
            self._discovery = Discovery(
                discovery.NODE_SERVICE, self._on_seen, announcement, interval_s=self._announce_s
            )
            await self._discovery.start()

    async def stop(self) -> None:
        """Take all announcements back."""
        await self._end_invitation()
        if self._discovery is not None:
            await self._discovery.stop()

    def heard_lately(self) -> frozenset[PeerId]:
        """Devices that announced themselves in the last minute."""
        return frozenset(peer for peer, at in self._heard_at.items() if self._driver.now - at < HEARD_S)

    def peer_down(self, peer: PeerId) -> None:
        """A device is not connected any more."""
        if self._rekeying is not None:
            self._rekeying.lost(peer)

    def peer_up(self, peer: PeerId, address: Address) -> None:
        """A device is connected: remember where, and measure the link when there is time."""
        self.of_others.clear()
        if self._met.get(peer) != str(address):
            self._met[peer] = str(address)
            addresses = dict(list({**self._home.addresses(), **self._met}.items())[-limits.MAX_REMEMBERED_PEERS :])
            names = self._home.names() | {peer: self._name_of(peer)}
            self._background.spawn(self._keep(addresses, {p: names[p] for p in addresses if p in names}))
        self._background.spawn(self._measure_link(peer))

    def link_probed(self, peer: PeerId, message: LinkProbed) -> None:
        """The bytes of a probe have arrived."""
        future = self._probes.get((peer, message.sequence))
        if future is not None and not future.done():
            future.set_result(message.n_bytes)

    # --- letting in

    async def invite(self) -> Invited:
        """Open an invitation in place of an older one; raise SwarmNetworkError when nobody could answer it."""
        await self._end_invitation()
        me = self._transport.me
        opened = await joining.invite(Party(me.peer, me.name), self._key(), me.port, self._on_invitation_end)
        self._invitation = opened
        self._events.note("invitation_open", port=opened.port)
        return Invited(str(opened.invitation.code), opened.port, limits.INVITATION_S)

    def _on_invitation_end(self, invitation: Invitation) -> None:
        joined = invitation.joined
        if joined is not None:
            self._events.note("let_in", name=joined.name)
        elif invitation.wrong >= limits.MAX_WRONG_GUESSES:
            self._events.note("invitation_ended", why="the code was guessed wrong three times")
        opened = self._invitation
        if opened is not None and opened.invitation is invitation and not self._background.stopping.is_set():
            self._background.spawn(opened.close())

    async def _end_invitation(self) -> None:
        opened, self._invitation = self._invitation, None
        if opened is not None:
            await opened.close()

    # --- shutting out

    async def new_key(self, without: list[str]) -> Rekeyed:
        """Give every device that is here a new swarm key, but for those named; then this node starts anew with it.

        Raise ConfigError, before anything changes, for a name that no device has, or that several have.
        """
        key = new_swarm_key(self._key().generation + 1)
        names = self._driver.read(lambda core: {peer: core.members.name_of(peer) for peer in core.others()})
        names_known = {PeerId(peer): name for peer, name in self._home.names().items()} | self._driver.read(
            _names_of_all
        )
        lost = list(dict.fromkeys(_named(name, names_known) for name in without))
        for peer in lost:
            if peer in names:
                self._transport.shut_out(peer)
        rekeying = Rekeying(key, [peer for peer in names if peer not in lost], self._driver.now)
        self._rekeying = rekeying
        for peer in list(rekeying.waiting):
            self._outbox.send(peer, rekeying.message())
        while not rekeying.is_over(self._driver.now):
            await asyncio.sleep(REKEY_POLL_S)
        await self._background.run_io(self._home.keys.keep_swarm_key, key)
        self._events.note("rekeyed", generation=key.generation)
        self._background.start_anew(RESTART_AFTER_S, "it has a new key")
        return Rekeyed(
            done=tuple(names[peer] for peer in names if peer in rekeying.done),
            missed=tuple(names[peer] for peer in names if peer not in rekeying.done and peer not in lost),
            shut_out=tuple(names_known[peer] for peer in lost),
        )

    def rekey(self, peer: PeerId, message: Rekey) -> None:
        """A member has made a new key."""
        self._background.spawn(self._take_key(peer, message))

    def rekey_done(self, peer: PeerId, message: RekeyDone) -> None:
        """A member keeps the new key."""
        if self._rekeying is not None:
            self._rekeying.take(peer, message)

    async def _take_key(self, peer: PeerId, message: Rekey) -> None:
        try:
            key = accept(self._key(), message)
        except SwarmKeyError as error:
            self._events.note("key_refused", name=self._name_of(peer), why=str(error))
            return
        if key is not None:
            await self._background.run_io(self._home.keys.keep_swarm_key, key)
            self._events.note("rekeyed", generation=key.generation, by=self._name_of(peer))
            self._background.start_anew(RESTART_AFTER_S, "it has a new key")
        self._outbox.send(peer, RekeyDone(message.generation))

    def _key(self) -> SwarmKey:
        key = self._home.keys.swarm_key()
        if key is None:
            raise SwarmKeyError("this device's swarm key is gone; run `swarm leave`, then `swarm join`")
        return key

    # --- within

    def _name_of(self, peer: PeerId) -> str:
        return self._driver.read(lambda core: core.members.name_of(peer))

    def _is_there(self, peer: PeerId) -> bool:
        return self._driver.read(lambda core: peer in core.others())

    def _on_seen(self, seen: Seen) -> None:
        self.seen.pop(seen.instance, None)  # the last one heard comes last
        self.seen[seen.instance] = seen
        self._heard_at[seen.peer] = self._driver.now
        if len(self._heard_at) > limits.MAX_PEERS:
            del self._heard_at[next(iter(self._heard_at))]
        if len(self.seen) > limits.MAX_PEERS:
            del self.seen[next(iter(self.seen))]
        if seen.fingerprint == self._transport.me.credentials.fingerprint:
            self._transport.learn(seen.peer, seen.addresses)
        elif seen.fingerprint and seen.peer not in self.of_others and self._may_have_meant_another():
            self.of_others[seen.peer] = str(seen.addresses[0]) if seen.addresses else ""
            self._events.note("another_swarm", address=self.of_others[seen.peer], to_enter=TO_ENTER)

    def _may_have_meant_another(self) -> bool:
        """Two devices that both begin a swarm never find each other: each is told of the other, but not endlessly."""
        return self._home.is_alone and len(self.of_others) < MAX_OTHERS_TOLD

    async def _keep(self, addresses: dict[str, str], names: dict[str, str]) -> None:
        async with self._keeping:  # one after the other: they write the same files
            await self._background.run_io(self._home.keep_addresses, addresses)
            await self._background.run_io(self._home.keep_names, names)

    async def _measure_link(self, peer: PeerId) -> None:
        """Send a megabyte twice when nothing else is going on; the better one counts."""
        best = 0.0
        while not best and self._is_there(peer):
            await asyncio.sleep(PROBE_DELAY_S)
            for _ in range(PROBES):
                while self._driver.read(is_serving) and self._is_there(peer):
                    await asyncio.sleep(PROBE_DELAY_S)
                best = max(best, await self._probe(peer))
        if best:
            self._driver.act(lambda core, now: core.link_measured(peer, best, now))

    async def _probe(self, peer: PeerId) -> float:
        number, self._next_probe = self._next_probe, self._next_probe % (2**31 - 1) + 1
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._probes[peer, number] = future
        started = time.perf_counter()
        try:
            self._transport.send(peer, LinkProbe(number), bytes(PROBE_BYTES))
            n_bytes = await asyncio.wait_for(future, PROBE_TIMEOUT_S)
        except (SwarmError, TimeoutError):
            return 0.0
        finally:
            del self._probes[peer, number]
        took_s = time.perf_counter() - started
        info = next((info for info in self._transport.peers() if info.peer == peer), None)
        rtt_s: float = info.rtt_s if info is not None and info.rtt_s is not None else 0.0
        return n_bytes / max(took_s - rtt_s, 1e-4)


def _names_of_all(core: Core) -> dict[PeerId, str]:
    """Of every device that was there since the start."""
    return {peer: core.members.name_of(peer) for peer in core.members.peers}


def _named(text: str, names: Mapping[PeerId, str]) -> PeerId:
    """The one device that somebody means; ConfigError when it is none or several."""
    found = [peer for peer in names if _means(text, peer, names[peer])]
    if len(found) == 1:
        return found[0]
    which = found or names
    there_are = ", ".join(f"{one_line(names[peer])} ({peer[:MIN_ID_DIGITS]})" for peer in sorted(which))
    if found:
        raise ConfigError(
            f"{len(found)} devices are called {text!r}; nothing was changed. Say which by its id: {there_are}"
        )
    hint = f"there are {there_are}" if names else "no other device was ever here"
    raise ConfigError(f"no device of this swarm is called {one_line(text)!r}; nothing was changed: {hint}")


def _means(text: str, peer: PeerId, name: str) -> bool:
    """True when somebody means this device: by its name, or the beginning of its id."""
    return text == name or (len(text) >= MIN_ID_DIGITS and peer.startswith(text.lower()))
