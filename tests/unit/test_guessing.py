"""What comes next is looked up in the text itself, as far as that was right before and as far as it pays."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from swarm.guessing import CHOICES, LONG, Guesser, Repeats, StepTimes
from tests.helpers.guesses import FREE, times_of

PATTERN = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]


def read(ids: list[int]) -> Repeats:
    text = Repeats()
    text.read(ids)
    return text


def test_what_followed_last_time_is_expected() -> None:
    text = read([1, 2, 3, 4, 5, 9, 2, 3])
    assert text.expected(3) == [4, 5, 9]
    text.take(4)
    assert text.expected(2) == [5, 9]


def test_the_latest_place_counts_and_the_longer_match_before_it() -> None:
    assert read([1, 2, 3, 7, 2, 3, 8, 2, 3]).expected(1) == [8]
    assert read([1, 2, 3, 7, 5, 2, 3, 8, 1, 2, 3]).expected(1) == [7]


def test_where_nothing_was_the_same_nothing_is_expected() -> None:
    for ids in ([], [1], [1, 2], [1, 2, 3, 4]):
        assert read(ids).expected(4) == []
        assert [read(ids).chance(i) for i in (0, 1)] == [0.0, 0.0]


def test_a_short_round_is_expected_to_go_on() -> None:
    assert read([7, 5, 6, 5, 6, 5, 6]).expected(5) == [5, 6, 5, 6, 5]
    assert read([3, 3, 3, 3]).expected(3) == [3, 3, 3]


def test_after_one_other_token_the_text_may_be_back() -> None:
    text = read([*PATTERN, *PATTERN[: LONG + 1]])
    text.take(99)  # in place of PATTERN[LONG + 1]
    assert text.expected(2) == PATTERN[LONG + 2 : LONG + 4]
    text.take(98)  # it is not
    assert text.expected(2) == []


def test_odds_follow_what_came() -> None:
    text = read([1, 2, 3, 1, 2])
    before = text.chance(0)
    text.take(3)
    for _ in range(30):
        for token in (1, 2, 3):
            text.take(token)
    assert text.chance(0) > 0.95 > before
    for i in range(100, 200):
        text.take(1)
        text.take(2)
        text.take(i)  # never what came last time
    text.take(1)
    text.take(2)
    assert text.chance(0) < 0.2


def test_a_text_that_was_changed_is_read_anew() -> None:
    text = read([1, 2, 3, 4, 1, 2])
    assert text.expected(1) == [3]
    text.read([1, 2, 5, 4, 1, 2])
    assert text.expected(1) == [5]
    text.read([1, 2, 5, 4, 1, 2, 6, 5, 4])
    assert text.expected(2) == [1, 2]


@given(ids=st.lists(st.integers(0, 3), max_size=60), cut=st.integers(0, 60))
def test_a_text_says_the_same_however_it_came(ids: list[int], cut: int) -> None:
    text = Repeats()
    text.read(ids[:cut])
    text.read(ids)
    assert text.ids == ids
    assert text.expected(5) == read(ids).expected(5)


def test_nothing_is_guessed_before_it_is_known_what_a_row_takes() -> None:
    guesser = Guesser(StepTimes())
    guesser.text.read([*PATTERN, *PATTERN])
    assert guesser.guess(15) == []
    guesser.times.took(1, 1.0)
    guesser.times.took(1, 1.0)
    assert guesser.guess(15) != []


def answered(guesser: Guesser, ids: list[int], cost: dict[int, float]) -> float:
    """Seconds that an answer takes, with steps of such costs."""
    seconds, i = 0.0, 0
    guesser.text.take(ids[0])
    while i + 1 < len(ids):
        guesses = guesser.guess(len(ids) - i - 2)
        step_s = cost[1 + len(guesses)]
        guesser.times.took(1 + len(guesses), step_s)
        seconds += step_s
        for guess in [*guesses, None]:
            i += 1
            guesser.text.take(ids[i])
            if ids[i] != guess:
                break
    return seconds


CHEAP = {1: 1.0, 2: 1.05, 4: 1.3, 8: 1.8, 16: 3.0}
DEAR = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}


def test_a_list_that_repeats_takes_half_the_time_where_rows_are_cheap() -> None:
    ids = [token for i in range(40) for token in (100 + i, *PATTERN)]
    assert answered(Guesser(), ids, CHEAP) < len(ids) / 2


def test_a_text_without_repeats_is_hardly_slower() -> None:
    random_ids = random.Random(5)
    ids = [random_ids.randrange(30) for _ in range(1500)]  # pairs repeat, and nothing follows from that
    assert answered(Guesser(), ids, CHEAP) < 1.01 * len(ids)
    assert answered(Guesser(), ids, DEAR) < 1.01 * len(ids)


def test_where_rows_cost_as_much_as_steps_nothing_is_guessed_after_a_few_trials() -> None:
    ids = [token for i in range(100) for token in (100 + i, *PATTERN)]
    assert answered(Guesser(), ids, DEAR) < 1.01 * len(ids)


def test_no_more_is_guessed_than_there_is_room_for() -> None:
    guesser = Guesser(times_of(FREE))
    guesser.text.read(PATTERN * 20)
    for _ in range(40):
        for token in PATTERN:
            guesser.text.take(token)
    assert [len(guesser.guess(most)) for most in (-1, 0, 1, 2, 3, 14, 15, 99)] == [0, 0, 1, 2, 3, 14, 15, CHOICES[-1]]


def test_one_step_in_a_while_is_made_without_guesses() -> None:
    guesser = Guesser(times_of(CHEAP))
    guesser.text.read(PATTERN * 5)
    sizes = []
    for _ in range(200):
        sizes.append(len(guesser.guess(15)))
        guesser.times.took(1 + sizes[-1], CHEAP[1 + sizes[-1]])
    assert 0 < sizes.count(0) < 10


def test_the_middle_of_the_last_times_counts() -> None:
    times = times_of(CHEAP)
    times.took(2, 50.0)  # another program was at it
    assert times.of(2) == CHEAP[2]
    assert times.of(3) == CHEAP[4]


def drafting(token_s: float, costs: dict[int, float] = FREE) -> Guesser:
    guesser = Guesser(times_of(costs))
    guesser.draft.took(token_s)
    return guesser


def test_a_draft_is_asked_for_as_much_as_it_pays() -> None:
    assert drafting(1.0, CHEAP).plan_draft(15).n == 0, "it takes as long as the model"
    guesser = drafting(0.1, CHEAP)
    assert guesser.plan_draft(15).n > 0
    for _ in range(60):
        guesser.draft.saw(7, 7)
    assert guesser.plan_draft(15).n == 7
    assert guesser.plan_draft(2).n == 2
    for _ in range(60):
        guesser.draft.saw(1, 0)
    assert guesser.plan_draft(15).n == 0


def test_a_draft_that_did_not_pay_is_tried_again_after_a_while() -> None:
    guesser = drafting(1.0, CHEAP)
    tried = [i for i in range(400) if guesser.plan_draft(15).n and guesser.draft.saw(1, 0) is None]
    assert len(tried) == 3


def test_places_behind_a_wrong_guess_say_nothing_about_the_draft() -> None:
    guesser = drafting(0.1)
    last = guesser.draft.chance(3)
    for _ in range(9):
        guesser.draft.saw(7, 1)
    assert guesser.draft.chance(0) > 0.8 and guesser.draft.chance(1) < 0.4
    assert guesser.draft.chance(3) == last


def test_what_a_form_asks_for_is_taken_as_far_as_it_pays() -> None:
    guesser = Guesser(times_of(CHEAP))
    for n, taken in ((1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (11, 7), (15, 15), (20, 15)):
        assert guesser.guess(99, range(n)) == list(range(taken)), "twelve rows cost as much as sixteen"
    assert guesser.guess(2, range(5)) == [0, 1]
    assert Guesser(times_of(DEAR)).guess(99, range(5)) == []
    assert Guesser(StepTimes()).guess(99, range(5)) == [], "nobody knows yet"
