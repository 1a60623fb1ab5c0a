"""Answers over a real network: devices that find each other by themselves, and faults of cables and switches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm import load
from swarm.engine.sampling import SamplingParams
from tests.helpers.lan import Lan, why_not
from tests.helpers.nodes import MOST_GAP_S, Heard, NodeProcess, Swarm, cost_of, memories_for, wait_for

pytestmark = [pytest.mark.lan, pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")]

CONTEXT = 512
MAX_TOKENS = 200  # long enough that a silent split is noticed before the end
NO_END = ((0, -100.0), (2, -100.0))
PARAMS = SamplingParams(temperature=0.8, seed=3, logit_bias=NO_END)
PROMPT = "The sea is"
STRIKE_AT = 12  # pieces of text


def body(model: str) -> dict[str, object]:
    # Without the model's end marks: an answer is as long as was asked for.
    bias = {str(token): value for token, value in NO_END}
    sampling = {"temperature": 0.8, "seed": 3, "logit_bias": bias}
    return {"model": model, "prompt": PROMPT, "max_tokens": MAX_TOKENS, **sampling}


def stages(entry: NodeProcess) -> list[str]:
    chats = [chat for chat in entry.status()["chats"] if chat["phase"] == "running"]  # type: ignore[union-attr,attr-defined,index]
    return list(chats[-1]["devices"]) if chats else []  # type: ignore[index]


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan(5, rate="1gbit", delay_ms=0.15) as box:
        yield box


@pytest.fixture(scope="module")
def swarm(lan: Lan, tmp_path_factory: pytest.TempPathFactory, real_model: Path) -> Iterator[Swarm]:
    """An entry node that holds nothing, and four hosts of which any three can hold the model."""
    each = max(memories_for(cost_of(real_model), (14, 14, 2), CONTEXT))
    folder = tmp_path_factory.mktemp("swarm")
    with Swarm(folder, [1_000_000, *[each] * 4], model=real_model, context=CONTEXT, lan=lan) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def calm(swarm: Swarm) -> Heard:
    """The answer when nothing happens."""
    heard = swarm.nodes[0].ask(body(swarm.model))
    assert not heard.error and len(heard.tokens) == MAX_TOKENS
    return heard


Fault = Callable[[Lan, int], None]
FAULTS: dict[str, tuple[Fault, Fault]] = {
    "cut": (lambda lan, host: lan.cut(host), lambda lan, host: lan.heal(host)),
    "split from the entry": (lambda lan, host: lan.split(1, host), lambda lan, host: lan.join(1, host)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_survives_a_stage_whose_cable_is_pulled(lan: Lan, swarm: Swarm, calm: Heard, fault: str) -> None:
    strike, mend = FAULTS[fault]
    for role in range(3):
        struck: list[int] = []

        def on_piece(heard: Heard, role: int = role, struck: list[int] = struck) -> None:
            if len(heard.at) == STRIKE_AT:
                struck.append(host_of(swarm, stages(swarm.nodes[0])[role]))
                strike(lan, struck[0])

        try:
            heard = swarm.nodes[0].ask(body(swarm.model), on_piece=on_piece)
        finally:
            mend(lan, struck[0])
        print(f"{fault}, stage {role}: longest gap {heard.longest_gap_s:.2f} s, {heard.notes}")
        assert not heard.error and heard.tokens == calm.tokens and heard.longest_gap_s < MOST_GAP_S
        swarm.wait_mesh()


def test_an_answer_survives_a_cable_pulled_while_its_prompt_is_read(lan: Lan, swarm: Swarm, real_model: Path) -> None:
    model = load(real_model, threads=1, context=CONTEXT)
    for role in range(3):
        prompt = f"{role} " + "Tell me about the sea and the ships on it. " * 38  # nothing that was read before
        expected = model.generate(prompt, max_tokens=20, params=PARAMS)
        struck: list[int] = []

        def on_reading(done: int, total: int, role: int = role, struck: list[int] = struck) -> None:
            if not struck:
                struck.append(host_of(swarm, stages(swarm.nodes[0])[role]))
                lan.cut(struck[0])

        try:
            heard = swarm.nodes[0].ask({**body(swarm.model), "prompt": prompt, "max_tokens": 20}, on_reading=on_reading)
        finally:
            for host in struck:
                lan.heal(host)
        print(
            f"cut while reading, stage {role}: first token after {heard.timings['first_token_s']:.1f} s, {heard.notes}"
        )
        assert struck and not heard.error and heard.n_prompt > 256
        assert expected.text == heard.text and heard.tokens == expected.tokens
        assert heard.timings["first_token_s"] < MOST_GAP_S
        swarm.wait_mesh()


def test_two_stages_that_do_not_hear_each_other_are_not_neighbours_any_more(
    lan: Lan, swarm: Swarm, calm: Heard
) -> None:
    pair: list[int] = []

    def on_piece(heard: Heard) -> None:
        if len(heard.at) == STRIKE_AT:
            pair.extend(host_of(swarm, name) for name in stages(swarm.nodes[0])[:2])
            lan.split(*pair)

    try:
        heard = swarm.nodes[0].ask(body(swarm.model), on_piece=on_piece)
    finally:
        lan.join(*pair)
    print(f"split pair: longest gap {heard.longest_gap_s:.2f} s, {heard.notes}")
    assert not heard.error and heard.tokens == calm.tokens and heard.longest_gap_s < MOST_GAP_S
    swarm.wait_mesh()


def test_an_entry_node_that_was_cut_off_goes_on_when_it_is_back(lan: Lan, swarm: Swarm, calm: Heard) -> None:
    def on_piece(heard: Heard) -> None:
        if len(heard.at) == STRIKE_AT:
            lan.cut(1)
            wait_for(lambda: all(d["health"] == "lost" for d in others(swarm.nodes[0])), "the entry to be alone")
            lan.heal(1)

    heard = swarm.nodes[0].ask(body(swarm.model), on_piece=on_piece)
    print(f"entry cut: longest gap {heard.longest_gap_s:.2f} s, {heard.notes}")
    assert not heard.error and heard.tokens == calm.tokens and heard.longest_gap_s < MOST_GAP_S
    waits = ("the answer goes on when a device comes back", "waiting for devices")  # by when it was planned last
    assert any(text in note for note in heard.notes for text in waits), heard.notes
    swarm.wait_mesh()


def test_a_frozen_host_is_left_out_and_comes_back(swarm: Swarm, calm: Heard) -> None:
    struck: list[NodeProcess] = []

    def on_piece(heard: Heard) -> None:
        if len(heard.at) == STRIKE_AT:
            struck.append(swarm.nodes[host_of(swarm, stages(swarm.nodes[0])[1]) - 1])
            struck[0].signal(signal.SIGSTOP)

    try:
        heard = swarm.nodes[0].ask(body(swarm.model), on_piece=on_piece)
    finally:
        struck[0].signal(signal.SIGCONT)
    print(f"frozen: longest gap {heard.longest_gap_s:.2f} s, {heard.notes}")
    assert not heard.error and heard.tokens == calm.tokens and heard.longest_gap_s < MOST_GAP_S
    swarm.wait_mesh()


def host_of(swarm: Swarm, name: str) -> int:
    return next(i for i, node in enumerate(swarm.nodes) if node.name == name) + 1


def others(node: NodeProcess) -> list[dict[str, object]]:
    return [d for d in node.status()["devices"] if d["health"] != "here"]  # type: ignore[union-attr,attr-defined,index]
