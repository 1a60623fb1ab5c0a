"""Hidden states between the stages of a pipeline: into a step, and out of it."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt

from swarm.cluster.effects import SessionRows, StepOutput
from swarm.engine.decoder import Decoder, Rows
from swarm.wire.records import TensorInfo

F32 = npt.NDArray[np.float32]


def outputs_of_stage(decoder: Decoder, batch: list[tuple[SessionRows, Rows]]) -> list[StepOutput]:
    """A step of a stage that is not the last: a frame for each session."""
    hidden = decoder.step_hidden([ready for _, ready in batch])  # (tokens, hidden) of all
    if len(batch) == 1:
        return [output_of(hidden)]
    ends = accumulate(len(ready.tokens) for _, ready in batch)
    return [output_of(hidden[end - len(ready.tokens) : end]) for end, (_, ready) in zip(ends, batch, strict=True)]


def output_of(hidden: F32) -> StepOutput:
    """Hidden states float32 (tokens, hidden) for the next stage."""
    return StepOutput(hidden.data.cast("B"), TensorInfo("f32", hidden.shape))


def activations(rows: SessionRows, decoder: Decoder) -> F32:
    """The activations that came from the stage before: float32 (tokens, hidden)."""
    if rows.frame is None or len(rows.frame) != 4 * len(rows.ids) * decoder.spec.hidden:
        raise ValueError(f"activations of {len(rows.frame or b'')} bytes do not fit {len(rows.ids)} positions")
    hidden = np.frombuffer(rows.frame, np.float32).reshape(len(rows.ids), decoder.spec.hidden)
    return hidden if hidden.flags.aligned else hidden.copy()  # a frame may lie anywhere in a message
