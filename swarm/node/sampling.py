"""How tokens are chosen, as it travels and as the engine takes it."""

from __future__ import annotations

from dataclasses import fields

from swarm.engine.sampling import SamplingParams
from swarm.wire.records import Sampling, TokenBias

SAMPLING_FIELDS = tuple(field.name for field in fields(SamplingParams))


def params_of(sampling: Sampling) -> SamplingParams:
    """What travelled, as the engine takes it."""
    values = {name: getattr(sampling, name) for name in SAMPLING_FIELDS}
    return SamplingParams(**{**values, "logit_bias": tuple((bias.token, bias.value) for bias in sampling.logit_bias)})


def sampling_of(params: SamplingParams) -> Sampling:
    """The same the other way; a greedy answer needs no seed."""
    values = {name: getattr(params, name) for name in SAMPLING_FIELDS}
    bias = tuple(TokenBias(token, value) for token, value in params.logit_bias)
    return Sampling(**{**values, "seed": params.seed or 0, "logit_bias": bias})
