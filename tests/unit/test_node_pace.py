"""Devices beat fast while anybody has something to do, and slowly while nobody has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from swarm import limits
from swarm.node.pace import Pace
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Heartbeat
from swarm.wire.records import NodeState
from tests.helpers.one_node import one_node

OTHER, BOOT = PeerId("ab" * 16), BootId("01" * 8)


def test_a_device_slows_down_when_nothing_has_happened_for_a_while_and_hurries_at_once() -> None:
    pace = Pace(100.0)
    assert pace.beat_s(101.0) == limits.HEARTBEAT_INTERVAL_S
    later = 100.0 + limits.IDLE_AFTER_S
    assert pace.beat_s(later) == limits.IDLE_HEARTBEAT_S and pace.look_s(later) > limits.HEARTBEAT_INTERVAL_S
    assert pace.catalog_s(later) == limits.IDLE_CATALOG_INTERVAL_S
    pace.happened(later)
    assert pace.beat_s(later + 1) == limits.HEARTBEAT_INTERVAL_S and pace.catalog_s(later) == limits.CATALOG_INTERVAL_S


def test_a_device_that_has_something_to_do_makes_the_others_beat_fast(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            node._pace._active_at -= 2 * limits.IDLE_AFTER_S
            node._look_around()
            state = node.status.state()
            assert state.beat_s == limits.IDLE_HEARTBEAT_S and not state.active
            node._driver.act(lambda core, now: core.peer_up(OTHER, BOOT, "pi", now))
            node._on_heartbeat(OTHER, Heartbeat(1, 0, 0, 0, NodeState(active=True)))
            state = node.status.state()
            assert state.beat_s == limits.HEARTBEAT_INTERVAL_S and not state.active, "it only goes along"

    asyncio.run(story())


@pytest.mark.parametrize("beat_s", [0.0, limits.HEARTBEAT_INTERVAL_S / 2, limits.MAX_HEARTBEAT_S + 1])
def test_what_a_heartbeat_may_say_is_bounded(beat_s: float) -> None:
    said = [0, 0.0, 0, 0, 0.0, False, 1.0]
    assert msgspec.convert([*said, limits.MAX_HEARTBEAT_S], NodeState).beat_s == limits.MAX_HEARTBEAT_S
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert([*said, beat_s], NodeState)
