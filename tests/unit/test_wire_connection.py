"""The two ends of a link, without sockets: who is let in, what is refused, what is measured."""

from __future__ import annotations

import random

import msgpack
import pytest

from swarm import limits
from swarm.errors import RemoteProtocolError
from swarm.wire import connection as links
from swarm.wire.codec import encode
from swarm.wire.connection import Connection, LinkRefused, LocalEnd, answer, answered, call
from swarm.wire.ids import BootId, ChunkId
from swarm.wire.messages import ChunkReply, Goodbye, Heartbeat, Hello, Lane, Refuse, Welcome, number_of
from swarm.wire.proof import Credentials, peer_id_of
from swarm.wire.records import NodeState

RNG = random.Random(7)
SWARM_KEY = RNG.randbytes(32)
NONCES = (b"a" * 16, b"b" * 16)


def node(name: str, seed: int, swarm_key: bytes = SWARM_KEY) -> LocalEnd:
    rng = random.Random(seed)
    return LocalEnd(Credentials(swarm_key, rng.randbytes(32)), BootId(rng.randbytes(8).hex()), name, 7000, 7001)


ANN, BOB = node("ann", 1), node("bob", 2)


def greet(caller: LocalEnd, called: LocalEnd) -> tuple[Connection, Connection]:
    """Return both ends: the called one's and the caller's."""
    hello = call(caller, Lane.FAST, NONCES[0])
    key = caller.credentials.device_key
    theirs, welcome = answer(called, Lane.FAST, NONCES[1], [hello], curve_key=key, where="there", now=1.0)
    return theirs, answered(caller, Lane.FAST, NONCES[0], [welcome], where="here", now=1.0)


def test_two_members_know_each_other_after_one_message_each() -> None:
    at_bob, at_ann = greet(ANN, BOB)
    assert (at_bob.remote.peer, at_bob.remote.name) == (ANN.peer, "ann")
    assert (at_ann.remote.peer, at_ann.remote.bulk_port) == (BOB.peer, 7001)
    assert at_ann.remote.peer == peer_id_of(BOB.credentials.device_key)


def test_a_caller_with_another_swarm_key_is_refused() -> None:
    eve = node("eve", 3, RNG.randbytes(32))
    with pytest.raises(RemoteProtocolError, match="another swarm key"):
        greet(eve, BOB)


def test_a_caller_cannot_use_the_id_of_another_device() -> None:
    hello = call(ANN, Lane.FAST, NONCES[0])
    with pytest.raises(RemoteProtocolError, match="does not belong"):
        answer(BOB, Lane.FAST, NONCES[1], [hello], curve_key=b"e" * 32, where="eve", now=0.0)


def test_one_that_is_called_cannot_use_the_id_of_another_member() -> None:
    # Eve is a member, so she has the server key and the member key; she has not Bob's device secret.
    eve = node("eve", 3)
    hello = call(ANN, Lane.FAST, NONCES[0])
    _, welcome = answer(eve, Lane.FAST, NONCES[1], [hello], curve_key=ANN.credentials.device_key, where="ann", now=0.0)
    values = msgpack.unpackb(welcome)
    values[2] = bytes.fromhex(BOB.peer)
    values[7][0] = BOB.credentials.device_key
    with pytest.raises(RemoteProtocolError, match="not who it says"):
        answered(ANN, Lane.FAST, NONCES[0], [msgpack.packb(values)], where="eve", now=0.0)


def test_a_replayed_welcome_proves_nothing() -> None:
    hello = call(ANN, Lane.FAST, NONCES[0])
    key = ANN.credentials.device_key
    _, welcome = answer(BOB, Lane.FAST, NONCES[1], [hello], curve_key=key, where="ann", now=0.0)
    with pytest.raises(RemoteProtocolError, match="proof is wrong"):
        answered(ANN, Lane.FAST, b"another nonce...", [welcome], where="bob", now=0.0)


def test_a_link_of_one_lane_cannot_be_used_as_the_other() -> None:
    hello = call(ANN, Lane.BULK, NONCES[0])
    with pytest.raises(RemoteProtocolError, match="another lane"):
        answer(BOB, Lane.FAST, NONCES[1], [hello], curve_key=ANN.credentials.device_key, where="ann", now=0.0)


def test_a_key_of_small_order_is_refused() -> None:
    hello = call(ANN, Lane.FAST, NONCES[0])
    key = ANN.credentials.device_key
    _, welcome = answer(BOB, Lane.FAST, NONCES[1], [hello], curve_key=key, where="ann", now=0.0)
    values = msgpack.unpackb(welcome)
    values[7][0] = bytes(32)
    values[2] = bytes.fromhex(peer_id_of(bytes(32)))
    with pytest.raises(RemoteProtocolError, match="not a key"):
        answered(ANN, Lane.FAST, NONCES[0], [msgpack.packb(values)], where="bob", now=0.0)


