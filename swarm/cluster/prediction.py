"""What a placement is expected to do: the arithmetic of cost.py over all its stages.

The formulas stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.cluster.cost import FLOAT_BYTES, Device, LinkOf, ModelCost, exchanges_s, link_between, step_s
from swarm.cluster.pipeline import Stage, hops, is_cut

TOKEN_BYTES = 64  # a token message: ids, epoch, position


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a placement is expected to do; seconds unless said otherwise."""

    token_s: float  # one decode step, round the ring
    first_token_s: float  # for a prompt of `prompt` tokens
    prompt: int
    stage_s: tuple[float, ...]  # decode step of each stage
    hop_s: tuple[float, ...]  # stage i -> stage i + 1, the last one back to the first; empty with one stage
    overhead_s: float  # the part of stage_s that is neither reading nor computing
    exchange_s: float = 0.0  # the part of stage_s in which devices of a stage bring each other their sums
    sessions: int = 1  # so many chats at once,
    round_s: float = 0.0  # in which each of them gets a token; 0: not asked

    @property
    def tokens_per_s(self) -> float:
        return 1.0 / self.token_s

    @property
    def pace(self) -> float:
        """Tokens a second of all chats that were asked for."""
        return self.busy_tokens_per_s if self.round_s else self.tokens_per_s

    @property
    def busy_tokens_per_s(self) -> float:
        """Of all chats at once together; where nobody said how many, of as many as stages."""
        return self.sessions / self.round_s if self.round_s else 1.0 / max(self.stage_s)


def predict(
    model: ModelCost,
    stages: Sequence[Stage[Device]],
    link: LinkOf,
    *,
    context: int,
    prompt: int,
    batch: int,
    sessions: int = 1,
) -> Prediction:
    """Predict a placement; every pair of neighbouring stages must reach each other (ValueError otherwise)."""
    decode = tuple(step_s(model, stage, context, link=link) for stage in stages)
    ring = ring_s(model, stages, link, 1)
    overhead = sum(max(stage.n_layers * d.layer_s + d.step_s for d in stage.members) for stage in stages)
    return Prediction(
        token_s=sum(decode) + sum(ring),
        first_token_s=prefill_s(model, stages, link, prompt, batch),
        prompt=prompt,
        stage_s=decode,
        hop_s=ring,
        overhead_s=overhead,
        exchange_s=sum(exchanges_s(model, stage, 1, link) for stage in stages if is_cut(stage)),
        sessions=sessions,
        round_s=round_s(model, stages, link, context, sessions) if sessions > 1 else 0.0,
    )


def decode_s(model: ModelCost, stages: Sequence[Stage[Device]], link: LinkOf, context: int) -> float:
    """Seconds of one decode step, round the ring."""
    return sum(step_s(model, stage, context, link=link) for stage in stages) + sum(ring_s(model, stages, link, 1))


def round_s(model: ModelCost, stages: Sequence[Stage[Device]], link: LinkOf, context: int, sessions: int) -> float:
    """Seconds in which each of so many sessions gets a token.

    They go round in as many groups as there are stages, a step of each stage for each group: the slowest stage is at
    work all the time, or the ring is longer than that.
    """
    groups = min(len(stages), sessions)
    rows = -(-sessions // groups)
    steps = [step_s(model, stage, context, rows, link, sessions=rows) for stage in stages]
    return max(sum(steps) + sum(ring_s(model, stages, link, rows)), groups * max(steps))


def ring_s(model: ModelCost, stages: Sequence[Stage[Device]], link: LinkOf, n_tokens: int) -> tuple[float, ...]:
    """The hops of one step: activations forward, and the token from the last stage back to the first."""
    links = [link_between(link, a, b) for a, b in hops(stages)]
    forward = [way.hop_s(n_tokens * model.hidden * FLOAT_BYTES) for way in links[:-1]]
    return (*forward, *(way.hop_s(TOKEN_BYTES) for way in links[-1:]))


def prefill_s(model: ModelCost, stages: Sequence[Stage[Device]], link: LinkOf, prompt: int, batch: int) -> float:
    """Seconds until the first token of a prompt: batches flow through the stages one behind the other."""
    sizes = [batch] * (prompt // batch) + ([prompt % batch] if prompt % batch else [])
    done = [0.0 for _ in stages]  # when each stage finished the batch before
    seen = 0
    for size in sizes:
        arrival = 0.0
        ring = ring_s(model, stages, link, size)
        for i, stage in enumerate(stages):
            done[i] = max(arrival, done[i]) + step_s(model, stage, seen + size // 2, size, link)
            arrival = done[i] + (ring[i] if ring else 0.0)
        seen += size
    return done[-1]
