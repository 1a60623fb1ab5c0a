"""The bytes on the wire do not change by accident: other devices run other versions."""

from __future__ import annotations

import json
import random

import pytest

from swarm.wire.codec import decode, encode
from swarm.wire.messages import BY_NUMBER, MESSAGES, PROTOCOL
from tests.helpers.wire_values import frame_of, record
from tools.golden_wire import GOLDEN, golden

TABLE = json.loads(GOLDEN.read_text())


def test_the_golden_bytes_are_of_this_protocol_and_of_every_message() -> None:
    assert TABLE["protocol"] == str(PROTOCOL)
    assert set(TABLE) - {"protocol"} == {kind.__name__ for kind in MESSAGES}


@pytest.mark.parametrize("name", [kind.__name__ for kind in MESSAGES])
def test_each_message_has_its_golden_bytes(name: str) -> None:
    assert golden()[name] == TABLE[name]


@pytest.mark.parametrize("name", [kind.__name__ for kind in MESSAGES])
def test_golden_bytes_become_the_message_again(name: str) -> None:
    number, header, frame = TABLE[name]
    rng = random.Random(number)
    wanted = record(BY_NUMBER[number], rng)
    raw = frame_of(wanted, rng)
    frames = [bytes.fromhex(header)] if frame is None else [bytes.fromhex(header), bytes.fromhex(frame)]
    assert decode(frames, "peer") == (wanted, raw)
    assert encode(wanted, raw) == frames[0]


def test_numbers_of_messages_are_used_once() -> None:
    assert len(BY_NUMBER) == len(MESSAGES)
