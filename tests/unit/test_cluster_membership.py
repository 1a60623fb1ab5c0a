"""Who is there, told by the clock that the test turns."""

from __future__ import annotations

import pytest

from swarm import limits
from swarm.cluster.cost import Exchange
from swarm.cluster.membership import Change, Cloned, Health, Joined, Lost, Membership, ReachChanged, Suspected
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Measured
from swarm.wire.records import Capabilities, LinkMeasurement, NodeState

ME, A, B = (PeerId(c * 32) for c in "0ab")
FIRST, SECOND, THIRD = (BootId(c * 16) for c in "123")
CAPS = Capabilities("x86_64", "avx2", 4, 2**33, 2**36, 1e10, 1e11)
TICK_S = 0.1


@pytest.fixture
def members() -> Membership:
    m = Membership(ME, FIRST, "me")
    m.tick(0.0)
    assert m.up(A, FIRST, "attic", 0.0) == [Joined(A, restarted=False)]
    return m


def pass_time(m: Membership, start: float, end: float) -> list[tuple[float, Change]]:
    """Tick from start to end; the changes, and when they were seen."""
    seen = []
    for i in range(round((end - start) / TICK_S) + 1):
        now = start + i * TICK_S
        seen += [(now, change) for change in m.tick(now)]
    return seen


def measured(*reaches: PeerId) -> Measured:
    return Measured(CAPS, tuple(LinkMeasurement(peer, 0.001, 1e8) for peer in reaches))


def test_silence_is_suspect_after_one_second_and_lost_soon_after_two(members: Membership) -> None:
    (suspected_at, suspected), (lost_at, lost) = pass_time(members, 0.0, 5.0)
    assert isinstance(suspected, Suspected) and 1.0 <= suspected_at <= 1.2
    assert isinstance(lost, Lost) and lost_at <= 2.2
    assert not members.is_alive(A)


def test_a_peer_that_is_heard_stays(members: Membership) -> None:
    for i in range(20):
        members.heard(A, i * 0.5)
        assert members.tick(i * 0.5 + 0.1) == []


def test_a_suspect_that_is_heard_is_alive_again(members: Membership) -> None:
    pass_time(members, 0.0, 1.5)
    assert members.doubts(A, 1.5) == "it has not been heard for a moment"
    members.heard(A, 1.5)
    assert members.peers[A].health is Health.ALIVE and not members.doubts(A, 1.5)


def test_a_broken_link_is_waited_for_a_second(members: Membership) -> None:
    assert members.down(A, "reset", 0.0, certain=False) == [Suspected(A)]
    ((at, change),) = pass_time(members, 0.0, 2.0)
    assert isinstance(change, Lost) and at == pytest.approx(limits.DOWN_GRACE_S)


def test_a_broken_link_that_comes_back_changes_nothing(members: Membership) -> None:
    members.down(A, "reset", 0.0, certain=False)
    assert members.up(A, FIRST, "attic", 0.5) == []
    assert members.is_alive(A) and members.tick(0.6) == []


def test_goodbye_is_certain(members: Membership) -> None:
    assert members.down(A, "it said goodbye", 0.0, certain=True) == [Lost(A, "it said goodbye")]


def test_a_lost_peer_whose_link_never_broke_is_back_when_it_is_heard(members: Membership) -> None:
    pass_time(members, 0.0, 3.0)
    assert not members.is_alive(A)
    assert members.heard(A, 3.0) == [Joined(A, restarted=False)]
    assert members.is_alive(A) and pass_time(members, 3.0, 3.9) == []


@pytest.mark.parametrize("broke_at", [0.0, 2.9])
def test_a_lost_peer_whose_link_broke_is_not_back_by_a_late_message(members: Membership, broke_at: float) -> None:
    if not broke_at:
        members.down(A, "reset", 0.0, certain=False)
    pass_time(members, 0.0, 2.9)
    members.down(A, "silent", 2.9, certain=False)
    assert members.heard(A, 3.0) == []
    assert not members.is_alive(A)
    assert members.up(A, FIRST, "attic", 3.5) == [Joined(A, restarted=False)]


