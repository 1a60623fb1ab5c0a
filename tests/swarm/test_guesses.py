"""Guesses change no text: real weights, alone, in a pipeline of three, where three share all layers, over a death."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from swarm.text.forms import json_form
from tests.helpers.guesses import FixedTimes
from tests.helpers.nodes import Heard, Swarm, cost_of, memories_for
from tests.helpers.schemas import listed, record, text

CONTEXT = 512
PLENTY = 2_000_000_000
MOST = 90
CODE = "def area(width, height):\n    result = width * height\n    print('area is', result)\n    return result\n"
TEXTS = {
    "code": f"Write this again with total in place of result:\n```python\n{CODE}```",
    "list": "Say ten times: The sea is deep and the sky is high.",
    "prose": "Why is the sky blue?",
}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "usual": {"temperature": 0.8, "top_p": 0.95, "seed": 1},
    "lively": {"temperature": 1.2, "top_p": 0.9, "seed": 2},
    "penalties": {"temperature": 0.6, "presence_penalty": 0.4, "frequency_penalty": 0.2, "seed": 3},
}
FORM = record(title=text(20), lines=listed(text(12), 4, 4))


def asked(name: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": TEXTS[name]}]


@pytest.fixture(scope="module")
def plain(real_model: Path) -> swarm.Model:
    return swarm.load(real_model, threads=1, context=CONTEXT, guess="never")


@pytest.fixture(scope="module", params=["pipeline", "slices"])
def three(
    request: pytest.FixtureRequest, real_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Swarm]:
    memories = memories_for(cost_of(real_model), (10, 10, 10), CONTEXT)
    memories = memories if request.param == "pipeline" else [PLENTY] * 3
    folder = tmp_path_factory.mktemp("three")
    with Swarm(folder, memories, model=real_model, context=CONTEXT, layout=request.param) as nodes:
        yield nodes


def cuts_of(nodes: Swarm) -> set[tuple[int, int]]:
    """The first layer and the end of each stage."""
    devices: Any = nodes.nodes[0].status()["devices"]
    return {(shard["first"], shard["end"]) for device in devices for shard in device["shards"]}


def expected(plain: swarm.Model, name: str, way: dict[str, Any], **more: Any) -> list[int]:
    """The ids without guesses."""
    answer = plain.chat(asked(name), max_tokens=MOST, params=SamplingParams(**way), **more)
    assert answer.text and answer.stats.guesses == 0
    return answer.tokens


@pytest.mark.parametrize("way", WAYS)
def test_one_device_says_the_same(real_model: Path, plain: swarm.Model, way: str) -> None:
    guessing = swarm.load(real_model, threads=1, context=CONTEXT)
    session = guessing._sessions.take([1])
    session.guesser.times = FixedTimes()  # as many guesses as are worth anything
    guessing._sessions.give_back(session)
    n_guessed = 0
    for name in TEXTS:
        answer = guessing.chat(asked(name), max_tokens=MOST, params=SamplingParams(**WAYS[way]))
        assert answer.text is not None and answer.tokens == expected(plain, name, WAYS[way])
        n_guessed += answer.stats.guessed_tokens
    assert n_guessed


def test_three_devices_say_the_same_in_fewer_rounds(three: Swarm, plain: swarm.Model) -> None:
    n_guessed = 0.0
    for way in WAYS.values():
        for name in TEXTS:
            heard = three.nodes[0].ask({"model": three.model, "messages": asked(name), "max_tokens": MOST, **way})
            assert (heard.error, heard.tokens) == ("", expected(plain, name, way)), (way, name)
            n_guessed += heard.timings.get("draft_n_accepted", 0)
    assert n_guessed > 0  # how many are worth it is judged by how long steps take here and now
    assert len(cuts_of(three)) == (1 if three.layout == "slices" else 3)


def test_a_form_and_what_is_told_of_each_token_are_the_same(three: Swarm, plain: swarm.Model) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "poem", "schema": FORM, "strict": True}}
    body = {"model": three.model, "messages": asked("list"), "max_tokens": MOST, **WAYS["usual"]}
    heard = three.nodes[0].ask({**body, "response_format": form})
    assert heard.tokens == expected(plain, "list", WAYS["usual"], form=json_form(FORM))
    json.loads(heard.text)
    assert heard.timings["draft_n_accepted"] > 0, "what the form asks for next goes along"
    told = []
    for node in three.nodes[:2]:  # the second time the prompt's keys and values may be there, and other steps follow
        reply: Any = node.post("/v1/chat/completions", {**body, "logprobs": True, "top_logprobs": 2})
        told.append([(each["token"], each["logprob"]) for each in reply["choices"][0]["logprobs"]["content"]])
        assert len(told[-1]) == reply["usage"]["completion_tokens"]
    assert told[0] == told[1]


def test_a_stop_string_within_guesses_ends_the_answer_there(three: Swarm) -> None:
    body = {"model": three.model, "messages": asked("list"), "max_tokens": MOST, "temperature": 0.0}
    whole = three.nodes[0].ask(dict(body))
    word = whole.text[len(whole.text) // 2 :][:8]
    stopped = three.nodes[0].ask({**body, "stop": [word]})
    assert stopped.text == whole.text[: whole.text.index(word)] and stopped.finish == "stop"


@pytest.mark.parametrize("layout", ["pipeline", "slices"])
def test_an_answer_with_guesses_goes_on_when_a_device_dies(
    tmp_path: Path, real_model: Path, plain: swarm.Model, layout: str
) -> None:
    first, second = memories_for(cost_of(real_model), (12, 18), CONTEXT)
    memories = [first, second, second] if layout == "pipeline" else [PLENTY] * 3
    with Swarm(tmp_path, memories, model=real_model, context=CONTEXT, layout=layout) as nodes:

        def kill_the_last_stage(heard: Heard) -> None:
            if len(heard.at) == 12:
                devices: Any = nodes.nodes[0].status()["devices"]
                holders = {device["name"] for device in devices if device["shards"]}
                next(node for node in nodes.nodes[1:] if node.name in holders).kill()

        body = {"model": nodes.model, "messages": asked("code"), "max_tokens": MOST, **WAYS["greedy"]}
        heard = nodes.nodes[0].ask(body, on_piece=kill_the_last_stage)
        assert sum(node.is_running for node in nodes.nodes) == 2
    assert (heard.error, heard.tokens) == ("", expected(plain, "code", WAYS["greedy"]))


@pytest.mark.parametrize("layout", ["pipeline", "slices"])
def test_a_small_model_beside_the_entry_node_changes_no_word(
    tmp_path: Path, real_model: Path, plain: swarm.Model, layout: str
) -> None:
    """It is the large one itself: right, and so slow that it rests as soon as that was seen."""
    cost = cost_of(real_model)
    spare = cost.all_stored_bytes + cost.stage_kv_bytes(0, cost.n_layers, CONTEXT)
    memories = memories_for(cost, (10, 10, 10), CONTEXT) if layout == "pipeline" else [PLENTY] * 3
    memories[-1] += spare  # of a device that does not run the first layers, where layers are not shared
    with Swarm(tmp_path, memories, model=real_model, context=CONTEXT, layout=layout) as nodes:
        entry, n_guessed = nodes.nodes[-1], 0.0
        assert entry.post("/swarm/draft", {"path": str(real_model), "model": nodes.model}) == {"draft": real_model.name}
        for name, way in WAYS.items():
            body = {"model": nodes.model, "messages": asked("prose"), "max_tokens": MOST, **way}
            heard = entry.ask(dict(body))
            assert (heard.error, heard.tokens) == ("", expected(plain, "prose", way)), name
            n_guessed += heard.timings.get("draft_n_accepted", 0)
        assert len(cuts_of(nodes)) == (1 if layout == "slices" else 3)
    assert n_guessed > 0
