"""PROTOCOL.md is the specification; it says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from swarm import limits
from swarm.wire import messages
from swarm.wire.messages import MESSAGES, PROTOCOL, Hello, Refuse, Welcome, number_of

TEXT = (Path(messages.__file__).parent / "PROTOCOL.md").read_text()
BOTH_LANES = (Hello, Welcome, Refuse)


def test_the_table_has_every_message_with_its_number_lane_and_frame() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \| ([^|]*?) ?\|", TEXT, re.MULTILINE)
    wanted = [
        (
            str(number_of(kind)),
            kind.__name__,
            "both" if kind in BOTH_LANES else kind.LANE.value,
            bool(kind.MAX_FRAME_BYTES),
        )
        for kind in MESSAGES
    ]
    assert [(number, name, lane, bool(frame)) for number, name, lane, frame in rows] == wanted


def test_the_version_in_the_title_is_the_one_that_is_spoken() -> None:
    assert TEXT.splitlines()[0].endswith(f"version {PROTOCOL}")


def test_every_limit_that_is_named_exists() -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT)) - {"ZMQ_MAXMSGSIZE"}
    assert named
    assert not [name for name in named if not hasattr(limits, name)]


def test_the_reasons_of_a_refusal_are_all_listed() -> None:
    assert f"`{' '.join(messages.REFUSALS)}`" in TEXT