def test_another_boot_id_is_a_restart(members: Membership) -> None:
    assert members.up(A, SECOND, "attic", 0.5) == [Lost(A, "it was restarted"), Joined(A, restarted=True)]
    pass_time(members, 0.5, 4.0)
    assert members.up(A, THIRD, "attic", 5.0) == [Joined(A, restarted=True)]


def test_two_runs_at_once_are_a_clone_and_are_not_used(members: Membership) -> None:
    members.up(A, SECOND, "copy", 0.5)
    assert members.up(A, FIRST, "attic", 1.0) == [Cloned(A, ("copy", "attic"))]
    assert members.up(A, FIRST, "attic", 2.0) == []  # told once
    assert "two devices run with its id" in members.why_unusable(A, 2.0)
    assert not members.why_unusable(A, 2.0 + limits.CLONE_S)


def test_meeting_oneself_is_a_clone_too(members: Membership) -> None:
    assert members.up(ME, FIRST, "me", 1.0) == []
    assert members.up(ME, SECOND, "my copy", 1.0) == [Cloned(ME, ("me", "my copy"))]
    assert members.why_unusable(ME, 1.0)


def test_a_clone_that_the_transport_saw_is_not_used(members: Membership) -> None:
    assert members.clone_seen(A, "attic", 1.0) == [Cloned(A, ("attic", "attic"))]
    assert members.why_unusable(A, 1.0)
    assert members.clone_seen(B, "unknown", 1.0) == []


def test_after_our_own_sleep_nobody_is_lost_at_once(members: Membership) -> None:
    members.heard(A, 0.5)
    members.tick(0.5)
    assert members.tick(60.0) == []
    assert members.is_alive(A)
    assert [type(change) for _, change in pass_time(members, 60.1, 64.0)] == [Suspected, Lost]


def test_a_link_is_there_when_both_sides_say_so(members: Membership) -> None:
    members.up(B, FIRST, "cellar", 0.0)
    assert members.link(A, B) is not None  # nobody said anything yet
    assert members.measured(A, measured(ME, B)) == [ReachChanged(A)]
    assert members.measured(B, measured(ME)) == [ReachChanged(B)]
    assert members.link(A, B) is None and members.link(B, A) is None
    members.measured(B, measured(ME, A))
    link = members.link(A, B)
    assert link is not None and link.rtt_s == 0.001


def test_a_peer_that_does_not_hear_us_is_not_linked(members: Membership) -> None:
    assert members.link(ME, A) is not None
    members.measured(A, measured(B))
    assert members.link(ME, A) is None


def test_we_tell_whom_we_reach(members: Membership) -> None:
    members.up(B, FIRST, "cellar", 0.0)
    members.down(A, "gone", 0.1, certain=True)
    assert [link.peer for link in members.measured_links()] == [B]


def test_losses_in_a_row_raise_doubts(members: Membership) -> None:
    for i in range(limits.MAX_FLAPS):
        members.down(A, "gone", float(i), certain=True)
        members.up(A, FIRST, "attic", i + 0.5)
    assert members.doubts(A, 3.0) == f"it was lost {limits.MAX_FLAPS} times lately"
    assert not members.doubts(A, 3.0 + limits.FLAP_WINDOW_S)


def test_the_number_of_peers_is_bounded() -> None:
    m = Membership(ME, FIRST, "me")
    for i in range(limits.MAX_PEERS + 5):
        m.up(PeerId(f"{i + 1:032x}"), FIRST, "x", 0.0)
    assert len(m.peers) == limits.MAX_PEERS


