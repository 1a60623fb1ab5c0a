"""What `swarm doctor` finds between this device and the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.net import interfaces
from swarm.net.doctor import NetworkFacts, NetworkFinding, check
from swarm.net.events import CloneSeen, NotLetIn
from swarm.net.transport import Transport
from swarm.node.event_log import EventLog
from swarm.node.peers import Peers
from swarm.wire.ids import PeerId

Json = dict[str, object]


def examine(transport: Transport, peers: Peers, events: EventLog, met: Mapping[PeerId, str]) -> list[Json]:
    """What is wrong; empty when nothing is. `met`: names of devices that were connected since the start."""
    me, troubles = transport.me, events.troubles
    facts = NetworkFacts(
        me=me.peer,
        fingerprint=me.credentials.fingerprint,
        port=me.port,
        interfaces=interfaces.here(),
        discovery_problem=peers.problem if peers.looks_around else "",
        seen=tuple({seen.peer: seen for seen in peers.seen.values()}.values()),  # of each what it said last
        peers=transport.peers(),
        unreached=tuple(transport.unreached()),
        met=met,
        heard=peers.heard_lately(),
        not_let_in=tuple(dict.fromkeys(t for t in troubles if isinstance(t, NotLetIn))),
        clones=tuple(dict.fromkeys(t for t in troubles if isinstance(t, CloneSeen))),
    )
    return findings_json(check(facts))


def findings_json(findings: Sequence[NetworkFinding]) -> list[Json]:
    """What the network's doctor found."""
    return [{"level": found.level.value, "text": found.text, "advice": found.advice} for found in findings]
