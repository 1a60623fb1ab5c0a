"""What slices of the vocabulary tell is enough to sample the token that whole logits give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.engine.candidates import Candidates, all_logits, candidates_of, decode, encode, needs_all, sample_candidates
from swarm.engine.sampling import SamplingParams, sample
from swarm.errors import ModelError, RemoteProtocolError

F32 = np.ndarray[tuple[int], np.dtype[np.float32]]
VOCAB = 300


def told_by_slices(
    logits: F32, cuts: list[int], params: SamplingParams, recent: list[int], *, grammar: bool = False
) -> list[Candidates]:
    """What the devices tell, as it comes out of its encoding."""
    whole = needs_all(params, grammar=grammar)
    told = []
    for first, end in zip([0, *cuts], [*cuts, len(logits)], strict=True):
        own = candidates_of(logits[first:end], params, recent, first, whole=whole)
        told += decode(encode([own]), 1, range(first, end))
    return told


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 2, 40, 400]),
    top_p=st.sampled_from([1.0, 0.9, 0.2]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    repeat_last_n=st.sampled_from([-1, 0, 5]),
    presence_penalty=st.just(0.5),
    seed=st.integers(0, 10_000),
    logit_bias=st.lists(st.tuples(st.integers(0, VOCAB - 1), st.sampled_from([-100.0, 3.0, 100.0])), max_size=3).map(
        tuple
    ),
)
CUTS = st.lists(st.integers(1, VOCAB - 1), unique=True, max_size=4).map(sorted)


@settings(max_examples=400, deadline=None)
@given(params=PARAMS, cuts=CUTS)
def test_the_token_is_that_of_whole_logits(params: SamplingParams, cuts: list[int]) -> None:
    random = np.random.default_rng(params.seed)
    logits = np.round(random.standard_normal(VOCAB) * 3, 1).astype(np.float32)  # many are equal
    recent = random.integers(0, VOCAB, 30).tolist()
    told = told_by_slices(logits, cuts, params, recent)[::-1]
    if needs_all(params, grammar=False):
        assert np.array_equal(all_logits(told), logits)
    else:
        assert sample_candidates(told, params, 7) == sample(logits, params, 7, recent)


def test_a_grammar_and_log_probabilities_see_every_logit() -> None:
    logits = np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32)
    told = told_by_slices(logits, [100, 200], SamplingParams(temperature=1.0, top_k=5), [], grammar=True)
    assert np.array_equal(all_logits(told), logits)
    assert needs_all(SamplingParams(temperature=0.0, n_told=1), grammar=False)
    assert not needs_all(SamplingParams(temperature=0.0), grammar=False)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_told_and_never_sampled(wrong: float) -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[123] = wrong
    params = SamplingParams(temperature=1.0, top_k=5, seed=3)
    with pytest.raises(ModelError, match="position 9"):
        sample_candidates(told_by_slices(logits, [100], params, []), params, 9)


def test_few_are_told() -> None:
    logits = np.random.default_rng(1).standard_normal(150_000).astype(np.float32)
    params = SamplingParams(temperature=1.0, top_k=40, seed=3)
    assert len(encode([candidates_of(logits, params, [], 0, whole=False)])) == 8 + 40 * 8


@given(data=st.binary(max_size=80), n_rows=st.integers(0, 3))
def test_what_a_device_tells_is_of_its_slice_or_refused(data: bytes, n_rows: int) -> None:
    try:
        rows = decode(data, n_rows, range(10, 14))
    except RemoteProtocolError:
        return
    assert len(rows) == n_rows
    assert all(set(row.ids.tolist()) <= set(range(10, 14)) for row in rows)


def test_a_gap_is_refused() -> None:
    parts = [Candidates(np.arange(start, start + 2), np.zeros(2, np.float32), True) for start in (0, 3)]
    with pytest.raises(RemoteProtocolError, match="gap"):
        all_logits(parts)
