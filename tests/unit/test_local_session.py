"""Generation against a decoder without weights: reuse of the cache, batches, limits, endings."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.answers import EndReason
from swarm.engine.draft import DraftModel
from swarm.engine.sampling import GREEDY, SamplingParams
from swarm.errors import ContextFull, TextError
from swarm.local.session import LocalSession, Order, TokenRun
from tests.helpers.fake_decoder import F32, FakeDecoder, FakeKV
from tests.helpers.guesses import FixedTimes


def generated(session: LocalSession, prompt: list[int], **options: object) -> tuple[list[int], EndReason | None]:
    run = TokenRun(session, Order(prompt, **{"params": GREEDY, **options}))  # type: ignore[arg-type]
    return list(run), run.ended


def test_an_answer_ends_at_an_end_token_which_is_not_part_of_it() -> None:
    session = LocalSession(FakeDecoder(script={3: 7, 4: 8, 5: 9}))
    assert generated(session, [1, 2, 3], end_tokens={9}) == ([7, 8], EndReason.STOP)
    assert session.ids == [1, 2, 3, 7, 8]


def test_an_answer_ends_after_max_tokens() -> None:
    decoder = FakeDecoder()
    tokens, finish = generated(LocalSession(decoder), [1], max_tokens=3)
    assert (len(tokens), finish) == (3, EndReason.LENGTH)
    assert len(decoder.steps) == 3  # the last token needs no step
    assert generated(LocalSession(decoder), [1], max_tokens=0) == ([], EndReason.LENGTH)


def test_an_answer_ends_before_the_context_overflows() -> None:
    decoder = FakeDecoder(context=10)
    tokens, finish = generated(LocalSession(decoder), [1, 2, 3])
    assert finish == EndReason.CONTEXT
    assert len(tokens) + 3 <= 10
    assert decoder.kvs[0].capacity == 10


@pytest.mark.parametrize("size", [10, 11, 500])
def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_computed(size: int) -> None:
    decoder = FakeDecoder(context=10)
    with pytest.raises(ContextFull, match=f"{size} tokens and the context holds 10; start anew"):
        generated(LocalSession(decoder), [1] * size)
    assert not decoder.steps


def test_a_prompt_that_just_fits_gets_one_token() -> None:
    tokens, finish = generated(LocalSession(FakeDecoder(context=10)), [1] * 9)
    assert (len(tokens), finish) == (1, EndReason.CONTEXT)


@pytest.mark.parametrize(("prompt", "why"), [([], "empty"), ([1, -2], "-2 is not a token")])
def test_what_is_no_prompt_is_refused(prompt: list[int], why: str) -> None:
    with pytest.raises(TextError, match=why):
        generated(LocalSession(FakeDecoder()), prompt)


class LongDecoder(FakeDecoder):
    """Takes ten tokens of a prompt at once, in three pieces of work."""

    held_tokens = 10

    def prompt(self, ids: np.ndarray, kv: FakeKV) -> Generator[float, None, F32]:
        yield 0.3
        yield 0.6
        return self.forward(ids, kv)


def test_a_prompt_goes_through_a_decoder_that_takes_more_at_once_with_progress() -> None:
    decoder, seen = LongDecoder(), []
    session = LocalSession(decoder, batch_tokens=4, long=decoder)
    order = Order(list(range(14)), GREEDY, max_tokens=3)
    tokens = list(TokenRun(session, order, lambda *p: seen.append(p)))
    assert [len(step) for step in decoder.steps] == [10, 4, 1, 1]
    assert seen == [(3, 14), (6, 14), (10, 14), (14, 14)]
    assert tokens == list(TokenRun(LocalSession(FakeDecoder()), order))


def test_a_long_prompt_can_be_cancelled_between_its_pieces_and_asked_again() -> None:
    decoder = LongDecoder()
    session = LocalSession(decoder, batch_tokens=4, long=decoder)
    run = TokenRun(session, Order(list(range(10)), GREEDY, max_tokens=1), lambda done, n: run.cancel())
    assert (list(run), run.ended) == ([], EndReason.CANCELLED)
    assert not decoder.steps and session.ids == [] and session.kv.length == 0
    again = TokenRun(session, Order(list(range(10)), GREEDY, max_tokens=1))
    assert len(list(again)) == 1


def test_a_prompt_is_computed_in_batches_with_progress() -> None:
    decoder = FakeDecoder()
    seen: list[tuple[int, int]] = []
    run = TokenRun(
        LocalSession(decoder, batch_tokens=4), Order(list(range(10)), GREEDY, max_tokens=1), lambda *p: seen.append(p)
    )
    list(run)
    assert [len(step) for step in decoder.steps] == [4, 4, 2]
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_the_next_turn_computes_only_what_is_new() -> None:
    decoder = FakeDecoder()
    session = LocalSession(decoder)
    answer, _ = generated(session, [1, 2, 3], max_tokens=4)
    decoder.steps.clear()
    generated(session, [1, 2, 3, *answer[:3], 5, 6], max_tokens=1)
    assert decoder.steps == [[5, 6]]


def test_an_edited_history_is_computed_from_the_first_change_on() -> None:
    decoder = FakeDecoder()
    session = LocalSession(decoder)
    generated(session, [1, 2, 3, 4, 5], max_tokens=1)
    decoder.steps.clear()
    generated(session, [1, 2, 9, 4, 5], max_tokens=1)
    assert decoder.steps == [[9, 4, 5]]
    assert decoder.kvs[0].ids == [1, 2, 9, 4, 5]


def test_the_same_prompt_again_computes_its_last_token_only() -> None:
    decoder = FakeDecoder()
    session = LocalSession(decoder)
    first = generated(session, [1, 2, 3], max_tokens=1)
    decoder.steps.clear()
    assert generated(session, [1, 2, 3], max_tokens=1) == first
    assert decoder.steps == [[3]]


prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=5)


@given(turns=prompts, batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_reuse_and_batches_never_change_an_answer(turns: list[list[int]], batch: int, seed: int) -> None:
    params = SamplingParams(seed=seed, repetition_penalty=1.2)
    session = LocalSession(FakeDecoder(vocab=3), batch_tokens=batch)
    for prompt in turns:
        fresh = generated(LocalSession(FakeDecoder(vocab=3)), prompt, params=params, max_tokens=5)
        assert generated(session, prompt, params=params, max_tokens=5) == fresh
        kv = session.decoder.kvs[0]  # type: ignore[attr-defined]
        assert kv.ids == session.ids


def test_a_session_goes_on_after_any_token_as_if_it_had_been_given_them() -> None:
    """A session is its ids, parameters and seed: another device with the same ids says the rest."""
    params = SamplingParams(seed=5)
    whole, _ = generated(LocalSession(FakeDecoder()), [1, 2], params=params, max_tokens=8)
    for n in range(8):
        rest, _ = generated(LocalSession(FakeDecoder()), [1, 2, *whole[:n]], params=params, max_tokens=8 - n)
        assert whole[:n] + rest == whole


def test_cancel_ends_an_answer_between_tokens() -> None:
    session = LocalSession(FakeDecoder())
    run = TokenRun(session, Order([1], GREEDY))
    tokens = []
    for token in run:
        tokens.append(token)
        if len(tokens) == 3:
            run.cancel()
    assert (len(tokens), run.ended) == (3, EndReason.CANCELLED)
    assert session.ids == [1, *tokens[:2]]


def test_cancel_ends_a_prompt_between_batches() -> None:
    decoder = FakeDecoder()
    run = TokenRun(
        LocalSession(decoder, batch_tokens=2),
        Order([1] * 9, GREEDY),
        lambda done, _: run.cancel() if done == 4 else None,
    )
    assert list(run) == []
    assert run.ended == EndReason.CANCELLED
    assert len(decoder.steps) == 2


@pytest.mark.parametrize("hook", ["before_step", "after_step"])
def test_an_interrupted_step_leaves_a_session_that_agrees_with_its_cache(hook: str) -> None:
    decoder = FakeDecoder()
    session = LocalSession(decoder, batch_tokens=2)
    generated(session, [1, 2, 3, 4], max_tokens=1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    setattr(decoder, hook, interrupt)
    with pytest.raises(KeyboardInterrupt):
        generated(session, [1, 2, 9, 9], max_tokens=1)
    assert session.ids == decoder.kvs[0].ids == [1, 2]
    setattr(decoder, hook, lambda: None)
    fresh = generated(LocalSession(FakeDecoder()), [1, 2, 9, 9], max_tokens=5)
    assert generated(session, [1, 2, 9, 9], max_tokens=5) == fresh


def test_penalties_see_the_prompt_and_the_answer() -> None:
    plain, _ = generated(LocalSession(FakeDecoder(script={})), [0], params=GREEDY, max_tokens=3)
    assert plain == [0, 0, 0]
    params = SamplingParams(temperature=0, presence_penalty=100)
    assert generated(LocalSession(FakeDecoder(script={})), [0], params=params, max_tokens=3)[0] == [1, 2, 3]


def guessing(decoder: FakeDecoder) -> LocalSession:
    """A session for which a row more costs nothing."""
    session = LocalSession(decoder)
    session.guesser.times = FixedTimes()
    return session


ROUND = {n: (1, 2, 3, 4)[n % 4] for n in range(60)}


def test_an_answer_that_repeats_takes_fewer_steps_and_is_the_same() -> None:
    decoder = FakeDecoder(script=ROUND)
    run = TokenRun(guessing(decoder), Order([1, 2], GREEDY, max_tokens=50))
    tokens = list(run)
    assert tokens == generated(LocalSession(FakeDecoder(script=ROUND)), [1, 2], max_tokens=50, guess=False)[0]
    assert len(decoder.steps) < 15
    assert run.n_guessed == sum(len(step) - 1 for step in decoder.steps[1:]) - (run.n_guesses - run.n_guessed)
    assert run.n_guessed > 35


def test_without_guessing_each_step_is_one_token() -> None:
    decoder = FakeDecoder(script=ROUND)
    generated(guessing(decoder), [1, 2], max_tokens=50, guess=False)
    assert {len(step) for step in decoder.steps[1:]} == {1}


ways_to_choose = st.builds(
    SamplingParams,
    seed=st.integers(0, 99),
    temperature=st.sampled_from((0.0, 0.2, 0.8)),
    repetition_penalty=st.sampled_from((1.0, 1.3)),
    presence_penalty=st.sampled_from((0.0, 1.0)),
    repeat_last_n=st.sampled_from((5, 64)),
)


@given(
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    params=ways_to_choose,
    limits=st.tuples(st.integers(1, 70), st.integers(8, 64)),
    is_formed=st.booleans(),
    ends=st.sampled_from(((), (2,))),
    draft_memory=st.sampled_from((None, 1, 2)),
)
def test_guesses_never_change_an_answer(  # noqa: PLR0917  # each is a choice of its own
    prompt: list[int],
    params: SamplingParams,
    limits: tuple[int, int],
    is_formed: bool,
    ends: tuple[int, ...],
    draft_memory: int | None,
) -> None:
    """Whatever chooses its tokens, and wherever it ends: at an end token, after so many, where the context is full.

    draft_memory: of a draft, how many ids it looks at; 2 is what the model does. None: no draft.
    """
    max_tokens, context = limits
    prompt = prompt[: context - 2]

    def allowed(ids: list[int], n: int) -> np.ndarray:
        return np.arange(n) != (sum(ids) + len(ids)) % 3  # depends on all of the answer so far

    options = {
        "params": params,
        "max_tokens": max_tokens,
        "allowed": allowed if is_formed else None,
        "end_tokens": ends,
    }
    plain, quick = (FakeDecoder(vocab=3, context=context, memory=2) for _ in range(2))
    session = guessing(quick)
    if draft_memory is not None:
        session.draft = DraftModel(FakeDecoder(vocab=3, context=30, memory=draft_memory), vocab=3)
    for turn in ([], [1, 0]):  # the second turn goes on in the same cache
        ids = [*prompt, *turn][: context - 2]
        want = generated(LocalSession(plain), ids, guess=False, **options)
        assert generated(session, ids, **options) == want
        assert quick.kvs[0].ids == session.ids


def test_what_a_form_asks_for_goes_along_and_is_checked() -> None:
    script = {n: n for n in range(60)}  # a text that never repeats
    decoder = FakeDecoder(vocab=60, script=script)

    def forced(ids: list[int]) -> list[int]:
        n = 2 + len(ids)
        return [n, n + 1, 0] if n % 5 == 0 else []  # two are right

    run = TokenRun(guessing(decoder), Order([0, 1], GREEDY, max_tokens=40, forced=forced))
    assert list(run) == list(range(2, 42))
    assert (run.n_guesses, run.n_guessed) == (22, 15)  # the last time there is room for one


def test_a_draft_that_chooses_as_the_model_does_is_right_whatever_the_temperature() -> None:
    """It draws the same random numbers."""
    decoder = FakeDecoder(context=200)
    session = guessing(decoder)
    session.draft = DraftModel(FakeDecoder(context=200), vocab=50)
    run = TokenRun(session, Order([1, 2], SamplingParams(temperature=1.5, seed=3), max_tokens=60))
    tokens = list(run)
    assert run.n_guessed == run.n_guesses > 40 and len(decoder.steps) < 20
    want, _ = generated(
        LocalSession(FakeDecoder(context=200)),
        [1, 2],
        params=SamplingParams(temperature=1.5, seed=3),
        max_tokens=60,
        guess=False,
    )
    assert tokens == want


def test_guessing_is_given_up_where_the_reader_stops() -> None:
    decoder = FakeDecoder(script=ROUND)
    session = guessing(decoder)
    run = TokenRun(session, Order([1, 2] * 4, GREEDY))
    for i, _ in enumerate(run):
        if i == 20:
            run.cancel()
    assert run.ended == EndReason.CANCELLED
    assert session.ids == decoder.kvs[0].ids
