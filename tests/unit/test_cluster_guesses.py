"""What a first stage guesses: from the ids of a session, by the time that a pass over all stages takes."""

from __future__ import annotations

from swarm.cluster.guesses import StageGuesses, WayTimes
from swarm.guessing import StepTimes
from swarm.wire.ids import ModelId, PeerId
from tests.helpers.guesses import FixedTimes

ROUND = (1, 2, 3, 4, 5, 6)
END_ID = 5
A, B = PeerId("a" * 32), PeerId("b" * 32)


def guesses(*, times: StepTimes | None = None) -> StageGuesses:
    made = StageGuesses()
    made.read(ROUND * 4, times or FixedTimes())
    made.came(ROUND[:2], 0.0, is_alone=True)
    return made


def test_what_came_before_goes_along_up_to_an_end_token() -> None:
    assert guesses().next(15, (), (), 0.0)[:4] == (3, 4, 5, 6)
    assert guesses().next(15, (), (END_ID,), 0.0) == (3, 4)
    assert guesses().next(1, (), (), 0.0) == (3,)
    assert guesses().next(-1, (), (), 0.0) == ()


def test_what_a_form_asks_for_goes_before_what_came_before() -> None:
    assert guesses().next(15, (9, 8, 7), (), 0.0) == (9, 8, 7)
    assert len(guesses().next(15, (3, 4), (), 0.0)) == 15, "where both agree, the text goes on"
    assert guesses().next(15, (3, 5), (), 0.0) == (3, 5)


def test_the_time_from_a_step_to_its_token_counts_where_nobody_else_had_a_part_in_it() -> None:
    times = StepTimes()
    made = guesses(times=times)
    for i in range(4):
        assert made.next(15, (), (), float(i)) == () or i >= 2
        made.came((ROUND[(2 + i) % 6],), i + 0.25, is_alone=i != 1)
        assert times.knows_one_row == (i >= 2)
    assert times.of(1) == 0.25


def test_a_session_that_is_opened_again_waits_for_no_token() -> None:
    times = StepTimes()
    made = guesses(times=times)
    made.next(15, (), (), 0.0)
    made.read(ROUND * 5, times)
    made.came((1,), 9.0, is_alone=True)
    assert not times.knows(1)


def test_each_way_has_its_own_times_and_the_oldest_are_forgotten() -> None:
    ways = WayTimes()
    first = ways.of((ModelId("1" * 64), 1, A, B))
    assert ways.of((ModelId("1" * 64), 1, A, B)) is first
    assert ways.of((ModelId("1" * 64), 2, A, B)) is not first
    for epoch in range(20):
        ways.of((ModelId("2" * 64), epoch, A, B))
    assert ways.of((ModelId("1" * 64), 1, A, B)) is not first


# --- what the model's own block says


def told(own: tuple[int, ...], *, times: StepTimes | None = None, n: int = 1, own_s: float = 0.0) -> StageGuesses:
    """A text without repeats, and the block said this after its last token; n times so."""
    made = StageGuesses()
    made.read(range(100, 110), times or FixedTimes())
    for token in range(n):
        made.said(own, own_s)
        made.came((token,), 0.0, is_alone=True)
        made.next(15, (), (), 0.0)
    return made


def test_it_is_asked_where_that_pays_and_what_it_says_goes_along() -> None:
    made = told(())
    assert made.next(15, (), (), 0.0) == () and made.asks
    made.said((7,), 0.0)
    made.came((1,), 0.0, is_alone=True)
    assert made.next(15, (), (), 0.0) == (7,) and made.asks
    assert told((7,)).next(15, (), (7,), 0.0) == (), "but no token that ends the answer"
    assert told((7,)).next(15, (9,), (), 0.0) == (9,), "and nothing where a form asks for something else"
    made = told((7,))
    assert made.next(0, (), (), 0.0) == () and not made.asks, "beside other readers, or at the end"


def test_what_never_comes_is_not_asked_for_any_more() -> None:
    assert not told((7777,), n=60).asks
    right = StageGuesses()
    right.read(range(100, 110), FixedTimes())
    for token in range(60):
        right.said((token + 1,), 0.0)
        right.came((token,), 0.0, is_alone=True)
        right.next(15, (), (), 0.0)
    assert right.asks


def test_where_saying_it_takes_as_long_as_a_step_it_is_not_asked_for() -> None:
    assert told((7,), own_s=0.1).asks and not told((7,), own_s=2.0).asks


def test_the_time_that_it_takes_is_not_the_steps() -> None:
    times = StepTimes()
    made = StageGuesses()
    made.read((1, 2), times)
    for i in range(3):
        made.next(0, (), (), float(i))
        made.said((7,), 0.25)
        made.came((9,), i + 0.75, is_alone=True)
    assert times.of(1) == 0.5


def test_a_text_that_repeats_itself_is_believed_before_it() -> None:
    made = guesses()
    made.said((99,), 0.0)
    made.came((ROUND[2],), 0.0, is_alone=True)
    assert made.next(15, (), (), 0.0)[:3] == ROUND[3:6]
    made.read(ROUND * 4, FixedTimes())
    made.came((9,), 0.0, is_alone=True)
    assert 99 not in made.next(15, (), (), 0.0), "that was before it was opened again"
