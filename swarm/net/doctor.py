"""What is wrong between this device and the others, and what to do: pure checks over what was observed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from swarm.net import interfaces
from swarm.net.dial import Unreached
from swarm.net.discovery import NODE_SERVICE, Announcement, Discovery, Seen
from swarm.net.events import CloneSeen, NotLetIn
from swarm.net.interfaces import Interface
from swarm.net.links import PeerInfo
from swarm.net.transport import DEFAULT_PORT
from swarm.wire.ids import PeerId
from swarm.wire.messages import PROTOCOL
from swarm.wire.records import Address

CLOCK_TOLERANCE_S = 5.0  # logs of two devices cannot be compared beyond this
UNREACHED_S = 10.0  # an announced device is connected after one second; then something is in the way
SLOW_RTT_S = 0.02  # a wired link has 0.5 ms, good Wi-Fi 3 ms
MULTICAST_WAIT_S = 3.0
JOIN_AGAIN = "run `swarm invite` there, then `swarm forget` and `swarm join CODE` here, if that is wanted"
OPEN_PORTS = f"allow TCP {DEFAULT_PORT}-{DEFAULT_PORT + 2} and UDP 5353 in its firewall"


class Level(Enum):
    """How bad it is."""

    GOOD = "good"
    AWAY = "away"  # a device that is switched off is not broken
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class NetworkFinding:
    """One line: what was found, and what to do about it ("" when nothing)."""

    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True)
class NetworkFacts:
    """What was observed. Fields that were not looked at keep their defaults."""

    me: PeerId
    fingerprint: bytes
    port: int = DEFAULT_PORT
    interfaces: tuple[Interface, ...] = ()
    discovery_problem: str = ""
    heard_own_multicast: bool | None = None
    seen: tuple[Seen, ...] | None = None  # announcements that were heard
    peers: tuple[PeerInfo, ...] = ()
    unreached: tuple[Unreached, ...] = ()
    met: Mapping[PeerId, str] = field(default_factory=dict)  # devices that were connected since the start: their names
    heard: frozenset[PeerId] = frozenset()  # devices that announced themselves in the last minute
    not_let_in: tuple[NotLetIn, ...] = ()
    clones: tuple[CloneSeen, ...] = ()


def check(facts: NetworkFacts) -> tuple[NetworkFinding, ...]:
    """Return everything worth a line, the bad things first."""
    checks = (_interfaces, _multicast, _port, _versions, _keys, _unreached, _reachable, _clones, _links)
    findings = [finding for each in checks for finding in each(facts)]
    order = (Level.BAD, Level.NOTE, Level.AWAY, Level.GOOD)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def _interfaces(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    chosen = interfaces.usable(facts.interfaces)
    ignored = sorted(each.name for each in facts.interfaces if each.is_up and not each.is_loopback) if chosen else []
    ignored = [name for name in ignored if name not in {each.name for each in chosen}]
    if not chosen or all(each.is_loopback for each in chosen):
        yield NetworkFinding(Level.BAD, "no network interface is up", "plug in a cable or join a Wi-Fi")
        return
    names = ", ".join(f"{each.name} ({each.addresses[0]})" for each in chosen)
    without = f"; not used: {', '.join(ignored)}" if ignored else ""
    yield NetworkFinding(Level.GOOD, f"network interfaces: {names}{without}")


def _multicast(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    advice = "give addresses by hand: swarm join --peer HOST"
    if facts.discovery_problem:
        yield NetworkFinding(Level.BAD, f"devices cannot be discovered: {facts.discovery_problem}", advice)
    elif facts.heard_own_multicast is False:
        yield NetworkFinding(Level.BAD, "multicast is blocked on this device", f"{OPEN_PORTS}, or {advice}")
    elif facts.seen is None:
        return
    elif not facts.seen and not facts.peers:
        isolated = "if there is another one, its network may separate devices (guest Wi-Fi, client isolation): "
        yield NetworkFinding(Level.NOTE, "no other device was heard", isolated + advice)
    elif not facts.seen:
        yield NetworkFinding(
            Level.NOTE, "multicast of other devices does not arrive; those connected were found otherwise"
        )


def _port(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    if facts.port != DEFAULT_PORT:
        text = f"this device listens on port {facts.port}, not on {DEFAULT_PORT}, which something else uses"
        yield NetworkFinding(Level.NOTE, text, "--peer needs the port then; a firewall too")


def _versions(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    for seen in facts.seen or ():
        if seen.version.major != PROTOCOL.major:
            text = f"the device at {_where(seen.addresses)} speaks protocol {seen.version}, this one {PROTOCOL}"
            yield NetworkFinding(Level.BAD, text, "update the older one")
    for each in facts.not_let_in:
        if each.reason == "version":
            yield NetworkFinding(Level.BAD, each.text)


def _keys(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    others = {seen.fingerprint: seen for seen in facts.seen or () if seen.fingerprint not in (facts.fingerprint, b"")}
    for fingerprint, seen in others.items():
        text = f"another swarm ({fingerprint.hex()[:8]}) is on this network, at {_where(seen.addresses)}"
        yield NetworkFinding(Level.NOTE, text, "if it should be this one: swarm invite here, then swarm join there")
    yield from _refused(facts)


def _refused(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    """One line for one cause, however many devices and ports it shows at; none for what has come in since."""
    connected = {info.address.host for info in facts.peers}
    refusing = [each for each in facts.not_let_in if each.reason in ("key", "forgotten")]
    hosts = {each.address.host: each for each in refusing if each.address.host not in connected}
    if len(hosts) == 1:
        (each,) = hosts.values()
        yield NetworkFinding(Level.BAD, each.text, JOIN_AGAIN)
    elif hosts:
        names = ", ".join(sorted(hosts)[:4]) + (" and others" if len(hosts) > 4 else "")
        text = f"{len(hosts)} devices do not let this one in ({names}): they have another key than it"
        yield NetworkFinding(Level.BAD, text, f"it was shut out, or away when the key was changed: {JOIN_AGAIN}")


def _unreached(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    """Who announces itself and does not answer is behind a firewall; who is silent is switched off."""
    refusing = {each.address.host for each in facts.not_let_in}
    for each in facts.unreached:
        if each.for_s < UNREACHED_S or any(address.host in refusing for address in each.addresses):
            continue
        where = _where(each.addresses)
        if each.peer is None:
            text = f"nothing answers at {where}, which was given by hand"
            yield NetworkFinding(Level.NOTE, text, f"if a device is on there, {OPEN_PORTS}")
        elif each.peer in facts.met:
            yield NetworkFinding(Level.AWAY, f"{facts.met[each.peer]} is off or away; it was at {where}")
        elif each.peer in facts.heard:
            text = f"the device that announces itself at {where} does not answer"
            yield NetworkFinding(Level.BAD, text, OPEN_PORTS)
        else:
            yield NetworkFinding(Level.AWAY, f"a device that was at {where} before is off or away")


def _reachable(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    """The smaller id calls first: that we had to call it says that its call did not arrive."""
    silent = [info.name for info in facts.peers if info.we_called and info.peer < facts.me]
    if silent and not any(not info.we_called for info in facts.peers):
        text = f"no other device can call this one ({', '.join(silent)} had to be called)"
        yield NetworkFinding(Level.NOTE, text, OPEN_PORTS.replace("its", "this device's"))
    for info in facts.peers:
        if not info.has_bulk:
            yield NetworkFinding(
                Level.BAD, f"{info.name} can be talked to but sends no models", f"on it or here, {OPEN_PORTS}"
            )


def _clones(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    for clone in facts.clones:
        yield NetworkFinding(Level.BAD, clone.text)


def _links(facts: NetworkFacts) -> Iterator[NetworkFinding]:
    for info in facts.peers:
        offset_s = info.wall_offset_s
        if offset_s is not None and abs(offset_s) > CLOCK_TOLERANCE_S:
            text = f"the clock of {info.name} is {abs(offset_s):.0f} s {'ahead' if offset_s > 0 else 'behind'}"
            yield NetworkFinding(Level.NOTE, text, "turn on network time on both (timedatectl set-ntp true)")
        if info.rtt_s is not None and info.rtt_s > SLOW_RTT_S:
            text = f"the link to {info.name} is slow: {info.rtt_s * 1e3:.0f} ms for a round trip"
            yield NetworkFinding(Level.NOTE, text, "use a cable, or move closer to the access point")
        elif info.rtt_s is not None:
            yield NetworkFinding(Level.GOOD, f"{info.name} at {info.address}: {info.rtt_s * 1e3:.1f} ms")


def _where(addresses: tuple[Address, ...]) -> str:
    return str(addresses[0]) if addresses else "an unknown address"


async def hear_own_multicast() -> tuple[bool, tuple[Seen, ...], str]:
    """Announce and listen; return whether we heard ourselves, all the nodes that were heard, and the problem if any."""
    peer = PeerId(os.urandom(16).hex())
    heard: dict[str, Seen] = {}
    own = asyncio.Event()

    def on_seen(seen: Seen) -> None:
        heard[seen.instance] = seen
        if seen.peer == peer:
            own.set()

    instance = f"doctor-{peer[:8]}"
    speaker = Discovery(
        NODE_SERVICE, lambda _: None, Announcement(NODE_SERVICE, instance, peer, PROTOCOL, DEFAULT_PORT)
    )
    listener = Discovery(NODE_SERVICE, on_seen)
    try:
        await asyncio.gather(speaker.start(), listener.start())
        try:
            async with asyncio.timeout(MULTICAST_WAIT_S):
                await own.wait()
        except TimeoutError:
            pass
    finally:
        await asyncio.gather(speaker.stop(), listener.stop())
    others = tuple(seen for seen in heard.values() if seen.peer != peer)
    return own.is_set(), others, listener.problem
