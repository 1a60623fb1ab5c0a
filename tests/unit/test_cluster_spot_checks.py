"""When an answer of other devices is computed again here, and what follows."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from swarm import limits
from swarm.answers import EndReason
from swarm.cluster.core import Core, Identity
from swarm.cluster.effects import CheckTokens, Effect, Ended, Load, Log, Notice, StopCheck, Unsay
from swarm.cluster.session import AnswerRequest
from swarm.cluster.spot_checks import check_bytes
from swarm.parts import all_parts
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Measured, PlacementOffer, PlacementReply, ShardReady, Token
from swarm.wire.records import LinkMeasurement, Sampling, Shard
from tests.unit.test_cluster_sessions import COST as ANY_COST
from tests.unit.test_cluster_sessions import END_ID, ME, MODEL, OTHER, S1, S2, Remote, capabilities

PROMPT = (1, 2)
COST = replace(ANY_COST, vocabulary=200)
N = limits.FIRST_CHECK_TOKENS
RIGHT = list(range(10, 10 + N))


class Checked(Remote):
    """A slow device that has the model, and OTHER, which is fast and answers for it."""

    def __init__(self, *, memory: int = 10_000_000, holds: bool = True, sampling: Sampling | None = None) -> None:
        super().__init__()
        self.core = Core(Identity(ME, BootId("1" * 16), "me"), capabilities(memory, 1e3), Random(1))
        self.core.model_known(MODEL, COST, 0.0)
        self.core.holdings(ME, MODEL, frozenset(all_parts(4)[: None if holds else 2]), 0.0)
        self.core.tick(0.0)
        self.core.peer_up(OTHER, BootId("2" * 16), "other", 0.0)
        self.hear(Measured(capabilities(100_000, 1e12), (LinkMeasurement(ME, 0.001, 1e8),)), 0.0)
        self.core.holdings(OTHER, MODEL, frozenset(all_parts(4)), 0.0)
        self.sampling = sampling or Sampling()

    def begin(self, n_tokens: int = 2500) -> None:
        asked = AnswerRequest(S1, MODEL, PROMPT, n_tokens, self.sampling, (END_ID,))
        (offer,) = self.sent(self.core.ask(asked, 0.0), PlacementOffer)
        epoch = offer.placement.epoch
        self.hear(PlacementReply(MODEL, epoch, True, ""), 0.0)
        self.open(self.hear(ShardReady(MODEL, epoch, Shard(OTHER, 0, 4, True, True)), 0.0), 0)

    def tokens(self, tokens: list[int], now: float = 0.1) -> list[Effect]:
        """The next ones of the answer."""
        first = len(self.core.sessions.sessions[S1].ids)
        return [e for i, token in enumerate(tokens) for e in self.hear(Token(S1, self.epoch, first + i, token), now)]


def checks(effects: list[Effect]) -> list[CheckTokens]:
    return [e for e in effects if isinstance(e, CheckTokens)]


def begun(remote: Checked, tokens: list[int]) -> CheckTokens:
    remote.begin()
    (check,) = checks(remote.tokens(tokens))
    return check


def test_the_first_answer_of_a_device_is_checked_as_soon_as_there_are_enough_tokens() -> None:
    remote = Checked()
    remote.begin()
    assert not checks(remote.tokens(RIGHT[:-1]))
    (check,) = checks(remote.tokens(RIGHT[-1:]))
    assert (check.ids, check.first) == ((*PROMPT, *RIGHT), 2)
    assert check.n_bytes == check_bytes(COST, 2 + N)


def test_a_shorter_answer_is_checked_at_its_end() -> None:
    remote = Checked()
    remote.begin()
    effects = remote.tokens([7, END_ID])
    assert [e.reason for e in effects if isinstance(e, Ended)] == [EndReason.STOP]
    assert [check.ids for check in checks(effects)] == [(*PROMPT, 7, END_ID)], "also whether it ends there"


def test_who_has_passed_is_checked_now_and_then() -> None:
    remote = Checked()
    check = begun(remote, RIGHT)
    (told,) = remote.core.checked(check.ticket, RIGHT, 0.2)
    assert isinstance(told, Log) and told.fields == (("name", "other"), ("tokens", N))
    assert OTHER in remote.core.checks.passed and remote.core.sessions.sessions[S1].checked_to == 2 + N
    found = []
    for _ in range(15):
        for again in checks(remote.tokens([5] * limits.CHECK_EVERY_TOKENS)):
            since = remote.core.sessions.sessions[S1].checked_to
            assert again.first == max(since, len(again.ids) - limits.MOST_CHECKED_TOKENS), "all since the last check"
            found.append(len(again.ids))
            remote.core.checked(again.ticket, again.ids[again.first :], 0.3)
    assert 0 < len(found) < 12, "ever more seldom"
    assert {n % limits.CHECK_EVERY_TOKENS for n in found} == {2 + N}


@pytest.mark.parametrize("why", ["memory", "disk", "form"])
def test_what_cannot_be_checked_is_not(why: str) -> None:
    remote = Checked(
        memory=check_bytes(COST, 2 + N) - 1 if why == "memory" else 10_000_000,
        holds=why != "disk",
        sampling=Sampling(grammar="{}") if why == "form" else Sampling(),
    )
    remote.begin()
    assert not checks(remote.tokens(RIGHT))


def test_false_tokens_are_taken_back_and_who_sent_them_is_left_out_for_long() -> None:
    remote = Checked()
    check = begun(remote, [*RIGHT[:3], 66, *RIGHT[4:]])
    remote.tokens([3, 4], 0.2)
    effects = remote.core.checked(check.ticket, RIGHT, 0.3)
    assert [e.position for e in effects if isinstance(e, Unsay)] == [5]
    assert any(isinstance(e, Log) and e.event == "falsified" for e in effects)
    texts = [e.text for e in effects if isinstance(e, Notice)]
    assert texts[0] == "other computed something else than the model says; going on without it"
    assert remote.core.sessions.sessions[S1].ids == [*PROMPT, *RIGHT[:3]]
    assert remote.core.placer.conduct.why_left_out(OTHER, limits.EXCLUDE_MAX_S)
    assert any(isinstance(e, Load) for e in effects), "it goes on here"
    assert OTHER not in remote.core.checks.passed


def test_what_was_not_checked_before_is_compared_when_others_go_on() -> None:
    remote = Checked()
    remote.core.checked(begun(remote, RIGHT).ticket, RIGHT, 0.2)
    session = remote.core.sessions.sessions[S1]
    session.distrust(2 + N, frozenset({OTHER}))
    assert not session.doubts, "all of it has passed"
    session.ids += [5, 6, 7]
    session.distrust(2 + N + 2, frozenset({OTHER}))
    assert session.doubted_from == 2 + N and session.ids[-1] == 6


def test_no_kv_counts_once_something_was_falsified() -> None:
    remote = Checked()
    check = begun(remote, [66, *RIGHT[1:]])
    remote.core.checked(check.ticket, RIGHT, 0.2)
    session = remote.core.sessions.sessions[S1]
    assert set(session.true_prefix.values()) <= {0} and not session.hands


def test_of_an_answer_that_is_over_the_next_one_of_the_chat_tells() -> None:
    remote = Checked()
    remote.begin()
    (check,) = checks(remote.tokens([7, END_ID]))
    assert not [e for e in remote.core.checked(check.ticket, [8, END_ID], 0.2) if isinstance(e, Unsay | Notice)]
    asked = remote.core.ask(AnswerRequest(S1, MODEL, (*PROMPT, 7, 9), 5, end_ids=(END_ID,)), 0.3)
    told = "other computed something else than the model says in an answer of this chat; ask that again"
    assert told in [e.text for e in asked if isinstance(e, Notice)]
    asked = remote.core.ask(AnswerRequest(S2, MODEL, (1,), 5), 0.3)
    assert told not in [e.text for e in asked if isinstance(e, Notice)]


def test_a_check_that_fails_blames_nobody_and_the_next_one_waits() -> None:
    remote = Checked()
    check = begun(remote, [66, *RIGHT[1:]])
    assert [type(e) for e in remote.core.checked(check.ticket, (), 0.2, "no memory")] == [Log]
    assert remote.core.sessions.sessions[S1].ids[2] == 66 and OTHER not in remote.core.checks.passed
    assert not checks(remote.tokens([5] * limits.CHECK_EVERY_TOKENS, 0.3))


def test_a_check_gives_its_memory_back_when_it_is_promised_to_others() -> None:
    remote = Checked()
    check = begun(remote, RIGHT)
    remote.core.ledger.total_bytes = check.n_bytes - 1
    assert StopCheck(check.ticket) in remote.core.tick(1.0)
    assert remote.core.checks.running is None
    assert remote.core.checked(check.ticket, [66] * N, 0.2) == [], "too late"


def test_who_lent_a_session_its_beginning_had_a_hand_in_it() -> None:
    remote = Checked()
    begun(remote, RIGHT)
    third = PeerId("3" * 32)
    remote.core.sessions.sessions[S1].hands |= {third}
    remote.core.ask(AnswerRequest(S2, MODEL, (*PROMPT, *RIGHT[:4], 3), 5, source=S1), 0.2)
    other = remote.core.sessions.sessions[S2]
    assert other.loan is not None and third in other.hands
