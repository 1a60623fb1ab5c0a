"""Stages that this device is a member of: opened with the others, a step ended, closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest

from swarm.cluster.effects import AbortStage, CloseStage, OpenStage, StageId
from swarm.errors import StageLost
from swarm.kernels import _native
from swarm.net.slices import StageListener
from swarm.node.stages import STAGE_PORT, OpenedStage, Stages, open_stage_listener
from swarm.wire.ids import PeerId
from tests.helpers.stages import add_up, together

MEMBERS = tuple(PeerId(f"{i:032x}") for i in (1, 2, 3))
STAGE = StageId(MEMBERS[0], 7, 0)


@pytest.fixture
def devices() -> Iterator[list[Stages]]:
    """Three of them, before anything is open."""
    names = {peer: (f"node{i}", "127.0.0.1") for i, peer in enumerate(MEMBERS)}
    made = [Stages(StageListener("127.0.0.1", 0), names.__getitem__) for _ in MEMBERS]
    yield made
    for stages in made:
        stages.stop()


def open_all(devices: list[Stages], secret: bytes = bytes(32)) -> list[OpenedStage]:
    ports = tuple(stages.port for stages in devices)
    for i, stages in enumerate(devices):
        stages.open(OpenStage(STAGE, MEMBERS, ports, i, secret))
    found = [stages.get(STAGE) for stages in devices]
    assert None not in found
    return [stage for stage in found if stage is not None]


def test_members_meet_and_the_first_one_leads(devices: list[Stages]) -> None:
    opened = open_all(devices)
    assert [stage.leads for stage in opened] == [True, False, False]
    assert all(isinstance(native, _native.Stage) for native in together(lambda i: opened[i].meet(), 3))
    assert [opened[0].peer(i) for i in (-1, 0, 1, 2)] == [None, None, MEMBERS[1], MEMBERS[2]], "never this device"


@pytest.mark.parametrize(("lost", "guilty"), [(MEMBERS[2], 2), (None, 1)], ids=["another", "we"])
def test_a_step_that_cannot_be_ends_for_all_and_names_who_was_missing(
    devices: list[Stages], lost: PeerId | None, guilty: int
) -> None:
    opened = open_all(devices)
    natives = together(lambda i: opened[i].meet(), 3)
    devices[1].abort(AbortStage(STAGE, 1, "its heartbeats ended", lost))
    natives[0].reserve(32, 1)
    natives[0].begin(1)
    with pytest.raises(StageLost, match="its heartbeats ended") as caught:
        add_up(natives[0], np.zeros((1, 32), np.int64))
    assert caught.value.member == guilty and not caught.value.stage_over


def test_what_is_closed_is_not_there_and_can_be_opened_again(devices: list[Stages]) -> None:
    opened = open_all(devices)
    together(lambda i: opened[i].meet(), 3)
    for stages in devices:
        stages.close(CloseStage(STAGE))
        stages.close(CloseStage(STAGE))  # what is not open is closed
        stages.abort(AbortStage(STAGE, 1, "too late"))
        assert stages.get(STAGE) is None
    again = open_all(devices, bytes([1]) * 32)
    together(lambda i: again[i].meet(), 3)


def test_the_port_is_beside_the_main_one_or_any() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        listener = open_stage_listener(port - STAGE_PORT)
        assert listener.port not in (0, port)
        listener.close()
    beside = open_stage_listener(port - STAGE_PORT)
    assert beside.port == port
    beside.close()
