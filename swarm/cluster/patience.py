"""How long an answer waits for other devices, and for which: pure arithmetic on what a session knows.

Whatever a session waits for, there is a moment after which somebody else would have been quicker. It depends on what
was planned, and that on figures which are believed only as far as they were seen (conduct.py): so a device that says
it is fast is not waited for long, and one that says it is slow is chosen only where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm import limits
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.prediction import Prediction
from swarm.wire.ids import PeerId


def first_token_s(planned: Prediction | None, n_tokens: int) -> float:
    """How long a reader may wait for the first token of an answer, when `n_tokens` of its prompt are to be read."""
    if planned is None:
        return limits.PATIENCE_S
    return limits.PATIENCE_S + limits.PATIENCE_SLACK * planned.first_token_s * max(n_tokens / planned.prompt, 1.0)


def next_token_s(planned: Prediction | None) -> float:
    """And for each that follows."""
    return limits.PATIENCE_S + (limits.PATIENCE_SLACK * planned.token_s if planned is not None else 0.0)


def is_too_slow(token_s: float, planned: Prediction | None) -> bool:
    """True when tokens come so slowly that somebody cannot be what it said."""
    return planned is not None and token_s > max(limits.SLOW_FACTOR * planned.token_s, limits.SLOW_TOKEN_S)


def broken_between(pipeline: Pipeline, positions: Mapping[PeerId, int], sent: int, me: PeerId) -> set[PeerId]:
    """The devices between which messages do not arrive: either of them may be the reason, but not this one.

    `positions`: how many positions have come in at each; `sent`: how many were given to the first stage.
    """
    before, came = me, sent
    for stage in pipeline.stages:
        peer = stage.leader.peer
        if positions.get(peer, 0) < came:
            return {before, peer} - {me}
        before, came = peer, positions.get(peer, 0)
    return {before} - {me}  # everything came to the last stage, and nothing from it
