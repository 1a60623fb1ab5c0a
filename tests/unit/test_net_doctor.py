"""Each thing that goes wrong on home networks gets its own line and its own advice."""

from __future__ import annotations

import dataclasses

from swarm.net.dial import Unreached
from swarm.net.discovery import Seen
from swarm.net.doctor import Level, NetworkFacts, NetworkFinding, check
from swarm.net.events import CloneSeen, NotLetIn
from swarm.net.interfaces import Interface
from swarm.net.links import PeerInfo
from swarm.net.transport import DEFAULT_PORT
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import PROTOCOL
from swarm.wire.records import Address, Version

LOW, ME, HIGH = PeerId("00" * 16), PeerId("77" * 16), PeerId("ff" * 16)
ADDRESS = Address("192.168.1.7", DEFAULT_PORT)
ELSEWHERE = Address("192.168.1.8", DEFAULT_PORT)
OURS, OTHERS = b"ours....", b"others.."
ETH = Interface("eth0", True, False, True, ("192.168.1.5",))
DOCKER = Interface("docker0", True, False, True, ("172.17.0.1",))
LO = Interface("lo", True, True, False, ("127.0.0.1",))
PEER = PeerInfo(HIGH, "attic", BootId("00" * 8), PROTOCOL, ADDRESS, True, True, 0.0005, 0.01, 0.0, 0)
SEEN = Seen("x", HIGH, PROTOCOL, OURS, (ADDRESS,))
WELL = NetworkFacts(ME, OURS, interfaces=(LO, ETH, DOCKER), heard_own_multicast=True, seen=(SEEN,), peers=(PEER,))


def bad(**changes: object) -> list[NetworkFinding]:
    """What is not good when these facts are different."""
    found = check(dataclasses.replace(WELL, **changes))  # type: ignore[arg-type]
    return [finding for finding in found if finding.level is not Level.GOOD]


def the_line(**changes: object) -> str:
    (finding,) = bad(**changes)
    return f"{finding.text} -> {finding.advice}"


def test_a_healthy_network_has_nothing_to_say_but_good_things() -> None:
    assert bad() == []
    texts = [finding.text for finding in check(WELL)]
    assert texts == [
        "network interfaces: eth0 (192.168.1.5); not used: docker0",
        f"attic at {ADDRESS}: 0.5 ms",
    ]


def test_no_interface() -> None:
    assert the_line(interfaces=(LO, DOCKER)).startswith("no network interface is up -> plug in")


def test_discovery_that_cannot_start() -> None:
    assert the_line(discovery_problem="Permission denied").endswith("swarm join --peer HOST")


def test_multicast_that_is_blocked_here() -> None:
    assert "UDP 5353" in the_line(heard_own_multicast=False)


def test_nobody_heard_may_be_client_isolation() -> None:
    assert "client isolation" in the_line(seen=(), peers=())


def test_nobody_is_missed_where_nobody_was_looked_for() -> None:
    assert bad(seen=None, peers=()) == []


def test_multicast_of_others_that_does_not_arrive() -> None:
    assert "found otherwise" in the_line(seen=())


def test_another_port() -> None:
    assert "4000" in the_line(port=4000)


def test_another_version() -> None:
    other = dataclasses.replace(SEEN, version=Version(9, 2))
    assert "speaks protocol 9.2" in the_line(seen=(other,)) and "update the older" in the_line(seen=(other,))


def test_another_swarm_is_a_note_and_a_refused_key_is_bad() -> None:
    assert "another swarm" in the_line(seen=(SEEN, dataclasses.replace(SEEN, fingerprint=OTHERS)))
    (finding,) = bad(not_let_in=(NotLetIn(ELSEWHERE, "key", "it has another key"),))
    assert finding.level is Level.BAD and "swarm invite" in finding.advice


def test_a_device_that_announces_itself_and_does_not_answer() -> None:
    line = the_line(unreached=(Unreached(LOW, (ADDRESS,), 60.0),), heard=frozenset((LOW,)))
    assert f"{ADDRESS} does not answer" in line and f"TCP {DEFAULT_PORT}" in line
    assert bad(unreached=(Unreached(LOW, (ADDRESS,), 1.0),)) == []


def test_nobody_can_call_this_device() -> None:
    low = dataclasses.replace(PEER, peer=LOW)
    assert "this device's firewall" in the_line(peers=(low,))
    assert bad(peers=(low, dataclasses.replace(PEER, we_called=False))) == []


def test_a_blocked_bulk_port() -> None:
    assert "sends no models" in the_line(peers=(dataclasses.replace(PEER, has_bulk=False),))


def test_cloned_ids() -> None:
    assert the_line(clones=(CloneSeen(HIGH, "two have one id"),)).startswith("two have one id")


def test_a_wrong_clock() -> None:
    assert "3600 s behind" in the_line(peers=(dataclasses.replace(PEER, wall_offset_s=-3600.0),))


def test_a_slow_link() -> None:
    assert "50 ms" in the_line(peers=(dataclasses.replace(PEER, rtt_s=0.05),))


def test_bad_things_come_first() -> None:
    levels = [finding.level for finding in check(dataclasses.replace(WELL, port=1, discovery_problem="x"))]
    assert levels == [Level.BAD, Level.NOTE, Level.GOOD, Level.GOOD]


def test_a_device_that_is_switched_off_is_not_broken_and_has_a_name() -> None:
    (finding,) = bad(unreached=(Unreached(LOW, (ELSEWHERE,), 60.0),), met={LOW: "laptop"})
    assert (finding.level, finding.text) == (Level.AWAY, f"laptop is off or away; it was at {ELSEWHERE}")
    (finding,) = bad(unreached=(Unreached(LOW, (ELSEWHERE,), 60.0),))
    assert finding.level is Level.AWAY and str(ELSEWHERE) in finding.text and LOW[:8] not in finding.text


def test_an_address_given_by_hand_where_nothing_answers() -> None:
    (finding,) = bad(unreached=(Unreached(None, (ELSEWHERE,), 60.0),))
    assert finding.level is Level.NOTE and "given by hand" in finding.text


def test_a_device_that_was_shut_out_is_told_in_one_line_however_many_refuse_it() -> None:
    hosts = [f"192.168.1.{i}" for i in range(20, 26)]
    refusals = [NotLetIn(Address(host, DEFAULT_PORT + i), "key", "another key") for host in hosts for i in (0, 1)]
    gone = [Unreached(PeerId(f"{i:032x}"), (Address(host, DEFAULT_PORT),), 60.0) for i, host in enumerate(hosts)]
    (finding,) = bad(not_let_in=tuple(refusals), unreached=tuple(gone))
    assert finding.level is Level.BAD and finding.text.startswith("6 devices do not let this one in (192.168.1.20, ")
    assert "swarm invite" in finding.advice


def test_a_refusal_is_over_when_the_device_is_connected() -> None:
    assert bad(not_let_in=(NotLetIn(Address(ADDRESS.host, DEFAULT_PORT + 1), "key", "another key"),)) == []