@pytest.mark.parametrize("kind", [Hello, Welcome, Refuse])
def test_another_major_version_is_told_not_failed(kind: type) -> None:
    place = {Hello: 1, Welcome: 1, Refuse: 3}[kind]
    values: list[object] = [number_of(kind), "x", "y", "z"]
    values[place] = [9, 1]
    with pytest.raises(LinkRefused, match=r"speaks protocol 9\.1, this device 2\.\d+: update the older one") as raised:
        if kind is Hello:
            answer(BOB, Lane.FAST, NONCES[1], [msgpack.packb(values)], curve_key=b"", where="old", now=0.0)
        else:
            answered(ANN, Lane.FAST, NONCES[0], [msgpack.packb(values)], where="old", now=0.0)
    assert raised.value.refuse.reason == "version"


def test_whoever_does_not_say_hello_first_is_asked_to() -> None:
    with pytest.raises(LinkRefused) as raised:
        answer(BOB, Lane.FAST, NONCES[1], [encode(Goodbye(""))], curve_key=b"", where="ann", now=0.0)
    assert raised.value.refuse.reason == "hello"


def test_a_refusal_reaches_the_caller_with_its_reason() -> None:
    refuse = encode(links.refusal("clone", "another one has your id", 7))
    with pytest.raises(LinkRefused, match="another one has your id") as raised:
        answered(ANN, Lane.FAST, NONCES[0], [refuse], where="bob", now=0.0)
    assert raised.value.refuse.retry_s == 7


def test_unknown_types_are_counted_and_bounded() -> None:
    at_bob, _ = greet(ANN, BOB)
    for number in [9000, 9000, *range(10_000, 10_200)]:
        assert at_bob.receive([msgpack.packb([number])], 2.0, 0.0) is None
    assert at_bob.unknown[9000] == 2
    assert len(at_bob.unknown) == limits.MAX_UNKNOWN_TYPES + 1
    assert sum(at_bob.unknown.values()) == 202


def test_a_message_on_the_wrong_lane_breaks_the_protocol() -> None:
    at_bob, _ = greet(ANN, BOB)
    reply = encode(ChunkReply(1, ChunkId("cd" * 32), 0, True), b"data")
    with pytest.raises(RemoteProtocolError, match="on the fast lane"):
        at_bob.receive([reply, b"data"], 2.0, 0.0)


def test_a_second_hello_breaks_the_protocol() -> None:
    at_bob, _ = greet(ANN, BOB)
    with pytest.raises(RemoteProtocolError, match="link that is up"):
        at_bob.receive([call(ANN, Lane.FAST, NONCES[0])], 2.0, 0.0)


def test_a_refusal_on_a_link_that_is_up_comes_through_on_either_lane() -> None:
    for lane in Lane:
        end = Connection(greet(ANN, BOB)[0].remote, lane, 1.0)
        result = end.receive([encode(links.refusal("garbage", "no more", 30))], 2.0, 0.0)
        assert result is not None and isinstance(result[0], Refuse) and result[0].retry_s == 30


def test_heartbeats_give_round_trip_clock_offset_and_silence() -> None:
    at_bob, at_ann = greet(ANN, BOB)
    # Ann's clock and Bob's start anywhere; 10 ms each way; Bob's time of day is 5 s ahead.
    beat = at_ann.heartbeat(100.0, 1000.0, NodeState())
    at_bob.receive([beat], 50.0, 1005.01)
    back = at_bob.heartbeat(50.4, 1005.41, NodeState(busy=0.5))
    result = at_ann.receive([back], 100.42, 1000.42)
    assert result is not None and isinstance(result[0], Heartbeat) and result[0].state.busy == 0.5
    assert at_ann.rtt_s == pytest.approx(0.02, abs=1e-3)
    assert at_ann.wall_offset_s == pytest.approx(5.0, abs=0.01)
    assert not at_ann.is_silent(100.42 + limits.PEER_SILENCE_S)
    assert at_ann.is_silent(100.43 + limits.PEER_SILENCE_S)


def test_the_best_of_the_last_round_trips_counts() -> None:
    at_bob, at_ann = greet(ANN, BOB)
    for i, slow_s in enumerate([0.08, 0.0, 0.05, *[0.04] * (limits.RTT_SAMPLES - 1), 0.04]):
        at_bob.receive([at_ann.heartbeat(100.0 + i, 0.0, NodeState())], 50.01 + i, 0.0)
        at_ann.receive([at_bob.heartbeat(50.01 + i, 0.0, NodeState())], 100.02 + slow_s + i, 0.0)
        best = 0.1 if i == 0 else 0.02 if i <= limits.RTT_SAMPLES else 0.06  # it is forgotten in the end
        assert at_ann.rtt_s == pytest.approx(best, abs=1e-4), i


def test_an_absurd_clock_of_a_peer_does_no_harm() -> None:
    _, at_ann = greet(ANN, BOB)
    at_ann.receive([encode(Heartbeat(2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1, NodeState()))], 5.0, 5.0)
    assert at_ann.rtt_s == 0.0
    at_ann.heartbeat(6.0, 6.0, NodeState())


def test_secrets_are_not_in_the_text_of_this_end() -> None:
    for secret in (SWARM_KEY, ANN.credentials.device_secret, ANN.credentials.server_secret):
        assert secret.hex() not in repr(ANN) and repr(secret) not in repr(ANN)
