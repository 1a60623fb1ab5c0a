"""Whose steps go next at a stage, and which together."""

from __future__ import annotations

import pytest

from swarm import limits
from swarm.cluster.turns import Layers, RowCosts, Turns, Waiting
from swarm.wire.ids import ModelId, SessionId

HERE: Layers = (ModelId("1" * 64), 0, 4)
SESSIONS = [SessionId(f"{i:032x}") for i in range(40)]


def waiting(i: int, n_tokens: int = 1, *, since: float = 0.0, context: int = 4096, layers: Layers = HERE) -> Waiting:
    return Waiting(SESSIONS[i], layers, n_tokens, since, context)


def seen(costs: dict[int, float]) -> RowCosts:
    """What steps of so many rows took, in seconds."""
    found = RowCosts()
    for n_rows, seconds in costs.items():
        for _ in range(limits.ROW_COSTS_NEEDED):
            found.took(n_rows, seconds)
    return found


def test_nothing_waits() -> None:
    assert Turns().next([], 0.0) == []


def test_decode_goes_before_a_prompt_and_never_seen_numbers_are_tried() -> None:
    heads = [waiting(0, 64), waiting(1), waiting(2), waiting(3)]
    assert Turns().next(heads, 0.1) == SESSIONS[1:4]


def test_a_prompt_that_waited_goes_first_and_takes_decode_steps_along() -> None:
    heads = [waiting(1, since=1.0), waiting(0, 64), waiting(2, 64), waiting(3, since=1.0)]
    assert Turns().next(heads, limits.PREFILL_PATIENCE_S + 0.1) == [SESSIONS[0], SESSIONS[1], SESSIONS[3]]


def test_a_prompt_alone_is_taken_at_once() -> None:
    assert Turns().next([waiting(0, 64), waiting(1, 8)], 0.0) == [SESSIONS[0]]


def test_other_layers_are_another_step() -> None:
    heads = [waiting(0), waiting(1, layers=(HERE[0], 4, 8)), waiting(2)]
    assert Turns().next(heads, 0.0) == [SESSIONS[0], SESSIONS[2]]


def test_a_step_has_room_for_so_many_sessions_and_so_many_tokens() -> None:
    many = [waiting(i) for i in range(40)]
    assert Turns().next(many, 0.0) == SESSIONS[: limits.MAX_STEP_SESSIONS]
    assert Turns().next([waiting(i, context=3) for i in range(5)], 0.0) == SESSIONS[:3], "what the buffers hold"
    assert Turns().next([waiting(0, limits.MAX_BATCH_TOKENS, since=-9.0), waiting(1)], 0.0) == [SESSIONS[0]]


@pytest.mark.parametrize(
    ("costs", "n", "best"),
    [
        ({1: 1.0, 2: 1.9, 4: 3.0, 8: 4.0}, 8, 8),
        ({1: 1.0, 2: 1.9, 4: 3.0, 8: 4.0}, 7, 7),
        ({1: 1.0, 2: 2.5, 4: 4.5, 8: 9.0}, 8, 1),
        ({1: 1.0, 2: 1.2, 4: 3.0, 8: 9.0}, 8, 2),
        ({1: 1.0, 2: 2.5}, 3, 3),  # never seen: tried
        ({4: 3.0}, 4, 1),  # alone was never seen
    ],
)
def test_as_many_together_as_make_the_most_tokens(costs: dict[int, float], n: int, best: int) -> None:
    assert seen(costs).best(n) == best


def test_what_was_dear_once_is_tried_again_after_a_while_and_forgiven() -> None:
    costs = seen({1: 1.0, 2: 30.0})  # another program ran
    sizes = []
    for _ in range(2 * limits.ROW_COST_STEPS):
        sizes.append(costs.best(2))
        costs.took(sizes[-1], 1.0 if sizes[-1] == 1 else 1.2)
    assert sizes[:10] == [1] * 10 and sizes[-10:] == [2] * 10


def test_one_step_beside_another_program_decides_nothing() -> None:
    costs = RowCosts()
    costs.took(1, 50.0)
    for _ in range(2 * limits.ROW_COSTS_NEEDED + 2):
        size = costs.best(2)
        costs.took(size, 1.0 if size == 1 else 3.0)
    assert costs.best(2) == 1


def test_what_became_dear_is_left() -> None:
    costs = seen({1: 1.0, 2: 1.2})
    sizes = []
    for _ in range(2 * limits.ROW_COSTS_KEPT):  # the device throttles, or the texts have grown
        sizes.append(costs.best(2))
        costs.took(sizes[-1], 1.5 if sizes[-1] == 1 else 9.0)
    assert sizes == [2] * limits.ROW_COSTS_KEPT + [1] * limits.ROW_COSTS_KEPT


def test_costs_are_of_a_range_of_layers_and_their_number_is_bounded() -> None:
    turns = Turns()
    for _ in range(limits.ROW_COSTS_NEEDED):
        turns.took(HERE, 1, 1.0)
        turns.took(HERE, 2, 9.0)
    heads = [waiting(0), waiting(1)]
    assert turns.next(heads, 0.0) == [SESSIONS[0]]
    for i in range(limits.ROW_COST_STAGES):
        turns.took((HERE[0], 4, 8 + i), 1, 1.0)
    assert turns.next(heads, 0.0) == SESSIONS[:2], "forgotten, so tried"


def test_pieces_of_a_prompt_come_to_take_as_long_as_a_reader_may_wait() -> None:
    turns, size = Turns(), 0
    for _ in range(12):
        size = turns.most_tokens(HERE)
        turns.took_batch(HERE, size, 0.02 + 0.001 * size)
    assert 0.02 + 0.001 * size <= limits.PAUSE_S and size == 176, "176 tokens take 0.196 s"
    for _ in range(12):  # another program takes most of the processor
        turns.took_batch(HERE, turns.most_tokens(HERE), 4.0)
    assert turns.most_tokens(HERE) == limits.MIN_PIECE_TOKENS
    for _ in range(40):
        turns.took_batch(HERE, turns.most_tokens(HERE), 0.0)
    assert turns.most_tokens(HERE) == limits.MAX_BATCH_TOKENS
    for i in range(2 * limits.ROW_COST_STAGES):
        turns.took_batch((HERE[0], i, i + 1), 64, 0.1)
    assert len(turns._most) == limits.ROW_COST_STAGES
