"""Answers that are held to a form, on real weights: alone, through the API, and across the death of a device."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from swarm.text.forms import json_form
from tests.helpers.nodes import Heard, Swarm, cost_of, memories_for
from tests.helpers.schemas import SCHEMAS, listed, record, text

CONTEXT = 512
MOST = 300
SEEDED = {"temperature": 0.8, "seed": 3}
LONG = record(title=text(60), lines=listed(text(40), 6, 6))
SHORT = list(SCHEMAS)[::5]  # tools/forms.py takes all of them


def asked(name: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": f"Answer with JSON: {name}."}]


@pytest.fixture(scope="module")
def alone(real_model: Path) -> swarm.Model:
    return swarm.load(real_model, threads=1, context=CONTEXT)


@pytest.mark.parametrize("name", SHORT)
def test_an_answer_has_its_schema(alone: swarm.Model, name: str) -> None:
    params = SamplingParams(**SEEDED)  # type: ignore[arg-type]
    answer = alone.chat(asked(name), form=json_form(SCHEMAS[name]), max_tokens=MOST, params=params)
    jsonschema.validate(json.loads(answer.text), SCHEMAS[name])


def body(nodes: Swarm) -> dict[str, object]:
    form = {"type": "json_schema", "json_schema": {"name": "poem", "schema": LONG, "strict": True}}
    return {"model": nodes.model, "messages": asked("a poem"), "max_tokens": MOST, "response_format": form, **SEEDED}


def test_an_answer_keeps_its_form_when_a_device_dies_in_the_middle_of_it(
    tmp_path: Path, real_model: Path, alone: swarm.Model
) -> None:
    """The state of the grammar is a function of the ids: whoever samples next goes on with the same tokens."""
    params = SamplingParams(**SEEDED)  # type: ignore[arg-type]
    expected = alone.chat(asked("a poem"), form=json_form(LONG), max_tokens=MOST, params=params)
    jsonschema.validate(json.loads(expected.text), LONG)
    first, second = memories_for(cost_of(real_model), (12, 18), CONTEXT)
    with Swarm(tmp_path, [first, second, second], model=real_model, context=CONTEXT) as nodes:
        killed: list[str] = []

        def kill_the_last_stage(heard: Heard) -> None:
            if len(heard.at) == 15:
                assert 0 < len(heard.text) < len(expected.text)
                victim = next(node for node in nodes.nodes[1:] if holds_layers(nodes, node.name))
                victim.kill()
                killed.append(victim.name)

        heard = nodes.nodes[0].ask(body(nodes), on_piece=kill_the_last_stage)
    assert killed and heard.error == ""
    assert heard.text == expected.text and heard.tokens == expected.tokens


def test_a_form_that_leads_nowhere_is_held_against_no_device(tmp_path: Path, real_model: Path) -> None:
    """After "a" nothing may come. Who asked hears that, whichever device samples, and the next answer is as ever."""
    nowhere = {"model": "", "messages": asked("a"), "grammar": 'root ::= "a" more\nmore ::= more', **SEEDED}
    first, second = memories_for(cost_of(real_model), (12, 18), CONTEXT)
    with Swarm(tmp_path, [first, second], model=real_model, context=CONTEXT) as nodes:
        for _ in range(2):
            heard = nodes.nodes[0].ask({**nowhere, "model": nodes.model})
            assert "the form of the answer cannot be kept" in heard.error and "going on without" not in str(heard.notes)
        heard = nodes.nodes[0].ask({"model": nodes.model, "messages": asked("a"), "max_tokens": 4, **SEEDED})
        assert heard.error == "" and heard.text and heard.notes == []
        assert "step_failed" not in "".join(node.log for node in nodes.nodes)


def holds_layers(nodes: Swarm, name: str) -> bool:
    devices = nodes.nodes[0].status()["devices"]
    return any(device["name"] == name and device["shards"] for device in devices)  # type: ignore[attr-defined]
