"""What the command line asks of a node is what the node's API takes."""

from __future__ import annotations

import msgspec
import pytest

from swarm.answers import ExpertUse, Stats
from swarm.api.fields import params_of
from swarm.api.openai_chat import ChatRequest
from swarm.api.openai_completions import CompletionRequest
from swarm.api.openai_reply import timings, usage
from swarm.cli.local import LocalNode
from swarm.cli.remote import RemoteModel
from swarm.engine.sampling import SamplingParams
from tests.helpers.played_answer import PlayedAnswer

PARAMS = SamplingParams(temperature=0.5, top_k=7, seed=3, presence_penalty=0.25)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> RemoteModel:
    monkeypatch.setattr(LocalNode, "post", lambda *_: {"name": "toy", "context": 512, "id": "ab"})
    return RemoteModel(LocalNode(1, "ab", "attic", 8642, "secret"), "toy", lambda text, begun: None)


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_a_question_means_to_the_api_what_it_meant_here(
    model: RemoteModel, kind: type[ChatRequest] | type[CompletionRequest]
) -> None:
    body = model._body(20, PARAMS) | {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}
    request = msgspec.convert(body, kind)
    assert params_of(request) == PARAMS
    assert request.guesses is None
    model._guess = False
    assert msgspec.convert(model._body(20, PARAMS) | body, kind).guesses == 0
    model._guess = True
    assert not set(model._body(20, PARAMS)) - set(kind.__struct_fields__), "what the API does not know it would ignore"


@pytest.mark.parametrize("use", [ExpertUse(), ExpertUse(hits=3, misses=1, read_bytes=4096, wait_s=0.5)])
def test_figures_of_experts_come_with_those_of_the_answer(model: RemoteModel, use: ExpertUse) -> None:
    played = PlayedAnswer()
    played.stats = Stats(prompt_tokens=7, generated_tokens=3, experts=use)
    answer = model.generate("hi", max_tokens=3, params=PARAMS)
    answer._figures({"swarm_finish": "stop", "usage": usage([played]), "timings": timings(played.stats)})  # type: ignore[list-item]
    assert answer.stats.experts == use
