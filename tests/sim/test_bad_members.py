"""One member gone bad, or two, or one that is merely sick: the answer goes on all the same.

pytest tests/sim/test_bad_members.py                       every seed
pytest tests/sim/test_bad_members.py --sim-seed=17         one again, with every event
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from swarm.answers import EndReason
from tests.helpers.malice import Forger, Liar, restart_with_a_wrong_clock
from tests.helpers.sim import Chat, Node, Sim

SEEDS = 400
BLOCK = 20
BEGINS_S = {1: 10.0, 2: 30.0}  # after the question, with so many bad members
GOES_ON_S = 10.0  # between two tokens
KV_TOKENS = 3000


def household(seed: int, n_honest: int, n_others: int, rng: Random, *, verbose: bool = False) -> tuple[Sim, list[Node]]:
    """Honest devices that could each answer alone, and others; the others come last."""
    sim = Sim(seed, rng.randint(3, 8), kv_bytes=4, verbose=verbose)
    sim.row_cost = 0.5  # a prompt is read in a second or two: what is measured is the waiting for others
    memory = sim.model.weight_bytes + sim.model.stage_kv_bytes(0, sim.model.n_layers, KV_TOKENS)
    for _ in range(n_honest):
        sim.add_node(memory, speed=rng.choice((25e6, 50e6)), holds=True)  # as fast as the toy is computed
    others = [sim.add_node(2**50, speed=400e6, holds=rng.random() < 0.8) for _ in range(n_others)]
    return sim, others


def ask(sim: Sim, rng: Random, n_honest: int) -> Chat:
    prompt = tuple(rng.randrange(190) for _ in range(rng.choice((1, 5, 130, 500))))
    chat = sim.ask(sim.nodes[rng.randrange(n_honest)], prompt, rng.choice((1, 40, 120)))
    assert chat is not None
    return chat


def watch(sim: Sim, chat: Chat, begins_s: float) -> None:
    """The reader of a chat: it begins in time, goes on in time, and ends with what was asked for."""
    asked = last = sim.now
    while chat.ended is None:
        n = len(chat.got)
        sim.run_until(last + (GOES_ON_S if n else begins_s), done=lambda n=n: _has_more(chat, n))
        last = sim.now
        sim.require(_has_more(chat, n), f"{n} tokens after {sim.now - asked:.1f} s, {chat.notices[-2:]}")
    sim.require(chat.ended.reason in (EndReason.STOP, EndReason.LENGTH), f"ended: {chat.ended}")


def _has_more(chat: Chat, n_tokens: int) -> bool:
    return len(chat.got) > n_tokens or chat.ended is not None


def play_with_liars(seed: int, n_bad: int, *, verbose: bool = False) -> Sim:
    rng = Random(seed)
    n_honest = rng.randint(1, 3)
    sim, others = household(seed, n_honest, n_bad, rng, verbose=verbose)
    for node in others:
        Liar(sim, node, Random(rng.random()))
    sim.run_until(2.5)
    for _ in range(4):
        watch(sim, ask(sim, rng, n_honest), BEGINS_S[n_bad])
        sim.run_until(sim.now + rng.choice((0.1, 1.0, 20.0)))
    return sim


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    only = metafunc.config.getoption("--sim-seed")
    blocks = [range(only, only + 1)] if only is not None else [range(i, i + BLOCK) for i in range(0, SEEDS, BLOCK)]
    metafunc.parametrize("seeds", blocks, ids=lambda block: f"seeds-{block[0]}-{block[-1]}")


def test_an_answer_goes_on_whatever_one_member_does(seeds: range, request: pytest.FixtureRequest) -> None:
    for seed in seeds:
        print(f"seed {seed}")
        play_with_liars(seed, 1, verbose=request.config.getoption("--sim-seed") is not None)


@pytest.mark.parametrize("seed", range(60))
def test_an_answer_goes_on_whatever_two_members_do(seed: int) -> None:
    play_with_liars(seed, 2)


# --- a member that is sick


def _slow(sim: Sim, node: Node, rng: Random) -> None:
    node.sluggish = rng.choice((10.0, 30.0, 100.0))


def _deaf(sim: Sim, node: Node, rng: Random) -> None:
    sim.cut(rng.choice(sim.nodes[:-1]), node, both=False)


def _dumb(sim: Sim, node: Node, rng: Random) -> None:
    sim.cut(node, rng.choice(sim.nodes[:-1]), both=False)


def _clock(sim: Sim, node: Node, rng: Random) -> None:
    if rng.random() < 0.5:
        restart_with_a_wrong_clock(node)
    else:
        node.offset += rng.choice((1.0, 100.0, 1e6))


def _disk(sim: Sim, node: Node, rng: Random) -> None:
    node.load_fails, node.step_fails = rng.choice(((1.0, 0.0), (0.3, 0.1), (0.0, 1.0), (0.0, 0.05)))


SICK: dict[str, Callable[[Sim, Node, Random], None]] = {
    "slow": _slow,
    "deaf": _deaf,
    "dumb": _dumb,
    "clock": _clock,
    "disk": _disk,
}


@pytest.mark.parametrize("what", SICK)
@pytest.mark.parametrize("seed", range(20))
def test_an_answer_goes_on_and_is_right_beside_a_sick_member(what: str, seed: int) -> None:
    rng = Random(seed)
    n_honest = rng.randint(1, 3)
    sim, (node,) = household(seed, n_honest, 1, rng)
    sim.run_until(2.5)
    if rng.random() < 0.5:
        SICK[what](sim, node, rng)  # else in the middle of the first answer
    else:
        sim.at(rng.uniform(0.0, 0.5), lambda: SICK[what](sim, node, rng))
    for _ in range(3):
        chat = ask(sim, rng, n_honest)
        watch(sim, chat, BEGINS_S[1])
        assert chat.got == chat.expected
        sim.run_until(sim.now + 1.0)


def test_falsified_tokens_are_found_out_when_their_author_is_left_out() -> None:
    assert sum(play_with_liars(seed, 1).n_unsaid for seed in (2, 13, 42, 57)) > 0


# --- a member that only falsifies


def play_with_forgers(seed: int, n_forgers: int) -> tuple[Sim, list[Chat], list[Forger]]:
    """Devices that do everything right but compute; the entry node could check that."""
    rng = Random(seed)
    sim, others = household(seed, 1, n_forgers, rng)
    for node in others:
        node.disk = set(sim.nodes[0].disk)
    forgers = [Forger(sim, node, Random(rng.random()), rng.choice((0.2, 1.0))) for node in others]
    sim.run_until(2.5)
    chats = []
    for _ in range(8):
        chats.append(ask(sim, rng, 1))
        watch(sim, chats[-1], BEGINS_S[n_forgers])
        sim.run_until(sim.now + 5.0)
    return sim, chats, forgers


@pytest.mark.parametrize("n_forgers", [1, 2])
@pytest.mark.parametrize("seed", range(40))
def test_a_member_that_only_falsifies_is_found_out_and_left_out(seed: int, n_forgers: int) -> None:
    sim, chats, forgers = play_with_forgers(seed, n_forgers)
    false = sum(chat.got != chat.expected for chat in chats)
    print(f"seed {seed}: {sim.n_checks} checks, {false} answers were read that are false")
    assert not any(forger.n_forged and forger.share == 1.0 for forger in forgers) or "falsified" in "".join(sim.log)
    assert false <= 4 and all(chat.got == chat.expected for chat in chats[-2:]), "it goes on without them"


@pytest.mark.parametrize("seed", range(30))
def test_who_falsifies_is_found_among_several_that_share_the_layers(seed: int) -> None:
    """No device can hold the model alone; the entry node has it on its disk, and memory for one layer more."""
    rng = Random(seed)
    sim = Sim(seed, 6, kv_bytes=4)
    kv = sim.model.stage_kv_bytes(0, 6, KV_TOKENS)
    shares = (0.9, 0.75, 0.75, 0.75)
    nodes = [sim.add_node(int(sim.model.weight_bytes * share) + kv, speed=5e7 * share, holds=True) for share in shares]
    forger = Forger(sim, nodes[rng.randrange(1, 4)], Random(rng.random()), 1.0)
    forger_node = next(node for node in nodes if node.malice is forger)
    forger_node.core.capabilities = nodes[0].core.capabilities
    sim.run_until(2.5)
    chats = []
    for _ in range(12):
        chats.append(ask(sim, rng, 1))
        watch(sim, chats[-1], BEGINS_S[2])
        sim.run_until(sim.now + 20.0)
    conduct, now = nodes[0].core.placer.conduct, nodes[0].now
    left_out = {node for node in nodes[1:] if conduct.why_left_out(node.id, now)}
    print(f"seed {seed}: {forger.n_forged} forged, {[chat.got == chat.expected for chat in chats]}")
    assert left_out <= {forger_node}, "nobody else for long"
    assert bool(forger.n_forged) == ("falsified" in "".join(sim.log))
    assert all(chat.got == chat.expected for chat in chats[-4:])
