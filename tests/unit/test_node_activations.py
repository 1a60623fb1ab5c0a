"""Hidden states into a step, and out of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from swarm.cluster.effects import SessionRows
from swarm.node.activations import activations, output_of, outputs_of_stage
from swarm.wire.ids import SessionId

HIDDEN = np.arange(12, dtype=np.float32).reshape(3, 4)
DECODER: Any = SimpleNamespace(spec=SimpleNamespace(hidden=4), step_hidden=lambda rows: HIDDEN)


def rows(n: int, frame: bytes | memoryview | None) -> SessionRows:
    return SessionRows(SessionId("a" * 32), 0, (1,) * n, False, frame)


def test_what_a_stage_passes_on_is_what_the_next_one_takes() -> None:
    sent = output_of(HIDDEN)
    assert sent.info is not None and sent.info.shape == (3, 4) and sent.frame is not None
    assert np.array_equal(activations(rows(3, bytes(sent.frame)), DECODER), HIDDEN)
    moved = memoryview(b"x" + bytes(sent.frame))[1:]
    assert np.array_equal(activations(rows(3, moved), DECODER), HIDDEN), "wherever it lies"


@pytest.mark.parametrize("frame", [None, b"", bytes(47)])
def test_a_frame_of_another_size_is_refused(frame: bytes | None) -> None:
    with pytest.raises(ValueError, match="do not fit 3 positions"):
        activations(rows(3, frame), DECODER)


def test_each_session_of_a_step_gets_its_rows() -> None:
    batch: Any = [(None, SimpleNamespace(tokens=(1, 2))), (None, SimpleNamespace(tokens=(3,)))]
    first, second = outputs_of_stage(DECODER, batch)
    assert bytes(first.frame or b"") == HIDDEN[:2].tobytes() and bytes(second.frame or b"") == HIDDEN[2:].tobytes()
