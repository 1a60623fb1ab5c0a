"""A device dies or freezes in the middle of an answer: the reader gets the very same text, only later."""

from __future__ import annotations

import contextlib
import http.client
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from tests.helpers.nodes import MOST_GAP_S, Heard, NodeProcess, Swarm, cost_of, memories_for, wait_for

CONTEXT = 512
LONG_PROMPT = "Tell me about the sea, the ships on it and the people who sail them. " * 40
MAX_TOKENS = 80
NO_END = ((0, -100.0), (2, -100.0))  # biases of the model's end marks: an answer is as long as was asked for
PARAMS = SamplingParams(temperature=0.8, seed=11, logit_bias=NO_END)


def body(model: str, prompt: str) -> dict[str, object]:
    bias = {str(token): value for token, value in NO_END}
    sampling = {"temperature": 0.8, "seed": 11, "logit_bias": bias}
    return {"model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, **sampling}


def names_of_stages(node: NodeProcess) -> list[str]:
    """Who works on the answer that runs, in the order of the pipeline."""
    chats = [chat for chat in node.status()["chats"] if chat["phase"] in ("opening", "running")]  # type: ignore[union-attr,attr-defined,index]
    return list(chats[-1]["devices"]) if chats else []  # type: ignore[index]


def strike(nodes: Swarm, role: int, fault: Callable[[NodeProcess], None]) -> str:
    """Do something to the device that has a role in the pipeline, unless it is the entry node; return its name."""
    entry = nodes.nodes[0]
    name = names_of_stages(entry)[role]
    victim = next(node for node in nodes.nodes if node.name == name)
    assert victim is not entry
    fault(victim)
    return name


def memories(path: Path, context: int) -> list[int]:
    """An entry node that holds nothing, and four devices of which any three can hold the model: each can be struck."""
    each = max(memories_for(cost_of(path), (14, 14, 2), context))  # the head is as large as twelve layers
    return [1_000_000, *[each] * 4]


def kill(node: NodeProcess) -> None:
    node.signal(signal.SIGKILL)


def freeze(node: NodeProcess) -> None:
    node.signal(signal.SIGSTOP)


# A frozen device is noticed by silence in every role alike; tests/lan freezes and cuts the others.
ROLES: dict[Callable[[NodeProcess], None], Sequence[int]] = {kill: range(3), freeze: (1,)}


def revive(nodes: Swarm, name: str) -> None:
    """Bring a struck device back, and wait until everybody knows."""
    victim = next(node for node in nodes.nodes if node.name == name)
    if victim.is_running:
        victim.signal(signal.SIGCONT)
    else:
        victim.start()
        victim.wait_ready()
    nodes.wait_mesh()


@pytest.mark.parametrize("fault", [kill, freeze])
def test_an_answer_survives_a_device_lost_while_it_is_written(
    tmp_path: Path, real_model: Path, fault: Callable[[NodeProcess], None]
) -> None:
    with Swarm(tmp_path / "swarm", memories(real_model, CONTEXT), model=real_model, context=CONTEXT) as nodes:
        entry = nodes.nodes[0]
        calm = entry.ask(body(nodes.model, "The sea is"))
        assert not calm.error and len(calm.tokens) == MAX_TOKENS
        for role in ROLES[fault]:
            struck: list[str] = []

            def on_piece(heard: Heard, role: int = role, struck: list[str] = struck) -> None:
                if len(heard.at) == 15:
                    struck.append(strike(nodes, role, fault))

            heard = entry.ask(body(nodes.model, "The sea is"), on_piece=on_piece)
            print(f"{fault.__name__} stage {role}: longest gap {heard.longest_gap_s:.2f} s, {heard.notes}")
            assert struck and not heard.error and heard.longest_gap_s < MOST_GAP_S
            assert heard.tokens == calm.tokens and heard.text == calm.text
            assert any(f"{struck[0]} is gone; going on with" in note for note in heard.notes), heard.notes
            revive(nodes, struck[0])


@pytest.mark.parametrize("fault", [kill, freeze])
def test_an_answer_survives_a_device_lost_while_its_prompt_is_read(
    tmp_path: Path, real_model: Path, fault: Callable[[NodeProcess], None]
) -> None:
    model = swarm.load(real_model, threads=1, context=1024)
    with Swarm(tmp_path / "swarm", memories(real_model, 1024), model=real_model, context=1024) as nodes:
        entry = nodes.nodes[0]
        assert not entry.ask(body(nodes.model, "The sea is")).error  # everything is loaded
        for role in ROLES[fault]:
            prompt = f"{role} {LONG_PROMPT}"  # nothing in common with what was read before
            expected = model.generate(prompt, max_tokens=20, params=PARAMS)
            struck: list[str] = []

            def on_reading(done: int, total: int, role: int = role, struck: list[str] = struck) -> None:
                if not struck:
                    struck.append(strike(nodes, role, fault))

            heard = entry.ask({**body(nodes.model, prompt), "max_tokens": 20}, on_reading=on_reading)
            print(f"{fault.__name__} stage {role} while reading: {heard.timings}, {heard.notes}")
            assert struck and not heard.error and heard.n_prompt > 512
            assert heard.timings["first_token_s"] < MOST_GAP_S
            assert expected.text == heard.text and heard.tokens == expected.tokens
            revive(nodes, struck[0])


def test_an_answer_waits_for_a_device_without_which_the_model_does_not_fit(tmp_path: Path, real_model: Path) -> None:
    cost = cost_of(real_model)
    model = swarm.load(real_model, threads=1, context=CONTEXT)
    expected = model.generate("The sea is", max_tokens=MAX_TOKENS, params=PARAMS)
    with Swarm(tmp_path / "swarm", memories_for(cost, (16, 14), CONTEXT), model=real_model, context=CONTEXT) as nodes:
        entry, other = nodes.nodes

        def on_piece(heard: Heard) -> None:
            if len(heard.at) == 15:
                other.kill()
                wait_for(lambda: "parked" in phases(entry), "the answer to wait")
                other.start()

        heard = entry.ask(body(nodes.model, "The sea is"), on_piece=on_piece)
        fetched = other.status()["fetched_bytes"]
    assert expected.text == heard.text and heard.tokens == expected.tokens and not heard.error
    assert any("more memory than the devices at hand have; the answer goes on when" in n for n in heard.notes)
    assert fetched == 0, "what it had fetched before it was killed is still there"


def test_a_device_that_joins_is_used_from_the_next_answer_on(tmp_path: Path, real_model: Path) -> None:
    cost = cost_of(real_model)
    small, large = memories_for(cost, (4, 26), CONTEXT)
    with Swarm(tmp_path / "swarm", [small], model=real_model, context=CONTEXT) as nodes:
        entry = nodes.nodes[0]
        refused = entry.ask(body(nodes.model, "The sea is"))
        assert "more memory than the devices at hand have" in refused.error and "does_not_fit" in refused.error
        nodes.add(large)
        nodes.wait_mesh()
        heard = entry.ask(body(nodes.model, "The sea is"))
        assert not heard.error and len(heard.tokens) == MAX_TOKENS


def test_the_death_of_an_entry_node_loses_only_its_own_answer(tmp_path: Path, real_model: Path) -> None:
    each = max(memories_for(cost_of(real_model), (14, 14, 2), 2 * CONTEXT))
    with Swarm(tmp_path / "swarm", [each] * 4, model=real_model, context=CONTEXT) as nodes:
        first, *_, last = nodes.nodes
        calm = first.ask(body(nodes.model, "The sea is"))
        assert not calm.error and not last.ask(body(nodes.model, "The sea is")).error

        def on_piece(heard: Heard) -> None:
            if len(heard.at) == 15:
                kill(last)

        doomed = Heard()
        reader = threading.Thread(target=lambda: ask_until_cut(last, body(nodes.model, "The ship is"), doomed))
        reader.start()
        heard = first.ask(body(nodes.model, "The sea is"), on_piece=on_piece)
        reader.join()
        assert heard.tokens == calm.tokens and not heard.error
        last.start()
        last.wait_ready()
        again = last.ask(body(nodes.model, "The ship is"))
        assert not again.error and again.text.startswith(doomed.text)


def ask_until_cut(node: NodeProcess, question: dict[str, object], heard: Heard) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        node.ask(question, heard)


def phases(node: NodeProcess) -> list[str]:
    return [chat["phase"] for chat in node.status()["chats"]]  # type: ignore[union-attr,attr-defined,index]
