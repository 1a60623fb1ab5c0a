"""The memory of a device, counted: what goes first when room is needed, and what never goes."""

from __future__ import annotations

import pytest

from swarm.cluster.effects import DropKv, Unload
from swarm.cluster.memory import KvEntry, Ledger
from swarm.parts import EMBED, Part
from swarm.wire.ids import ModelId, PeerId, SessionId

OWNER, OTHER = (PeerId("a" * 32), ModelId("1" * 64)), (PeerId("b" * 32), ModelId("1" * 64))
MODEL = OWNER[1]
OLD, NEW = SessionId("1" * 32), SessionId("2" * 32)


@pytest.fixture
def ledger() -> Ledger:
    """Of 100 bytes: two parts of 30, and two resting sessions of 20."""
    made = Ledger(100)
    made.parts = {(MODEL, EMBED): 30, (MODEL, Part(0)): 30}
    made.kv = {
        NEW: KvEntry(OWNER, 0, 1, 20, False, 2.0),
        OLD: KvEntry(OWNER, 0, 1, 20, False, 1.0),
    }
    return made


def test_surplus_weights_go_before_resting_kv_and_the_oldest_kv_first(ledger: Ledger) -> None:
    assert ledger.make_room(30, {(MODEL, EMBED)}) == [Unload(MODEL, frozenset({Part(0)}))]
    assert ledger.make_room(50, {(MODEL, EMBED)}) == [DropKv(OLD)]
    assert ledger.make_room(100, {(MODEL, EMBED)}) == [DropKv(NEW)]
    assert ledger.free_bytes == 70


def test_kv_of_a_running_answer_stays(ledger: Ledger) -> None:
    ledger.wake(OLD, 3.0)
    ledger.make_room(100, set())
    assert list(ledger.kv) == [OLD] and ledger.running_bytes() == 20 and not ledger.parts


def test_an_owner_is_served_while_one_of_its_answers_runs(ledger: Ledger) -> None:
    assert not ledger.is_serving(OWNER)
    ledger.wake(NEW, 3.0)
    assert ledger.is_serving(OWNER) and not ledger.is_serving(OTHER)
    ledger.rest(NEW, 4.0)
    assert not ledger.is_serving(OWNER) and ledger.kv[NEW].used_at == 4.0


def test_kv_of_other_layers_is_outdated(ledger: Ledger) -> None:
    ledger.kv[OLD] = KvEntry(OWNER, 1, 2, 20, False, 1.0)
    assert ledger.outdated(OWNER, (0, 1, ())) == [OLD] and ledger.outdated(OTHER, (0, 1, ())) == []
    assert ledger.outdated(OWNER, (1, 2, ())) != [OLD] and OLD in ledger.outdated(OWNER, (1, 2, (0, 4)))


def test_what_is_gone_is_dropped_once(ledger: Ledger) -> None:
    assert ledger.drop_kv(OLD) == [DropKv(OLD)] and ledger.drop_kv(OLD) == []
    ledger.rest(OLD, 5.0)
    assert OLD not in ledger.kv and ledger.used_bytes == 80
