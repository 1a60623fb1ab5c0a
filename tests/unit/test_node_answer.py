"""An answer as its reader gets it, from a made-up core: text, stops, KV reservations, quiet lines, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.answers import EndReason, ExpertUse, Piece
from swarm.cluster.effects import Emit, Ended, Notice, Unsay
from swarm.cluster.session import AnswerRequest
from swarm.engine.sampling import SamplingParams
from swarm.errors import DoesNotFit, FormDeadEnd, SwarmNetworkError
from swarm.node.answer import (
    KV_RESERVATIONS,
    MIN_RESERVED_TOKENS,
    Answer,
    Beginning,
    Note,
    Port,
    Question,
    next_reservation,
)
from swarm.text.forms import Form, Speaker, grammar_of
from swarm.text.model_text import ModelText, Prompt
from swarm.text.tokenizer import Tokenizer
from swarm.text.tools import AUTO, Tools
from swarm.wire.ids import ModelId, SessionId
from tests.helpers.tiny_text import VOCAB, text_metadata

SESSION = SessionId("ab" * 16)
A = VOCAB.index("a")


class FakeCore:
    """Answers every ask with the tokens a, b, c ... and ends as it is told to."""

    def __init__(self, end: Callable[[AnswerRequest], Ended], tokens: int = 1000) -> None:
        self.end, self.left = end, tokens
        self.asks: list[AnswerRequest] = []
        self.cancelled = self.closed = 0
        self.answer: Answer | None = None
        self.settling = False

    def ask(self, ask: AnswerRequest) -> None:
        self.asks.append(ask)
        assert self.answer is not None
        for i in range(min(ask.max_tokens, self.left)):
            position = len(ask.ids) + i
            self.answer.deliver(Emit(SESSION, position, A + position % 26))
        self.left -= min(ask.max_tokens, self.left)
        self.answer.deliver(self.end(ask))

    def cancel(self, session: SessionId) -> None:
        self.cancelled += 1
        assert self.answer is not None
        self.answer.deliver(Ended(session, EndReason.CANCELLED))

    def close(self, session: SessionId) -> None:
        self.closed += 1


def answer(
    core: FakeCore,
    *,
    context: int = 4096,
    n_prompt: int = 10,
    prompt: Prompt | None = None,
    expert_use: Callable[[], ExpertUse] = ExpertUse,
    **question: Any,
) -> Answer:
    tokenizer = Tokenizer.from_metadata(text_metadata("llama"))
    text = ModelText("m", tokenizer, None, len(VOCAB))
    model: Any = SimpleNamespace(id=ModelId("cd" * 32), tokenizer=tokenizer, text=text)
    made = Answer(
        Port(core.ask, core.cancel, core.close, is_settling=lambda: core.settling, expert_use=expert_use),
        model,
        Question("m", prompt="p", **question),
        prompt or Prompt([1] * n_prompt),
        beginning=Beginning(SESSION),
        context=context,
    )
    core.answer = made
    return made


def heard(made: Answer) -> tuple[str, list[str]]:
    async def read() -> tuple[str, list[str]]:
        text, notes = "", []
        async for event in made.events():
            if isinstance(event, Piece):
                text += event.text
            elif isinstance(event, Note):
                notes.append(event.text)
        return text, notes

    return asyncio.run(read())


def length(ask: AnswerRequest) -> Ended:
    return Ended(SESSION, EndReason.LENGTH)


def test_an_answer_ends_after_as_many_tokens_as_were_asked_for() -> None:
    core = FakeCore(length)
    made = answer(core, max_tokens=5)
    assert heard(made)[0] == "klmno"
    assert made.finish_reason == "length" and made.stats.generated_tokens == 5
    assert (len(core.asks), core.closed) == (1, 1)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (ExpertUse(5, 5, 50, 1.0), ExpertUse(9, 6, 60, 1.5), ExpertUse(4, 1, 10, 0.5)),
        (ExpertUse(5, 5, 50, 1.0), ExpertUse(1, 0, 0, 0.0), ExpertUse()),  # the model was loaded anew in between
    ],
)
def test_it_tells_how_experts_were_found_meanwhile(before: ExpertUse, after: ExpertUse, told: ExpertUse) -> None:
    uses = iter([before, after])
    made = answer(FakeCore(length), max_tokens=5, expert_use=lambda: next(uses))
    heard(made)
    assert made.stats.experts == told


def test_an_answer_without_a_limit_goes_on_with_the_next_reservation_until_the_context_is_full() -> None:
    core = FakeCore(length, tokens=10_000)
    made = answer(core, context=2000)
    heard(made)
    assert made.finish_reason == "context" and len(made.tokens) == 1990
    assert [len(ask.ids) + ask.max_tokens for ask in core.asks] == [512, 1024, 2000]
    assert core.asks[1].ids == (*[1] * 10, *made.tokens[:502]), "each one begins with all there is"
    assert len({ask.session for ask in core.asks}) == 1


def test_reservations_leave_room_and_grow() -> None:
    ends = [next_reservation(n) for n in range(40_000)]
    assert all(end - n >= MIN_RESERVED_TOKENS for n, end in enumerate(ends)) and ends == sorted(ends)
    assert ends[0] == KV_RESERVATIONS[0] and ends[-1] < 2 * 40_000 + MIN_RESERVED_TOKENS


def test_an_end_token_ends_it() -> None:
    core = FakeCore(lambda ask: Ended(SESSION, EndReason.STOP), tokens=3)
    made = answer(core)
    assert heard(made)[0] == "klm" and made.finish_reason == "stop"


def test_a_stop_string_cancels_the_rest() -> None:
    core = FakeCore(length)
    made = answer(core, max_tokens=20, stop=["no"])
    assert heard(made)[0] == "klm"
    assert made.finish_reason == "stop" and core.cancelled == 1


def test_quiet_lines_come_in_between() -> None:
    core = FakeCore(length)
    made = answer(core, max_tokens=2)
    made.deliver(Notice(SESSION, "loading the model"))
    assert heard(made) == ("kl", ["loading the model"])


@pytest.mark.parametrize(("missing", "kind"), [(5, DoesNotFit), (0, SwarmNetworkError)])
def test_a_failure_is_an_error_with_its_line(missing: int, kind: type[Exception]) -> None:
    core = FakeCore(lambda ask: Ended(SESSION, EndReason.FAILED, "it needs more memory", missing), tokens=1)
    with pytest.raises(kind, match="it needs more memory"):
        heard(answer(core))
    assert core.closed == 1


def test_right_after_the_start_an_answer_waits_for_devices_that_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [Ended(SESSION, EndReason.FAILED, "it needs more memory", 5), Ended(SESSION, EndReason.STOP)]

    def end(ask: AnswerRequest) -> Ended:
        return ends.pop(0)

    core = FakeCore(end, tokens=0)
    core.settling = True
    monkeypatch.setattr("swarm.node.answer.SETTLE_RETRY_S", 0.0)
    made = answer(core, max_tokens=1)
    heard(made)
    assert len(core.asks) == 2


def test_a_reader_that_stops_reading_cancels_the_answer() -> None:
    core = FakeCore(length)
    made = answer(core, max_tokens=50)

    async def read_one() -> None:
        events = made.events()
        await anext(events)
        await events.aclose()

    asyncio.run(read_one())
    assert (core.cancelled, core.closed) == (1, 1)


def test_every_answer_gets_a_seed_of_its_own_unless_it_has_one() -> None:
    seeds = []
    for params in (SamplingParams(), SamplingParams(), SamplingParams(seed=3)):
        core = FakeCore(length)
        heard(answer(core, max_tokens=1, params=params))
        seeds.append(core.asks[0].sampling.seed)
    assert seeds[2] == 3 and seeds[0] != seeds[1]


@pytest.mark.parametrize(("choices", "fine"), [('["kl", "klm"]', True), ('["xy"]', False), ('["klmn"]', False)])
def test_an_answer_that_breaks_its_form_is_an_error(choices: str, fine: bool) -> None:
    """A device of an older version samples without the grammar; here, k and l, and then it ends."""
    grammar = grammar_of(Form("choice", choices), Tools(()), AUTO, Speaker(None, inside_thought=False, may_think=False))
    core = FakeCore(lambda ask: Ended(SESSION, EndReason.STOP), tokens=2)
    made = answer(core, prompt=Prompt([1] * 10, grammar=grammar))
    if fine:
        assert heard(made)[0] == "kl" and made.finish_reason is EndReason.STOP
        return
    with pytest.raises(SwarmNetworkError, match="does not keep the form"):
        heard(made)
    assert made.finish_reason is EndReason.FAILED and core.closed == 1


def test_a_form_that_leads_nowhere_is_the_fault_of_who_asked() -> None:
    """The device that samples ends the answer there; k, and then it ends."""
    form = Form("lark", 'start: "k" more\nmore: more')
    grammar = grammar_of(form, Tools(()), AUTO, Speaker(None, inside_thought=False, may_think=False))
    core = FakeCore(lambda ask: Ended(SESSION, EndReason.STOP), tokens=1)
    made = answer(core, prompt=Prompt([1] * 10, grammar=grammar))
    with pytest.raises(FormDeadEnd, match="the form of the answer cannot be kept"):
        heard(made)
    assert made.finish_reason is EndReason.FAILED and core.closed == 1


def test_falsified_tokens_that_nobody_has_seen_are_forgotten() -> None:
    """Half a character has no text yet."""
    core = FakeCore(length, tokens=0)
    made = answer(core, max_tokens=2)
    half = VOCAB.index("Ã")
    for news in (Emit(SESSION, 10, A), Emit(SESSION, 11, half), Unsay(SESSION, 11, "den"), Emit(SESSION, 11, A + 1)):
        made.deliver(news)
    core.ask = lambda ask: made.deliver(Ended(SESSION, EndReason.LENGTH))  # type: ignore[method-assign]
    made._port = replace(made._port, ask=core.ask)
    assert heard(made)[0] == "ab"
    assert made.tokens == [A, A + 1]


def test_falsified_text_that_was_seen_ends_the_answer_with_the_name() -> None:
    core = FakeCore(length, tokens=0)
    made = answer(core, max_tokens=5)
    made._port = replace(made._port, ask=lambda ask: None)
    for news in (Emit(SESSION, 10, A), Emit(SESSION, 11, A), Unsay(SESSION, 11, "den-pi")):
        made.deliver(news)
    with pytest.raises(SwarmNetworkError, match=r"the last words .* den-pi computed something else; ask again"):
        heard(made)
    assert made.finish_reason == "failed" and core.cancelled == 1
