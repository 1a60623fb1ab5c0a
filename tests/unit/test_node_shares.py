"""What one device brings of a model, on a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.config import HubSettings
from swarm.node.shares import Share
from swarm.store.chunks import ChunkStore
from tests.helpers.hub import StandInHub
from tests.helpers.nodes import wait_for
from tests.helpers.pulls import plan_of
from tests.helpers.tiny import make_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "air.gguf", "air-wide", "Q8_0")


@pytest.fixture
def hub(model: Path) -> Iterator[StandInHub]:
    with StandInHub.of({"u/Tiny-GGUF": {model.name: model.read_bytes()}}) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChunkStore]:
    opened = ChunkStore(tmp_path / "store")
    yield opened
    opened.close()


def test_its_units_come_and_their_hashes_are_told_once(model: Path, hub: StandInHub, store: ChunkStore) -> None:
    share = Share(plan_of(model), store, HubSettings(hub.endpoint))
    share.bring([0, 2, 99999])
    wait_for(lambda: share.is_done or bool(share.error), "the units to come")
    assert share.error == ""
    wanted = [share.plan.units[0], share.plan.units[2]]
    assert share.done_bytes == sum(unit.end - unit.start for unit in wanted) == hub.sent_bytes()
    assert {chunk for chunk, _ in share.news(10**6)} == {chunk for unit in wanted for chunk in unit.chunks}
    assert share.news(10**6) == []
    share.bring([0])
    assert {chunk for chunk, _ in share.news(10**6)} == set(wanted[0].chunks), "who asks again may have forgotten"
    share.stop()
    share.gathering.close()


def test_what_cannot_be_brought_is_said(model: Path, hub: StandInHub, store: ChunkStore) -> None:
    hub.repos["u/Tiny-GGUF"].gated = True
    share = Share(plan_of(model), store, HubSettings(hub.endpoint))
    share.bring([0])
    wait_for(lambda: bool(share.error), "the refusal")
    assert "only for those who have asked for it" in share.error
    share.stop()
    share.gathering.close()


def test_it_stops_when_nobody_wants_the_rest(model: Path, hub: StandInHub, store: ChunkStore) -> None:
    hub.faults.bytes_per_s = 20_000.0
    share = Share(plan_of(model), store, HubSettings(hub.endpoint))
    share.bring(range(len(share.plan.units)))
    wait_for(lambda: hub.sent_bytes() > 0, "the first bytes")
    share.stop()
    assert not share.is_done and share.error == ""
    share.gathering.close()
