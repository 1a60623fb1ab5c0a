"""Which links to other devices are made, kept and given up: events and the time go in, effects come out. Pure.

Whoever has the sockets (reactor.py; in tests a simulated wire) tells what happened on them and carries out, in order,
what is decided here. The rules, and PROTOCOL.md says them to other programs:

    rivals          when both sides called, both links stay; each side goes on sending on the one that was up first
    greeting        Hello is said at one address of a device at a time; a call on which it was said is never hung up
                    for the sake of another one, because the other side may have spoken on it already
    bulk            whoever made a fast link makes a bulk link, while there is none
    silence         a fast link is given up after PEER_SILENCE_S, and called anew
    knocking        when the last fast link closed, and nothing listens there any more, the device is gone for good
    second boot     of a device that is connected: refused while the first one lives, and named when both go on living
    garbage         who breaks the protocol is told, not heard on that connection any more, and kept out for a while

A link's life: Call -> handshake_done -> Greet -> welcomed -> up, or called -> Admit -> up; then closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from swarm import limits
from swarm.errors import PeerBusy, PeerLost
from swarm.net.access import AccessList
from swarm.net.dial import Dialer, Key, Unreached
from swarm.net.events import Event, Garbage, Gone, PeerDown, PeerUp
from swarm.net.gossip import news_of, tell, to_learn
from swarm.net.link_effects import Admit, Beat, Call, Close, Effect, Flush, Greet, Knock, Report, Say
from swarm.net.links import Links, Outgoing, PeerInfo, PeerLink
from swarm.net.warnings import CLONE_ADVICE, Warnings
from swarm.wire.connection import Connection, refusal
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Goodbye, Gossip, Lane, LinkProbe, LinkProbed, Message, Refuse
from swarm.wire.records import Address

MOST_WAITING = {Lane.FAST: limits.FAST_QUEUE_MESSAGES, Lane.BULK: limits.BULK_QUEUE_MESSAGES}


class LinkPolicy:
    """The links of one device, and every decision about them."""

    def __init__(self, me: PeerId, boot: BootId, is_near: Callable[[str], bool] = lambda host: True) -> None:
        """`is_near`: an IP address is in one of this device's own networks."""
        self.me = me
        self.boot = boot
        self.access = AccessList()
        self.links = Links()
        self._dialer = Dialer(me, is_near)
        self._warnings = Warnings()
        self._calls: dict[PeerLink, None] = {}  # of ours, up or not, in order
        self._muted: dict[tuple[Lane, bytes], int] = {}  # routing ids that sent garbage, with their fd
        self._second_boots: dict[PeerId, float] = {}  # when a second boot of a living peer was first refused
        self._next_heartbeat = self._next_gossip = 0.0
        self._beat_s = limits.HEARTBEAT_INTERVAL_S
        self._effects: list[Effect] = []

    # --- questions

    def outlet(self, peer: PeerId, lane: Lane) -> tuple[PeerLink | None, deque[Outgoing]]:
        """Return the link to send on, None while there is none of that lane, and what waits for it.

        Raise PeerLost, or PeerBusy when too much waits already.
        """
        links = self.links.peers.get(peer)
        if links is None:
            raise PeerLost(f"device {peer[:8]} is not connected")
        link = self.links.best(peer, lane)
        queue = links.pending if link is None else link.queue
        if len(queue) >= MOST_WAITING[lane]:
            raise PeerBusy(f"{links.connection} does not take messages as fast as they come")
        return link, queue

    def n_waiting(self, peer: PeerId, lane: Lane) -> int:
        """Return how many messages wait here for a device."""
        link = self.links.best(peer, lane)
        if link is not None:
            return len(link.queue)
        return len(self.links.peers[peer].pending) if peer in self.links.peers else 0

    def infos(self) -> tuple[PeerInfo, ...]:
        """Return what is known of every connected device."""
        return self.links.infos()

    def unreached(self, now: float) -> list[Unreached]:
        """Return the devices that were told of and are not connected."""
        return self._dialer.unreached(now, self.links.peers)

    def is_muted(self, lane: Lane, routing: bytes) -> bool:
        """True for a caller that sent garbage on this connection."""
        return (lane, routing) in self._muted

    # --- what people and other devices say

    def learn(self, peer: PeerId, addresses: Sequence[Address], now: float) -> None:
        """A device may be at these addresses."""
        self._dialer.learn(peer, addresses, now)

    def learn_by_hand(self, address: Address, now: float) -> None:
        """Somebody is at this address, a person says."""
        self._dialer.learn_by_hand(address, now)

    def shut_out(self, peer: PeerId, now: float) -> list[Effect]:
        """Drop a device and never let it in again while this node runs."""
        links = self.links.peers.get(peer)
        if links is not None:
            self.access.shut_out(links.connection.device_key)
            self._say(peer, refusal("forgotten", "this swarm has shut this device out", 0))
            self._dialer.leave_alone(peer, float("inf"))
            self._lose(peer, "it was shut out", now, certain=True)
        return self._decided()

    def leave(self) -> list[Effect]:
        """Say goodbye to everybody and give up every link; nobody is reported lost."""
        goodbye = Goodbye("it left")
        fast = [link for link in self.links.all() if link.lane is Lane.FAST]
        self._effects += [Say(link, goodbye) for link in fast]
        self._effects += [Close(link) for link in self._calls]
        self._calls, self.links = {}, Links()
        return self._decided()

    # --- time

    def tick(self, now: float, *, is_reading: bool = True) -> list[Effect]:
        """Time passed. Not `is_reading`: sockets are not read just now, so silence says nothing."""
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._beat_s
            self._effects += [Beat(link) for link in self.links.all() if link.lane is Lane.FAST]
        if now >= self._next_gossip:
            self._next_gossip = now + limits.ANNOUNCE_INTERVAL_S
            self._broadcast(tell(self.infos(), now))
        if is_reading:
            self._drop_silent(now)
        self._end_slow_calls(now)
        for key, address in self._dialer.due(now, self.links.peers):
            self._call(Lane.FAST, address, key, now)
        self._call_bulk(now)
        return self._decided()

    def set_beat(self, beat_s: float) -> None:
        """Heartbeats come so far apart from now on; the next one, which says so, at the next tick."""
        if beat_s != self._beat_s:
            self._beat_s, self._next_heartbeat = beat_s, 0.0

    @property
    def is_at_rest(self) -> bool:
        """True when time alone brings nothing but slow heartbeats: no call of ours is on its way."""
        return self._beat_s > limits.HEARTBEAT_INTERVAL_S and all(link.connection for link in self._calls)

    def _drop_silent(self, now: float) -> None:
        for link in self.links.all():
            # The bulk lane has no heartbeat of its own: it lives and dies with the fast one.
            if link.lane is Lane.FAST and link.connection is not None and link.connection.is_silent(now):
                if not link.is_call:
                    self._effects.append(Say(link, refusal("hello", "you were silent", 0)))
                self._down(link, f"silent for {limits.PEER_SILENCE_S:g} s", now)

    def _end_slow_calls(self, now: float) -> None:
        for link in list(self._calls):
            if link.connection is None and now - link.started_at > limits.HANDSHAKE_TIMEOUT_S:
                self._down(link, "no answer", now)

    def _call(self, lane: Lane, address: Address, key: Key | None, now: float) -> None:
        link = PeerLink(lane, address, now, key)
        self._calls[link] = None
        self._effects.append(Call(link))

    def _call_bulk(self, now: float) -> None:
        """Whoever made a fast link makes a bulk link too, also when it sends on the fast link of the other one."""
        for links in self.links.peers.values():
            fast = next((link for link in links.lanes[Lane.FAST] if link.is_call), None)
            if fast is None or links.lanes[Lane.BULK] or now < links.call_bulk_at:
                continue
            assert fast.connection is not None
            links.call_bulk_at = now + limits.HANDSHAKE_TIMEOUT_S
            if fast.connection.remote.bulk_port:
                self._call(Lane.BULK, Address(fast.address.host, fast.connection.remote.bulk_port), None, now)

    # --- a call of ours

    def handshake_done(self, link: PeerLink, now: float) -> list[Effect]:
        """A call got through to a listener of this swarm: say Hello, or hang up when another call came first.

        Hello is said at one address of a device at a time, so that it never has two links of ours: it tells us things
        on the first one, which would be lost if another won. An address may be called twice: because a person named it
        and a device was there before, or because a device went down and came up while its bulk link was being made.
        """
        rival = self._greeted_rival(link)
        if rival is None:
            link.has_greeted = True
            self._effects.append(Greet(link))
        else:
            if rival.connection is not None:
                self._note_answered(link, rival.connection.remote.peer, now)
            self._down(link, "another call came first", now)
        return self._decided()

    def welcomed(self, link: PeerLink, connection: Connection, now: float) -> list[Effect]:
        """The one we called has proven who it is."""
        refuse = self._judge(connection, link.lane, link.address, now)
        if refuse is not None:
            return self.refused(link, refuse, now)
        link.connection = connection
        self._note_answered(link, connection.remote.peer, now)
        self._up(link, now)
        return self._decided()

    def refused(self, link: PeerLink, refuse: Refuse, now: float) -> list[Effect]:
        """The other end says no, or no more; or we do not want it."""
        is_own = refuse.reason == "self"
        if is_own and link.key is not None:
            self._dialer.drop(link.key, link.address)
        self._down(link, refuse.text, now, refuse.retry_s)
        if not is_own:
            self._report(self._warnings.not_let_in(refuse.reason, link.address, refuse.text, now))
        return self._decided()

    def not_let_in(self, link: PeerLink, reason: str, why: str, now: float) -> list[Effect]:
        """A call of ours got no further than the handshake; `why` is half a sentence."""
        text = f"{link.address} does not let this device in: {why}"
        self._report(self._warnings.not_let_in(reason, link.address, text, now))
        self._down(link, "its connection closed", now)
        return self._decided()

    def _greeted_rival(self, link: PeerLink) -> PeerLink | None:
        keys = {link.key} - {None}  # a bulk call has none: it is for a device that is connected
        calls = [each for each in self._calls if each.lane is link.lane and each.has_greeted]
        return next((each for each in calls if each.key in keys or each.address == link.address), None)

    def _note_answered(self, link: PeerLink, peer: PeerId, now: float) -> None:
        if link.key is None:
            return
        if isinstance(link.key, Address) or link.key == peer:
            self._dialer.answered(link.key, link.address, peer, now)
        else:
            self._dialer.drop(link.key, link.address)  # another device has that address now
            self._dialer.learn(peer, [link.address], now)

    # --- somebody calls

    def called(self, link: PeerLink, connection: Connection, now: float) -> list[Effect]:
        """A caller has proven who it is."""
        refuse = self._judge(connection, link.lane, link.address, now)
        if refuse is None:
            link.connection = connection
            self._effects.append(Admit(link))
        else:
            self._effects.append(Say(link, refuse))
        return self._decided()

    def call_refused(self, link: PeerLink, refuse: Refuse, now: float) -> list[Effect]:
        """What a caller said is no Hello of this version: it is told so."""
        self._effects.append(Say(link, refuse))
        if refuse.reason == "version":
            self._report(self._warnings.not_let_in("version", link.address, refuse.text, now))
        return self._decided()

    def call_broke_protocol(self, link: PeerLink, device_key: bytes, why: str, now: float) -> list[Effect]:
        """What a caller said instead of Hello breaks the protocol; its device key is proven all the same."""
        wait_s = self.access.back_off(device_key, now)
        self._mute(link)
        self._effects.append(Say(link, refusal("garbage", "broke the protocol", wait_s)))
        self._report(Garbage(None, why))
        return self._decided()

    def disconnected(self, lane: Lane, fd: int, now: float) -> list[Effect]:
        """A caller's connection closed."""
        link = self.links.by_fd(lane, fd)
        if link is not None:
            self._hung_up(link, now)
        for muted in [key for key, muted_fd in self._muted.items() if key[0] is lane and muted_fd == fd]:
            del self._muted[muted]
        return self._decided()

    def _judge(self, connection: Connection, lane: Lane, address: Address, now: float) -> Refuse | None:
        """Return why a newcomer is refused: ourselves, a second device with one id, bulk of a peer that is not up."""
        remote = connection.remote
        if remote.peer == self.me:
            if remote.boot == self.boot:
                return refusal("self", "this is your own address", limits.GARBAGE_BACKOFF_S)
            self._report(self._warnings.clone(remote.peer, f"this device and the one at {address}", now))
            return refusal("clone", "this device has your id: " + CLONE_ADVICE, limits.GARBAGE_BACKOFF_S)
        links = self.links.peers.get(remote.peer)
        if links is None:
            return refusal("hello", "say Hello on the fast lane first", 0) if lane is Lane.BULK else None
        if links.connection.remote.boot == remote.boot:
            return None
        return self._refuse_second_boot(remote.peer, links.connection.remote.boot, address, now)

    def _refuse_second_boot(self, peer: PeerId, boot: BootId, address: Address, now: float) -> Refuse:
        """A restarted device is let in as soon as its old links are dead; while they live, it is a clone."""
        first = self._second_boots.setdefault(peer, now)
        if now - first > limits.PEER_SILENCE_S:
            best = self.links.best(peer, Lane.FAST)
            place = best.address if best is not None else boot
            self._report(self._warnings.clone(peer, f"the devices at {place} and {address}", now))
        return refusal("clone", "another device with your id is connected: " + CLONE_ADVICE, 1)

    # --- a link is up, and goes down

    def up(self, link: PeerLink, now: float) -> list[Effect]:
        """A caller was told Welcome."""
        self._up(link, now)
        return self._decided()

    def received(self, link: PeerLink, message: Message, n_frame_bytes: int, now: float) -> list[Effect]:
        """A message came that ends in the transport (wire/routing.py)."""
        assert link.connection is not None
        peer = link.connection.remote.peer
        match message:
            case Refuse():
                return self.refused(link, message, now)
            case Goodbye(text):
                self._lose(peer, text or "it left", now, certain=True)
            case Gossip():
                for other, addresses in to_learn(message, self.me, link.address):
                    self._dialer.hear(peer, other, addresses, now)
            case LinkProbe(sequence):
                self._say(peer, LinkProbed(sequence, n_frame_bytes))
        return self._decided()

    def may_say(self, link: PeerLink, kind: type[Message] | None, now: float) -> bool:
        """A message came (None: of a kind not known here); False when its sender sends far too many."""
        assert link.connection is not None
        links = self.links.peers.get(link.connection.remote.peer)
        return links is None or links.budget.take(kind, now)

    def closed(self, link: PeerLink, now: float) -> list[Effect]:
        """A call's connection closed, or could not be made."""
        self._hung_up(link, now)
        return self._decided()

    def refused_knock(self, peer: PeerId, now: float) -> list[Effect]:
        """Nothing listens where a device was: unless it is here by another way, it is gone."""
        if peer not in self.links.peers:
            self._report(Gone(peer))
        return self._decided()

    def broke_protocol(self, link: PeerLink, why: str, now: float) -> list[Effect]:
        """The other end sent garbage: a proven peer is named, told, and not heard for a while."""
        if link.connection is None:
            self._down(link, why, now, limits.GARBAGE_BACKOFF_S)
            self._report(Garbage(None, why))
            return self._decided()
        peer = link.connection.remote.peer
        wait_s = self.access.back_off(link.connection.device_key, now)
        refuse = refusal("garbage", why[: limits.MAX_TEXT_BYTES // 4], wait_s)
        for each in self.links.peers[peer].all():
            self._effects.append(Say(each, refuse))
            if not each.is_call:
                self._mute(each)
        self._report(Garbage(peer, why))
        self._lose(peer, "it broke the protocol", now)
        self._dialer.leave_alone(peer, now + wait_s)
        return self._decided()

    def _up(self, link: PeerLink, now: float) -> None:
        assert link.connection is not None
        remote = link.connection.remote
        is_new = remote.peer not in self.links.peers
        surplus = self.links.add(link, now)
        if surplus is not None:
            self._down(surplus, "there were too many links", now)
        if link.lane is Lane.BULK:
            pending = self.links.peers[remote.peer].pending
            link.queue.extend(pending)
            pending.clear()
            self._effects.append(Flush(link))
        elif is_new:
            self._second_boots.pop(remote.peer, None)
            self._end_needless_calls(link, now)
            self._report(PeerUp(remote.peer, remote.name, remote.boot, remote.version, link.address))
            infos = self.infos()
            self._say(remote.peer, tell(infos, now, leave_out=remote.peer))
            self._broadcast(news_of(infos, remote.peer, now), leave_out=remote.peer)

    def _end_needless_calls(self, winner: PeerLink, now: float) -> None:
        """One address of a device answered: the calls to its others are not needed."""
        assert winner.connection is not None
        targets = (winner.key, winner.connection.remote.peer)
        for link in self._calls_without_hello():
            if link is not winner and link.key in targets:
                self._down(link, "another address answered", now)

    def _calls_without_hello(self) -> Iterator[PeerLink]:
        """Calls to devices on which nothing can have been said."""
        for link in list(self._calls):
            if link.lane is Lane.FAST and link.key is not None and not link.has_greeted:
                yield link

    def _hung_up(self, link: PeerLink, now: float) -> None:
        """Its connection closed. A cable does not do that, but more than the end of a process does: it is asked for."""
        was_up = link.connection is not None and link.connection.remote.peer in self.links.peers
        self._down(link, "its connection closed", now)
        if was_up and link.connection is not None and link.connection.remote.peer not in self.links.peers:
            self._effects.append(Knock(link.connection.remote.peer, link.address))

    def _down(self, link: PeerLink, reason: str, now: float, wait_s: float = 0.0) -> None:
        """Give up a link or a call; when it was the last to its peer, the peer is down."""
        was_last = self.links.remove(link)
        self._close(link, now, wait_s)
        if link.connection is None:
            return
        peer = link.connection.remote.peer
        if was_last:
            self._lose(peer, reason, now)
        elif peer in self.links.peers:
            self._requeue(peer, link)

    def _close(self, link: PeerLink, now: float, wait_s: float = 0.0) -> None:
        self._effects.append(Close(link))
        self._calls.pop(link, None)
        if link.key is not None:
            self._dialer.ended(link.key, link.address, now, wait_s)

    def _requeue(self, peer: PeerId, link: PeerLink) -> None:
        """What waits on a link that goes down leaves on another one, and only there."""
        other = self.links.best(peer, link.lane)
        if other is not None:
            other.queue.extend(link.queue)
            self._effects.append(Flush(other))
        elif link.lane is Lane.BULK:
            self.links.peers[peer].pending.extend(link.queue)
        link.queue.clear()

    def _lose(self, peer: PeerId, reason: str, now: float, *, certain: bool = False) -> None:
        """All links to a peer are given up, and the node is told."""
        lost = self.links.peers.pop(peer, None)
        if lost is None:
            return
        for link in lost.all():
            self.links.remove(link)
            self._close(link, now)
        self._report(PeerDown(peer, lost.connection.remote.name, reason, certain))

    def _mute(self, link: PeerLink) -> None:
        if len(self._muted) >= limits.MAX_BLOCKED_KEYS:
            del self._muted[next(iter(self._muted))]
        self._muted[link.lane, link.routing] = link.fd

    # --- effects

    def _decided(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _report(self, event: Event | None) -> None:
        if event is not None:
            self._effects.append(Report(event))

    def _say(self, peer: PeerId, message: Message) -> None:
        link = self.links.best(peer, Lane.FAST)
        if link is not None:
            self._effects.append(Say(link, message))

    def _broadcast(self, message: Message, leave_out: PeerId | None = None) -> None:
        for peer in self.links.peers:
            if peer != leave_out:
                self._say(peer, message)
