"""How many messages one device may send."""

from __future__ import annotations

from swarm import limits
from swarm.net.budget import HANDFUL, MessageBudget
from swarm.wire.messages import Catalog, Message, SessionProbe, Token


def taken(kind: type[Message] | None, per_s: int, seconds: int) -> int:
    """Of so many messages a second, how many are taken before one is too many."""
    budget = MessageBudget(0.0)
    for n in range(per_s * seconds):
        if not budget.take(kind, n / per_s):
            return n
    return per_s * seconds


def test_what_honest_devices_send_is_taken_for_ever() -> None:
    assert taken(Token, 2000, 100) == 200_000
    assert taken(SessionProbe, 50, 1000) == 50_000


def test_a_flood_ends() -> None:
    assert taken(Catalog, 3000, 60) < 1.1 * limits.MAX_TOLD_AT_ONCE
    assert taken(Token, 100_000, 60) < 1.1 * limits.MAX_DATA_AT_ONCE


def test_a_flood_after_a_rest_is_no_longer_than_one_at_the_beginning() -> None:
    budget = MessageBudget(0.0)
    assert budget.take(Token, 0.0)
    n = 0
    while budget.take(Token, 3600.0):
        n += 1
    assert limits.MAX_DATA_AT_ONCE <= n + 1 <= limits.MAX_DATA_AT_ONCE + HANDFUL


def test_what_this_version_does_not_know_is_a_message_too() -> None:
    assert taken(None, 3000, 60) < 1.1 * limits.MAX_TOLD_AT_ONCE


def test_a_flood_of_one_sort_leaves_the_other_its_own() -> None:
    budget = MessageBudget(0.0)
    while budget.take(Catalog, 0.0):
        pass
    assert budget.take(Token, 0.0)
