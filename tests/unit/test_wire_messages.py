"""The list of messages: numbers, lanes, readers."""

from __future__ import annotations

from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import (
    BY_NUMBER,
    MESSAGES,
    Lane,
    Message,
    PlacementCommit,
    Rekey,
    number_of,
)
from swarm.wire.records import Placement


def test_every_message_is_in_the_list_once_under_its_number() -> None:
    assert set(MESSAGES) == set(Message.__subclasses__())
    assert [BY_NUMBER[number_of(kind)] for kind in MESSAGES] == list(MESSAGES)


def test_only_raw_frames_of_chunks_and_probes_take_the_bulk_lane() -> None:
    bulk = {kind.__name__ for kind in MESSAGES if kind.LANE is Lane.BULK}
    assert bulk == {"LinkProbe", "ManifestReply", "ChunkReply", "PullBegin", "PullShare", "PullReport"}


def test_a_key_is_not_in_the_text_of_a_message() -> None:
    placement = Placement(ModelId("0" * 64), 1, PeerId("a" * 32), 0, "f16", ())
    assert "secret" not in repr(PlacementCommit(placement, b"secret" * 5 + b"!!", (7419,)))
    assert repr(Rekey(3, b"secret" * 5 + b"!!")) == "Rekey(generation=3)"
