"""Bytes become messages in one place, and whatever the bytes are, the place holds."""

from __future__ import annotations

import gc
import random
import sys
import time

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm import limits
from swarm.errors import LocalProtocolError, RemoteProtocolError
from swarm.wire.codec import UnknownType, decode, encode, first_version
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import MESSAGES, Activation, Goodbye, Gossip, Heartbeat, Hello, Refuse, Tokens, number_of
from swarm.wire.records import Address, NodeState, PeerAddresses, TensorInfo, Version
from tests.helpers.wire_values import frame_of, record

TENSOR = TensorInfo("f16", (2, 8))
ACTIVATION = Activation(SessionId("ab" * 16), 1, 2, 3, TENSOR, False, (1, 2))


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_comes_out_as_it_went_in(kind: type) -> None:
    for seed in range(30):
        rng = random.Random(seed)
        message = record(kind, rng)
        frame = frame_of(message, rng)
        header = encode(message, frame)
        assert decode([header] if frame is None else [header, frame], "peer") == (message, frame), f"seed {seed}"


def test_a_type_of_a_newer_minor_version_is_unknown_not_garbage() -> None:
    with pytest.raises(UnknownType) as raised:
        decode([msgpack.packb([9999, "anything"]), b"frame"], "peer")
    assert raised.value.number == 9999


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        ([], "0 frames"),
        ([b"x"] * 5, "5 frames"),
        ([b"\xc1"], "not msgpack"),
        ([b""], "not msgpack"),
        ([b"\x93\x01"], "not msgpack"),
        ([b"\xdd\xff\xff\xff\xff"], "not msgpack"),
        ([b"\xc6\xff\xff\xff\xff"], "not msgpack"),
        ([b"\x91" * 60000 + b"\x01"], "begins with"),
        ([b"\x92\x05" + b"\x91" * 60000], "not msgpack"),
        ([b"\x90"], "begins with"),
        ([b"\x91\xa1a"], "begins with"),
        ([b"\x91\xff"], "begins with"),
        ([b"\x91\xc3"], "begins with"),
        ([bytes(limits.MAX_HEADER_BYTES + 1)], "header of"),
        ([msgpack.packb([5, "bye"]), b"frame"], "Goodbye has a raw frame"),
        ([encode(ACTIVATION, bytes(32))], "no raw frame"),
        ([encode(ACTIVATION, bytes(32)), bytes(31)], "its shape says 32"),
        ([encode(ACTIVATION, bytes(32)), bytes(32), b""], "2 raw frames"),
        ([msgpack.packb([5, msgpack.Timestamp(1)])], "Goodbye.text: expected text"),
        ([msgpack.packb([5, {1: 2}])], "Goodbye.text: expected text"),
    ],
)
def test_a_broken_message_names_the_peer_and_the_rule(frames: list[bytes], rule: str) -> None:
    with pytest.raises(RemoteProtocolError, match=rule) as raised:
        decode(frames, "pi4-attic")
    assert str(raised.value).startswith("pi4-attic broke the protocol")


