"""Trouble is told once in a while, and only what the next call does not cure."""

from __future__ import annotations

import pytest

from swarm import limits
from swarm.net.events import NotLetIn
from swarm.net.warnings import CLONE_ADVICE, Warnings
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

ONE, OTHER = Address("10.0.0.1", 7417), Address("10.0.0.2", 7417)
PEER = PeerId("ab" * 16)


def test_the_same_trouble_is_told_once_in_a_while() -> None:
    warnings = Warnings()
    assert warnings.not_let_in("key", ONE, "another key", 0.0) == NotLetIn(ONE, "key", "another key")
    assert warnings.not_let_in("key", ONE, "another key", limits.WARNING_INTERVAL_S - 0.1) is None
    assert warnings.not_let_in("key", ONE, "another key", limits.WARNING_INTERVAL_S) is not None


def test_other_trouble_and_other_devices_are_told_beside_it() -> None:
    warnings = Warnings()
    assert warnings.not_let_in("key", ONE, "", 0.0) is not None
    assert warnings.not_let_in("version", ONE, "", 0.0) is not None
    assert warnings.not_let_in("key", OTHER, "", 0.0) is not None
    assert warnings.not_let_in("key", Address(ONE.host, 1), "", 0.0) is None, "the same device on another port"


@pytest.mark.parametrize("reason", ["hello", "garbage", "full"])
def test_what_the_next_call_cures_is_not_told(reason: str) -> None:
    assert Warnings().not_let_in(reason, ONE, "", 0.0) is None


def test_two_devices_with_one_id_are_told_once_with_what_to_do() -> None:
    warnings = Warnings()
    seen = warnings.clone(PEER, "the devices at a and b", 0.0)
    assert seen is not None and seen.peer == PEER
    assert seen.text.startswith("the devices at a and b have the same id") and seen.text.endswith(CLONE_ADVICE)
    assert warnings.clone(PEER, "the devices at a and c", 1.0) is None


def test_what_is_remembered_is_bounded() -> None:
    warnings = Warnings()
    for i in range(2 * limits.MAX_PEERS):
        warnings.not_let_in("key", Address(f"10.1.{i // 256}.{i % 256}", 1), "", 0.0)
    assert len(warnings._until) <= limits.MAX_PEERS
