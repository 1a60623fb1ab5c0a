"""An entry node whose small model guesses sends every step itself: with what that says, or what the text tells."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from swarm.cluster.drafting import Drafting
from swarm.cluster.effects import Effect, Propose, Send
from swarm.cluster.session import AnswerRequest, Phase, Session
from swarm.guessing import MAX_DRAFTED
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import Token, Tokens
from swarm.wire.records import Placement, Shard
from tests.helpers import toy
from tests.helpers.guesses import FixedTimes

ME, OTHER = PeerId("a" * 32), PeerId("b" * 32)
S1, MODEL = SessionId("c" * 32), ModelId("1" * 64)
COST = replace(toy.model_cost(4, 100, 1), vocabulary=100)
END_ID = 9


class Story:
    """A session of three ids whose answer comes from OTHER, and how the small model follows it."""

    def __init__(self, ids: tuple[int, ...] = (1, 2, 3), n_tokens: int = 50) -> None:
        self.session = Session(
            AnswerRequest(S1, MODEL, ids, n_tokens, end_ids=(END_ID,), draft=True), list(ids), Phase.RUNNING, 0.0
        )
        self.session.run_on(Placement(MODEL, 1, ME, 100, "f16", (Shard(OTHER, 0, 4, True, True),)))
        self.session.epoch = 2
        self.drafting = Drafting(ME, {MODEL: COST})

    def begin(self, *, is_read: bool = True) -> Propose:
        """The stages are open; the small model has read the ids that there are."""
        (asked,) = self.drafting.begin(self.session)
        assert isinstance(asked, Propose) and self.session.draft is not None
        self.session.draft._guesser.times = FixedTimes()
        if is_read:
            assert self.drafting.drafted(self.session, asked, [], 0.0) == []
        return asked

    def came(self, *tokens: int, is_alone: bool = True, now: float = 1.0) -> Effect | None:
        """The last stage sampled these; what follows."""
        position = len(self.session.ids)
        self.session.ids += tokens
        message = Token(S1, 2, position, tokens[0], (), tokens[1:])
        effects = self.drafting.token(self.session, message, now, is_alone=is_alone)
        return effects[0] if effects else None

    def says(self, asked: Effect | None, *found: int) -> Effect | None:
        """The small model answers."""
        assert isinstance(asked, Propose)
        effects = self.drafting.drafted(self.session, asked, found, 1.1)
        return effects[0] if effects else None


def step(effect: Effect | None) -> tuple[int, tuple[int, ...], int]:
    """Position, ids and number of guesses of a step that is sent."""
    assert isinstance(effect, Send) and isinstance(effect.message, Tokens) and effect.to == OTHER
    message = effect.message
    assert message.sample and message.waits and message.guesses == 0 and message.epoch == 2
    return message.position, tuple(array("i", bytes(effect.frame or b""))), message.n_guesses


@pytest.mark.parametrize(
    ("wanted", "guesses", "steps"), [(False, True, True), (True, False, True), (True, True, False)]
)
def test_it_drafts_where_it_can_and_all_stages_know_of_that(*, wanted: bool, guesses: bool, steps: bool) -> None:
    story = Story()
    story.session.ask = replace(story.session.ask, draft=wanted)
    story.session.takes_guesses, story.session.takes_steps = guesses, steps
    assert story.drafting.begin(story.session) == [] and story.session.draft is None
    assert story.came(4) is None, "the first stage goes on by itself"


def test_the_small_model_reads_the_prompt_while_the_stages_do_and_nobody_waits_for_it() -> None:
    story = Story()
    asked = story.begin(is_read=False)
    assert (asked.ids, asked.n, asked.epoch) == ((1, 2, 3), 0, 2)
    assert step(story.came(4)) == (3, (4,), 0)
    story.drafting.drafted(story.session, asked, [], 2.0)
    assert isinstance(story.came(5), Propose)


def test_what_it_says_goes_along_with_the_next_step() -> None:
    story = Story()
    story.begin()
    asked = story.came(4)
    assert isinstance(asked, Propose) and asked.ids == (1, 2, 3, 4) and 1 <= asked.n <= MAX_DRAFTED
    assert step(story.says(asked, 6, 7)) == (3, (4, 6, 7), 2)
    assert story.session.sent == 4
    asked = story.came(6, 8)
    assert isinstance(asked, Propose) and asked.ids == (1, 2, 3, 4, 6, 8)


@pytest.mark.parametrize(
    ("found", "sent"), [((6, END_ID, 7), (4, 6)), ((6, 100), (4, 6)), ((END_ID,), (4,)), ((), (4,))]
)
def test_what_ends_the_answer_or_is_no_token_of_the_model_is_left_out(
    found: tuple[int, ...], sent: tuple[int, ...]
) -> None:
    story = Story()
    story.begin()
    assert step(story.says(story.came(4), *found)) == (3, sent, len(sent) - 1)


def test_who_has_nothing_to_say_is_not_asked_again() -> None:
    story = Story()
    story.begin()
    story.says(story.came(4))
    assert step(story.came(5)) == (4, (5,), 0)


def test_what_comes_late_or_for_other_ids_is_not_used() -> None:
    story = Story()
    story.begin()
    asked = story.came(4)
    story.session.epoch = 3
    assert story.says(asked, 6) is None, "the session was opened again meanwhile"
    story.session.epoch = 2
    story.session.ids.append(5)
    assert story.says(asked, 6) is None
    story.session.phase = Phase.RESTING
    assert story.says(asked, 6) is None and story.came(7) is None
    assert isinstance(asked, Propose) and story.drafting.drafted(None, asked, [6], 0.0) == []


def test_beside_other_answers_it_does_not_guess() -> None:
    story = Story()
    story.begin()
    assert step(story.came(4, is_alone=False)) == (3, (4,), 0)


def test_guesses_end_where_the_answer_does() -> None:
    story = Story(n_tokens=3)
    story.begin()
    asked = story.came(4)
    assert isinstance(asked, Propose) and asked.n == 1, "one more is sampled after it"
    story.says(asked, 6)
    assert step(story.came(6)) == (4, (6,), 0)


def test_a_text_that_repeats_itself_needs_no_small_model() -> None:
    story = Story((1, 2, 3, 4, 5, 6, 7, 8) * 4)
    story.begin()
    for _ in range(40):  # what it says is always wrong
        asked = story.came(story.session.ids[-8])
        if not isinstance(asked, Propose):
            break
        story.says(asked, 50)
    _, ids, n = step(asked)
    assert n == 15 and list(ids[1:9]) == story.session.ids[-8:]


def test_a_draft_that_is_always_wrong_is_given_up_and_tried_again_later() -> None:
    story = Story(n_tokens=400)
    story.begin()
    asked = []
    for i in range(300):
        effect = story.came(20 + i * 7 % 71, now=float(i))
        asked.append(isinstance(effect, Propose))
        if isinstance(effect, Propose):
            assert story.session.draft is not None
            story.session.draft._guesser.times = FixedTimes({1: 1.0, 2: 1.5, 4: 2.0, 8: 3.0, 16: 5.0})
            story.says(effect, 50)
    assert asked[0] and sum(asked[:100]) < 10 and 0 < sum(asked[100:]) < 10


def test_what_is_there_is_compared_step_by_step_without_guesses() -> None:
    story = Story()
    story.session.ids += [4, 5, 6]
    story.begin()
    effects = story.drafting.token(story.session, Token(S1, 2, 3, 4), 1.0, is_alone=True)
    assert step(effects[0]) == (3, (4,), 0)
