"""What travels of sampling parameters."""

from __future__ import annotations

import pytest

from swarm.engine.sampling import SamplingParams
from swarm.node.sampling import params_of, sampling_of


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(0.3, 5, 0.8, 0.1, 1.2, 30, 0.5, -0.5, 2**62),
        SamplingParams(repetition_penalty=1.5, repeat_last_n=-1, seed=0),
        SamplingParams(repetition_penalty=1.5, repeat_last_n=0, seed=4),
    ],
)
def test_parameters_arrive_as_they_were_sent(params: SamplingParams) -> None:
    assert params_of(sampling_of(params)) == params