def test_a_peer_that_beats_slowly_is_lost_only_after_as_many_beats(members: Membership) -> None:
    members.state(A, NodeState(beat_s=limits.IDLE_HEARTBEAT_S), None, 0.0)
    pace = limits.IDLE_HEARTBEAT_S / limits.HEARTBEAT_INTERVAL_S
    assert members.pace == pace
    lost = [(at, change) for at, change in pass_time(members, 0.0, 20.0) if isinstance(change, Lost)]
    assert [round(at, 1) for at, _ in lost] == [limits.PEER_SILENCE_S * pace]
    assert members.pace == 1.0, "nobody is there any more"


def test_a_peer_that_hurries_again_is_judged_by_that(members: Membership) -> None:
    members.state(A, NodeState(beat_s=limits.IDLE_HEARTBEAT_S), None, 0.0)
    assert members.timer() > limits.SUSPECT_S
    members.state(A, NodeState(), None, 0.0)
    seen = pass_time(members, 0.0, 3.0)
    assert [type(change) for _, change in seen] == [Suspected, Lost]


def beats(members: Membership, *times: float) -> None:
    for now in times:
        assert members.heard(A, now) == [] and members.tick(now) == []
        members.state(A, NodeState(quick=True), None, now)


def lost_after(members: Membership, start: float) -> float:
    """Seconds of silence until it is lost."""
    return next(at for at, change in pass_time(members, start, start + 5) if isinstance(change, Lost)) - start


def test_a_peer_that_beats_quickly_is_lost_sooner(members: Membership) -> None:
    beats(members, *(0.2 * i for i in range(10)))
    assert lost_after(members, 1.8) == pytest.approx(limits.QUICK_SILENCE_S, abs=TICK_S)


def test_a_peer_that_is_only_slow_is_given_the_time_that_it_takes(members: Membership) -> None:
    beats(members, 0.0, 0.2, 0.9, 1.1)
    assert members.peers[A].patience_s == pytest.approx(limits.PEER_SILENCE_S), "never more than anybody"
    members.peers[A].stalls.clear()
    beats(members, 1.3, 1.8)
    assert lost_after(members, 1.8) == pytest.approx(limits.STALL_FACTOR * 0.5, abs=TICK_S)


def test_a_long_pause_is_forgotten_with_the_time(members: Membership) -> None:
    beats(members, 0.0, 0.7)
    assert members.peers[A].patience_s > limits.QUICK_SILENCE_S
    beats(members, *(0.7 + 0.2 * i for i in range(1, limits.STALLS_KEPT + 1)))
    assert members.peers[A].patience_s == limits.QUICK_SILENCE_S


def test_where_nothing_listens_any_more_nobody_is_waited_for(members: Membership) -> None:
    members.down(A, "its connection closed", 0.0, certain=False)
    assert members.down(A, "nothing listens there", 0.01, certain=True) == [Lost(A, "nothing listens there")]
    assert members.down(A, "nothing listens there", 0.02, certain=True) == []


def test_of_rehearsals_the_quickest_of_the_last_few_counts_and_others_hear_of_it(members: Membership) -> None:
    way = members.link(ME, A)
    assert way is not None and way.exchange is None and not way.may_share, "what heartbeats say is not enough"
    for wait_s in (0.0001, 0.0005, 0.0003, 0.0004):
        members.rehearsed(A, Exchange(wait_s, 1e8))
    way = members.link(ME, A)
    assert way is not None and way.exchange == Exchange(0.0003, 1e8) and way.may_share
    (said,) = members.measured_links()
    assert (said.exchange_s, said.exchange_bytes_per_s) == (0.0003, 1e8)


def test_the_links_of_others_are_believed_when_they_rehearsed(members: Membership) -> None:
    members.up(B, SECOND, "cellar", 0.0)
    for seen in (0.0, 1e8):
        for one, other in ((A, B), (B, A)):
            link = LinkMeasurement(other, 0.001, 1e8, 0.0002 if seen else 0.0, seen)
            members.measured(one, Measured(CAPS, (LinkMeasurement(ME, 0.001, 1e8), link)))
        way = members.link(A, B)
        assert way is not None and way.may_share is bool(seen)
        assert way.exchange == (Exchange(0.0002, 1e8) if seen else None)
