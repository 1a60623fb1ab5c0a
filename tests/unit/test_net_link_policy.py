"""One rule a test; tests/sim/test_link_policy.py plays them all together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pytest

from swarm import limits
from swarm.errors import PeerBusy, PeerLost
from swarm.net.events import CloneSeen, Event, Garbage, Gone, NotLetIn, PeerDown, PeerUp
from swarm.net.link_effects import Admit, Beat, Call, Close, Effect, Flush, Greet, Knock, Report, Say
from swarm.net.link_policy import LinkPolicy
from swarm.net.links import Outgoing, PeerLink
from swarm.wire.connection import refusal
from swarm.wire.ids import PeerId
from swarm.wire.messages import Catalog, Goodbye, Gossip, Lane, LinkProbe, LinkProbed, Message, Refuse
from swarm.wire.records import Address, PeerAddresses
from tests.helpers.link_ends import FIRST, HERE, OTHER, PEER, SECOND, caller, connection

ME = PeerId("00" * 16)  # the smallest: it calls at once
THERE = Address("10.0.0.2", 7417)
HEADER: Outgoing = (b"header", None)
E = TypeVar("E", bound=Event)


@pytest.fixture
def policy() -> LinkPolicy:
    return LinkPolicy(ME, FIRST)


def calls(effects: Iterable[Effect]) -> list[PeerLink]:
    return [effect.link for effect in effects if isinstance(effect, Call)]


def closed(effects: Iterable[Effect]) -> list[PeerLink]:
    return [effect.link for effect in effects if isinstance(effect, Close)]


def knocks(effects: Iterable[Effect]) -> list[Knock]:
    return [effect for effect in effects if isinstance(effect, Knock)]


def said(effects: Iterable[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Say)]


def reports(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    return [effect.event for effect in effects if isinstance(effect, Report) and isinstance(effect.event, kind)]


def call_up(policy: LinkPolicy, peer: PeerId = PEER, address: Address = HERE, now: float = 0.0) -> PeerLink:
    """A call of ours that is up."""
    policy.learn(peer, [address], now)
    link = next(link for link in calls(policy.tick(now)) if link.address == address)
    assert Greet(link) in policy.handshake_done(link, now)
    policy.welcomed(link, connection(peer, now=now), now)
    return link


def called_up(policy: LinkPolicy, number: int, lane: Lane = Lane.FAST, now: float = 0.0) -> PeerLink:
    """A link that the other one made."""
    link = caller(number, lane, now)
    assert policy.called(link, connection(lane=lane, now=now), now) == [Admit(link)]
    policy.up(link, now)
    return link


# --- calls


def test_a_device_that_is_heard_of_is_called_greeted_and_up(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE], 0.0)
    (link,) = calls(policy.tick(0.0))
    assert (link.lane, link.address, link.is_call) == (Lane.FAST, HERE, True)
    assert policy.handshake_done(link, 0.1) == [Greet(link)]
    assert [up.peer for up in reports(policy.welcomed(link, connection(), 0.2), PeerUp)] == [PEER]
    assert policy.outlet(PEER, Lane.FAST)[0] is link


def test_hello_is_said_at_one_address_of_a_device(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE, THERE], 0.0)
    first, second = calls(policy.tick(0.0)) + calls(policy.tick(limits.ADDRESS_STAGGER_S))
    assert policy.handshake_done(second, 0.5) == [Greet(second)]
    assert policy.handshake_done(first, 0.6) == [Close(first)]


def test_hello_is_said_once_at_an_address_that_is_named_and_remembered(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE], 0.0)
    policy.learn_by_hand(HERE, 0.0)
    one, other = calls(policy.tick(0.0))
    policy.handshake_done(one, 0.1)
    assert policy.handshake_done(other, 0.1) == [Close(other)]
    policy.welcomed(one, connection(), 0.2)
    assert policy.unreached(99.0) == []


def test_a_call_without_hello_ends_when_its_device_is_up_and_one_with_hello_stays(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE, THERE], 0.0)
    silent, greeted = calls(policy.tick(0.0)) + calls(policy.tick(limits.ADDRESS_STAGGER_S))
    policy.handshake_done(greeted, 0.5)
    link = caller(1)
    policy.called(link, connection(), 0.5)
    assert closed(policy.up(link, 0.5)) == [silent]


def test_a_call_that_nobody_answers_is_given_up(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE], 0.0)
    (link,) = calls(policy.tick(0.0))
    assert closed(policy.tick(limits.HANDSHAKE_TIMEOUT_S)) == []
    assert closed(policy.tick(limits.HANDSHAKE_TIMEOUT_S + 0.1)) == [link]


def test_our_own_address_is_never_called_again_and_nobody_is_told(policy: LinkPolicy) -> None:
    policy.learn_by_hand(HERE, 0.0)
    (link,) = calls(policy.tick(0.0))
    (told,) = said(policy.called(caller(1), connection(ME, boot=FIRST), 0.1))
    assert isinstance(told, Refuse) and told.reason == "self"
    assert policy.refused(link, told, 0.2) == [Close(link)]
    assert calls(policy.tick(1e6)) == []


def test_a_refusal_that_no_call_cures_is_told_and_obeyed(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE], 0.0)
    (link,) = calls(policy.tick(0.0))
    policy.handshake_done(link, 0.1)
    effects = policy.refused(link, refusal("version", "update it", 30), 0.2)
    assert closed(effects) == [link] and reports(effects, NotLetIn) == [NotLetIn(HERE, "version", "update it")]
    assert calls(policy.tick(30.0)) == [] and len(calls(policy.tick(31.0))) == 1


def test_a_handshake_that_failed_for_good_says_why(policy: LinkPolicy) -> None:
    policy.learn_by_hand(HERE, 0.0)
    (link,) = calls(policy.tick(0.0))
    (told,) = reports(policy.not_let_in(link, "key", "it has another swarm key", 0.1), NotLetIn)
    assert told.text == f"{HERE} does not let this device in: it has another swarm key"


# --- two links of one device


def test_when_both_called_both_links_stay_and_the_first_is_used(policy: LinkPolicy) -> None:
    theirs = called_up(policy, 1)
    policy.learn_by_hand(THERE, 0.0)
    (ours,) = calls(policy.tick(0.1))
    policy.handshake_done(ours, 0.2)
    effects = policy.welcomed(ours, connection(), 0.2)
    assert closed(effects) == [] and reports(effects, PeerUp) == []
    assert policy.outlet(PEER, Lane.FAST)[0] is theirs


def test_whoever_called_makes_the_bulk_link_also_when_it_uses_the_other_ones_link(policy: LinkPolicy) -> None:
    called_up(policy, 1)
    assert calls(policy.tick(0.1)) == [], "the other one called: it makes the bulk link"
    policy.learn_by_hand(THERE, 0.2)
    (ours,) = calls(policy.tick(0.2))
    policy.handshake_done(ours, 0.3)
    policy.welcomed(ours, connection(), 0.3)
    (bulk,) = calls(policy.tick(0.4))
    assert (bulk.lane, bulk.address) == (Lane.BULK, Address(THERE.host, 7418))


def test_a_bulk_link_is_called_again_but_not_at_once(policy: LinkPolicy) -> None:
    fast = call_up(policy)
    (bulk,) = calls(policy.tick(0.1))
    policy.closed(bulk, 0.2)
    assert calls(policy.tick(1.0)) == []
    assert fast.connection is not None
    fast.connection.heard_at = 5.0
    assert [link.lane for link in calls(policy.tick(0.2 + limits.HANDSHAKE_TIMEOUT_S))] == [Lane.BULK]


def test_a_bulk_link_that_is_being_made_is_not_made_twice(policy: LinkPolicy) -> None:
    """The device went down and came up again meanwhile."""
    fast = call_up(policy)
    (bulk,) = calls(policy.tick(0.1))
    policy.handshake_done(bulk, 0.2)
    policy.closed(fast, 0.3)
    call_up(policy, now=0.4)
    (again,) = calls(policy.tick(0.5))
    assert policy.handshake_done(again, 0.6) == [Close(again)]


def test_bulk_messages_wait_for_their_link(policy: LinkPolicy) -> None:
    call_up(policy)
    link, queue = policy.outlet(PEER, Lane.BULK)
    assert link is None
    queue.append(HEADER)
    assert policy.n_waiting(PEER, Lane.BULK) == 1
    bulk = caller(2, Lane.BULK)
    policy.called(bulk, connection(lane=Lane.BULK), 0.1)
    assert Flush(bulk) in policy.up(bulk, 0.1) and list(bulk.queue) == [HEADER]


def test_bulk_of_a_device_that_is_not_up_is_refused(policy: LinkPolicy) -> None:
    (told,) = said(policy.called(caller(1, Lane.BULK), connection(lane=Lane.BULK), 0.0))
    assert isinstance(told, Refuse) and told.reason == "hello"


def test_what_waits_on_a_link_that_goes_down_leaves_on_the_other_one_only(policy: LinkPolicy) -> None:
    one, other = called_up(policy, 1), called_up(policy, 2)
    one.queue.append(HEADER)
    assert policy.disconnected(Lane.FAST, 1, 0.1) == [Close(one), Flush(other)]
    assert list(other.queue) == [HEADER] and not one.queue


def test_a_device_is_down_with_its_last_fast_link(policy: LinkPolicy) -> None:
    called_up(policy, 1), called_up(policy, 2)
    bulk = called_up(policy, 3, Lane.BULK)
    assert reports(policy.disconnected(Lane.FAST, 1, 0.1), PeerDown) == []
    effects = policy.disconnected(Lane.FAST, 2, 0.1)
    assert [down.reason for down in reports(effects, PeerDown)] == ["its connection closed"]
    assert bulk in closed(effects)


def test_one_knocks_where_the_last_connection_closed(policy: LinkPolicy) -> None:
    called_up(policy, 1), called_up(policy, 2), called_up(policy, 3, Lane.BULK)
    assert not knocks(policy.disconnected(Lane.BULK, 3, 0.1)) and not knocks(policy.disconnected(Lane.FAST, 1, 0.1))
    assert knocks(policy.disconnected(Lane.FAST, 2, 0.1)) == [Knock(PEER, caller(2).address)]
    assert policy.refused_knock(PEER, 0.2) == [Report(Gone(PEER))]


def test_a_call_that_was_never_answered_and_a_silent_device_are_not_knocked_at(policy: LinkPolicy) -> None:
    policy.learn(PEER, [HERE], 0.0)
    (call,) = calls(policy.tick(0.0))
    assert not knocks(policy.closed(call, 0.1))
    link = call_up(policy, OTHER, THERE, 1.0)
    effects = policy.tick(1.1 + limits.PEER_SILENCE_S)
    assert link in closed(effects) and not knocks(effects)


def test_a_device_that_is_here_again_is_not_gone(policy: LinkPolicy) -> None:
    called_up(policy, 1)
    policy.disconnected(Lane.FAST, 1, 0.1)
    called_up(policy, 2)
    assert policy.refused_knock(PEER, 0.2) == []


def test_too_many_links_of_one_device_are_bounded(policy: LinkPolicy) -> None:
    for number in range(limits.MAX_LINKS_PER_LANE):
        called_up(policy, number + 1)
    surplus = caller(9)
    policy.called(surplus, connection(), 0.0)
    assert closed(policy.up(surplus, 0.0)) == [surplus]


# --- silence


def test_a_silent_device_is_down_and_called_anew(policy: LinkPolicy) -> None:
    link = call_up(policy)
    assert reports(policy.tick(limits.PEER_SILENCE_S), PeerDown) == []
    effects = policy.tick(limits.PEER_SILENCE_S + 0.1)
    assert closed(effects) == [link] and not reports(effects, PeerDown)[0].certain
    assert [link.address for link in calls(effects)] == [HERE]


def test_a_silent_caller_is_told_so(policy: LinkPolicy) -> None:
    called_up(policy, 1)
    (told,) = said(policy.tick(limits.PEER_SILENCE_S + 0.1))[-1:]
    assert isinstance(told, Refuse) and (told.reason, told.text) == ("hello", "you were silent")


def test_silence_says_nothing_while_sockets_are_not_read(policy: LinkPolicy) -> None:
    call_up(policy)
    assert reports(policy.tick(99.0, is_reading=False), PeerDown) == []


def test_fast_links_beat(policy: LinkPolicy) -> None:
    link = call_up(policy)
    beats = [now for now in (0.1 * i for i in range(1, 20)) if Beat(link) in policy.tick(now)]
    assert len(beats) == 3, "every HEARTBEAT_INTERVAL_S, after the first at once"


# --- second boots and clones


def test_a_second_boot_is_refused_while_the_first_lives_and_named_when_both_go_on(policy: LinkPolicy) -> None:
    first = called_up(policy, 1)
    effects = policy.called(caller(2), connection(boot=SECOND), 0.1)
    assert [refuse.reason for refuse in said(effects) if isinstance(refuse, Refuse)] == ["clone"]
    assert reports(effects, CloneSeen) == []
    assert first.connection is not None
    first.connection.heard_at = 3.0
    (seen,) = reports(policy.called(caller(3), connection(boot=SECOND), 3.0), CloneSeen)
    assert seen.peer == PEER and "swarm forget" in seen.text


def test_a_second_boot_is_let_in_when_the_first_is_gone(policy: LinkPolicy) -> None:
    called_up(policy, 1)
    policy.called(caller(2), connection(boot=SECOND), 0.1)
    policy.disconnected(Lane.FAST, 1, 0.2)
    again = caller(3)
    assert policy.called(again, connection(boot=SECOND), 0.3) == [Admit(again)]
    assert [up.boot for up in reports(policy.up(again, 0.3), PeerUp)] == [SECOND]


def test_another_run_with_our_own_id_is_a_clone(policy: LinkPolicy) -> None:
    effects = policy.called(caller(1), connection(ME, boot=SECOND), 0.0)
    assert len(reports(effects, CloneSeen)) == 1
    assert [refuse.reason for refuse in said(effects) if isinstance(refuse, Refuse)] == ["clone"]


# --- garbage


def test_a_member_that_breaks_the_protocol_is_named_told_muted_and_left_alone(policy: LinkPolicy) -> None:
    link = called_up(policy, 1)
    policy.learn(PEER, [HERE], 0.0)
    effects = policy.broke_protocol(link, "it sent nonsense", 1.0)
    assert [refuse.reason for refuse in said(effects) if isinstance(refuse, Refuse)] == ["garbage"]
    assert reports(effects, Garbage) == [Garbage(PEER, "it sent nonsense")]
    assert len(reports(effects, PeerDown)) == 1
    assert policy.is_muted(Lane.FAST, b"1") and not policy.is_muted(Lane.FAST, b"2")
    assert not policy.access.may_enter(bytes.fromhex(PEER), limits.GARBAGE_BACKOFF_S)
    assert calls(policy.tick(limits.GARBAGE_BACKOFF_S)) == []
    assert len(calls(policy.tick(limits.GARBAGE_BACKOFF_S + 1.1))) == 1


def test_a_caller_is_muted_until_its_connection_closes(policy: LinkPolicy) -> None:
    policy.call_broke_protocol(caller(5), b"key", "it sent nonsense", 0.0)
    assert policy.is_muted(Lane.FAST, b"5")
    policy.disconnected(Lane.FAST, 5, 0.1)
    assert not policy.is_muted(Lane.FAST, b"5")


def test_muted_callers_are_bounded(policy: LinkPolicy) -> None:
    for number in range(limits.MAX_BLOCKED_KEYS + 1):
        policy.call_broke_protocol(caller(number), b"key", "nonsense", 0.0)
    assert not policy.is_muted(Lane.FAST, b"0") and policy.is_muted(Lane.FAST, b"1")


# --- what is said


def test_a_goodbye_is_certain(policy: LinkPolicy) -> None:
    link = called_up(policy, 1)
    assert reports(policy.received(link, Goodbye("to bed"), 0, 0.1), PeerDown)[0].certain


def test_gossip_is_told_to_a_newcomer_and_of_it_and_learnt_from(policy: LinkPolicy) -> None:
    call_up(policy, OTHER, THERE)
    link = caller(1)
    policy.called(link, connection(), 0.1)
    told = [message for message in said(policy.up(link, 0.1)) if isinstance(message, Gossip)]
    assert [[each.peer for each in gossip.peers] for gossip in told] == [[OTHER], [PEER]]
    third = PeerId("33" * 16)
    policy.received(link, Gossip((PeerAddresses(third, "third", (Address("10.0.0.3", 7417),), 0.0),)), 0, 0.2)
    assert "10.0.0.3" in [link.address.host for link in calls(policy.tick(0.3))]


def test_a_probe_is_answered_with_its_size(policy: LinkPolicy) -> None:
    link = called_up(policy, 1)
    assert policy.received(link, LinkProbe(3), 1024, 0.1) == [Say(link, LinkProbed(3, 1024))]


def test_sending_has_bounds_and_names_who_is_not_there(policy: LinkPolicy) -> None:
    link = called_up(policy, 1)
    link.queue.extend([HEADER] * limits.FAST_QUEUE_MESSAGES)
    with pytest.raises(PeerBusy, match="does not take messages"):
        policy.outlet(PEER, Lane.FAST)
    with pytest.raises(PeerLost, match="not connected"):
        policy.outlet(OTHER, Lane.FAST)


def test_a_device_that_was_shut_out_is_told_and_never_called_again(policy: LinkPolicy) -> None:
    call_up(policy)
    effects = policy.shut_out(PEER, 1.0)
    assert [refuse.reason for refuse in said(effects) if isinstance(refuse, Refuse)] == ["forgotten"]
    assert reports(effects, PeerDown)[0].certain
    assert calls(policy.tick(1e6)) == [] and not policy.access.may_enter(bytes.fromhex(PEER), 1e9)


def test_whoever_leaves_says_goodbye_and_has_nobody_any_more(policy: LinkPolicy) -> None:
    link = call_up(policy)
    effects = policy.leave()
    assert said(effects) == [Goodbye("it left")] and link in closed(effects)
    assert policy.infos() == ()
    with pytest.raises(PeerLost):
        policy.outlet(PEER, Lane.FAST)


def test_a_device_that_floods_is_dropped_and_not_heard_for_a_while(policy: LinkPolicy) -> None:
    link = call_up(policy)
    n = next(n for n in range(10**6) if not policy.may_say(link, Catalog, 0.001 * n))
    assert limits.MAX_TOLD_AT_ONCE <= n < 1.2 * limits.MAX_TOLD_AT_ONCE
    effects = policy.broke_protocol(link, "it sends too much", 2.0)
    assert [event.peer for event in reports(effects, Garbage)] == [PEER] and reports(effects, PeerDown)
    assert calls(policy.tick(2.0 + limits.GARBAGE_BACKOFF_S / 2)) == []


def test_what_a_device_tells_of_others_is_called_in_the_own_networks_only() -> None:
    policy = LinkPolicy(ME, FIRST, is_near=lambda host: host.startswith("10.0.0."))
    link = call_up(policy)
    hosts = ("10.0.0.7", "192.0.2.8", "127.0.0.9")
    told = tuple(PeerAddresses(PeerId(f"{i:032x}"), "x", (Address(host, 80),), 0.0) for i, host in enumerate(hosts, 1))
    policy.received(link, Gossip(told), 0, 1.0)
    called = {each.address.host for each in calls(policy.tick(1.5)) if each.lane is Lane.FAST}
    assert called == {"10.0.0.7"}