def test_a_frame_over_its_limit_is_refused_on_both_sides() -> None:
    tensor = TensorInfo("f32", (limits.MAX_FAST_FRAME_BYTES // 4 + 1,))
    message = Tokens(SessionId("ab" * 16), 1, 0, tensor, True)
    with pytest.raises(LocalProtocolError, match="at most"):
        encode(message, bytes(tensor.n_bytes))


def test_a_shape_that_overflows_is_only_a_number() -> None:
    tensor = TensorInfo("f32", (2**31 - 1,) * 4)
    header = msgpack.packb([42, b"\xab" * 16, 1, 0, ["f32", list(tensor.shape)], True])
    with pytest.raises(RemoteProtocolError, match="its shape says"):
        decode([header, b""], "peer")


def test_the_largest_gossip_fits_a_header() -> None:
    one = PeerAddresses(PeerId("ab" * 16), "n" * 32, (Address("192.168.100.100", 65535),), 1.0)
    encode(Gossip((one,) * limits.MAX_PEERS))


def test_a_message_over_the_header_limit_is_our_own_fault() -> None:
    many = tuple(Address("h" * 250, port) for port in range(1, limits.MAX_ADDRESSES + 1))
    one = PeerAddresses(PeerId("ab" * 16), "n" * 64, many, 1.0)
    with pytest.raises(LocalProtocolError, match="bytes"):
        encode(Gossip((one,) * limits.MAX_PEERS))


def test_an_illegal_message_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError, match=r"Goodbye\.text"):
        encode(Goodbye("x" * (limits.MAX_TEXT_BYTES + 1)))
    with pytest.raises(LocalProtocolError, match=r"NodeState\.busy"):
        encode(Heartbeat(0, 0, 0, 0, NodeState(busy=2.0)))


def test_a_version_is_read_from_the_messages_of_any_version() -> None:
    assert first_version([msgpack.packb([number_of(Hello), [7, 3], {"quite": "different"}])]) == Version(7, 3)
    assert first_version([encode(Refuse("full", "", Version(2, 1), 0))]) == Version(2, 1)
    assert first_version([encode(Goodbye(""))]) is None
    assert first_version([b"\xc1"]) is None
    assert first_version([msgpack.packb([1])]) is None


def test_a_hundred_thousand_random_frames_are_refused_in_flat_memory() -> None:
    seed = 4
    rng, good = random.Random(seed), _headers()
    decoded = sum(_is_message(_noise(rng, good, i)) for i in range(50_000))
    before = _blocks()
    decoded += sum(_is_message(_noise(rng, good, i)) for i in range(50_000))
    grown = _blocks() - before
    print(f"seed {seed}: {decoded} of 100000 were messages; {grown} blocks of memory more after the second half")
    assert grown < 500
    assert decoded < 50_000


def test_what_comes_in_place_of_an_id_is_refused_whatever_it_is() -> None:
    """msgspec reads it before it is known to be no id: maps, extensions and broken timestamps, in each other."""
    seed = 5
    rng, refused = random.Random(seed), 0
    alphabet = b"\x81\x82\x91\x92\xc0\xc4\x01\xa1\xd4\xd6\xd8\xc7\x0c\xff\xcb\xcf\x00\x05"
    for _ in range(30_000):
        junk = bytes(rng.choices(alphabet, k=rng.randint(1, 30)))
        refused += not _is_message(b"\x93\x1f" + junk + b"\x00")  # ManifestRequest(model, offset)
    assert refused == 30_000, f"seed {seed}"


def test_a_map_of_colliding_keys_in_place_of_an_id_costs_little() -> None:
    """Whole numbers are their own hashes: a table of the largest header's worth is made, and no more."""
    keys = b"".join(b"\xcf" + (i << 32).to_bytes(8, "big") + b"\xc0" for i in range(5900))
    before = time.process_time()
    assert not _is_message(b"\x93\x1f\xdf" + (5900).to_bytes(4, "big") + keys + b"\x00")
    assert time.process_time() - before < 0.5


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def _headers() -> list[bytes]:
    """Headers of the messages that no raw frame follows."""
    return [encode(record(kind, random.Random(number_of(kind)))) for kind in MESSAGES if not kind.MAX_FRAME_BYTES]


def _noise(rng: random.Random, good: list[bytes], i: int) -> bytes:
    """Random bytes, or a real message with a few bytes changed."""
    if i % 2:
        return rng.randbytes(rng.randint(0, 60))
    data = bytearray(rng.choice(good))
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _is_message(data: bytes) -> bool:
    try:
        decode([data], "peer")
    except (RemoteProtocolError, UnknownType):
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(MESSAGES),
    st.lists(st.binary(max_size=64), max_size=4),
)
def test_any_msgpack_is_a_message_or_a_named_fault(value: object, kind: type, frames: list[bytes]) -> None:
    values = value if isinstance(value, list) else [value]
    try:
        decode([msgpack.packb([number_of(kind), *values]), *frames], "peer")
    except RemoteProtocolError as error:
        assert str(error).startswith("peer broke the protocol")
