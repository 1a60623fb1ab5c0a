"""The core as its shell sees it: when it wants to be ticked, and what each tick then does."""

from __future__ import annotations

from random import Random

import pytest

from swarm import limits
from swarm.cluster.core import Core, Identity
from swarm.cluster.cost import LayerCost, ModelCost
from swarm.cluster.effects import Effect, Load, Send
from swarm.cluster.membership import AWAKE_S
from swarm.cluster.placement import NEXT_STATES, State
from swarm.cluster.session import NEXT_PHASES, AnswerRequest, Phase
from swarm.parts import all_parts
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.messages import Measured, PlacementOffer, SessionOpen, Token
from swarm.wire.records import Capabilities, LinkMeasurement, NodeState

ME, PEER = PeerId("1" * 32), PeerId("2" * 32)
MODEL = ModelId("a" * 64)
COST = ModelCost("m", (LayerCost(1000, 1, 1),) * 4, 100, 100, 8, 1)
ASK = AnswerRequest(SessionId("b" * 32), MODEL, (1, 2, 3), 10)


def core(memory: int = 10_000) -> Core:
    made = Core(Identity(ME, BootId("c" * 16), "me"), capabilities(memory), Random(1))
    made.model_known(MODEL, COST, 0.0)
    made.holdings(ME, MODEL, frozenset(all_parts(4)), 0.0)
    made.tick(0.0)
    return made


def capabilities(memory: int) -> Capabilities:
    return Capabilities("x86_64", "avx2", 4, memory, 2**40, 1e9, 1e9)


def with_peer(memory: int, peer_memory: int) -> Core:
    made = core(memory)
    made.peer_up(PEER, BootId("d" * 16), "peer", 0.0)
    made.received(PEER, Measured(capabilities(peer_memory), (LinkMeasurement(ME, 1e-3, 1e8),)), None, 0.0)
    made.tick(0.0)
    return made


def sent(effects: list[Effect], kind: type) -> list[PeerId]:
    return [e.to for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def test_a_core_wants_its_first_tick_at_once() -> None:
    made = Core(Identity(ME, BootId("c" * 16), "me"), capabilities(1), Random(1))
    assert made.get_timer() < 0.0


def test_a_core_alone_only_advertises() -> None:
    assert core().get_timer() == limits.ADVERTISE_S


def test_a_tick_before_the_timer_does_nothing() -> None:
    made = with_peer(2500, 10_000)
    made.ask(ASK, 0.1)
    due = made.get_timer()
    assert made.tick(due - 1e-3) == [] and made.get_timer() >= due


def test_an_offer_without_an_answer_is_sent_again_at_its_timer() -> None:
    made = with_peer(2500, 10_000)
    assert PEER in sent(made.ask(ASK, 0.0), PlacementOffer)
    made.heartbeat(PEER, NodeState(), 1e-3, limits.OFFER_RETRY_S)
    now = made.get_timer()
    assert now == limits.OFFER_RETRY_S and PEER in sent(made.tick(now), PlacementOffer)


def test_silence_is_noticed_at_its_timer() -> None:
    made, lost_at = with_peer(2500, 10_000), None
    while lost_at is None:
        now = made.get_timer()
        made.tick(now)
        lost_at = None if made.members.is_alive(PEER) else now
    assert lost_at == limits.PEER_SILENCE_S


def test_while_somebody_is_there_the_clock_is_looked_at_so_often_that_our_own_sleep_shows() -> None:
    made = with_peer(2500, 10_000)
    assert made.get_timer() == AWAKE_S < limits.SUSPECT_S
    made.tick(60.0)
    assert made.members.is_alive(PEER)


def test_a_session_opens_when_its_placement_is_ready_without_a_tick() -> None:
    made = core()
    effects = made.ask(ASK, 1.0)
    (load,) = [effect for effect in effects if isinstance(effect, Load)]
    made.loaded(load.ticket, 1.5)
    assert made.sessions.sessions[ASK.session].phase is Phase.RUNNING


def test_what_measures_itself_anew_is_followed_by_the_sessions_without_a_tick() -> None:
    made = core(memory=4500)
    (load,) = [effect for effect in made.ask(ASK, 1.0) if isinstance(effect, Load)]
    made.loaded(load.ticket, 1.0)
    made.placer.placings[MODEL].wanted = True
    made.placer.renew(MODEL, 1.1)
    made.measured(capabilities(4500), 1.2)
    assert made.sessions.sessions[ASK.session].phase is not Phase.RUNNING


@pytest.mark.parametrize("kind", [Phase, State])
def test_the_tables_name_every_phase_and_every_state(kind: type) -> None:
    table = NEXT_PHASES if kind is Phase else NEXT_STATES
    assert set(table) == set(kind)
    assert set().union(*table.values()) | {Phase.QUEUED} >= set(kind)


def test_a_step_that_the_table_does_not_have_is_a_bug_of_ours() -> None:
    made = core()
    made.ask(ASK, 1.0)
    made.cancel(ASK.session, 1.0)
    with pytest.raises(AssertionError, match="resting cannot be running"):
        made.sessions.sessions[ASK.session].enter(Phase.RUNNING, 2.0)
    assert not sent(made.tick(2.0), SessionOpen)


def test_what_others_wait_for_is_told_before_our_own_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made, token = core(), Token(ASK.session, 1, 3, 7)
    both: list[Effect] = [Send(PEER, token), Send(ME, token)]
    heard: list[Token] = []
    monkeypatch.setattr(made.stage_sessions, "computed", lambda job, outputs, now: list(both))
    monkeypatch.setattr(made.sessions, "token", lambda sender, message, now: heard.append(message) or [])
    parts = made.computed_in_parts(1, [], 0.0)
    assert next(parts) == both[:1] and not heard
    assert next(parts) == [] and heard == [token]
