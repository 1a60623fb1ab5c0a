"""llama-server's own routes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from swarm.limits import MAX_TOKENIZED_CHARS
from swarm.node.meters import Totals
from swarm.text.model_text import ModelText
from swarm.text.template import ChatTemplate
from swarm.text.tokenizer import Tokenizer
from tests.helpers.api_client import api_of, returns
from tests.helpers.played_answer import PlayedAnswer
from tests.helpers.tiny_text import text_metadata
from tests.unit.test_api_models import played


def a_model() -> Any:
    metadata = text_metadata("llama")
    tokenizer = Tokenizer.from_metadata(metadata)
    text = ModelText("tiny", tokenizer, ChatTemplate.from_metadata(metadata, tokenizer), len(tokenizer))
    return SimpleNamespace(name="tiny", tokenizer=tokenizer, text=text)


def test_texts_become_tokens_and_texts_again() -> None:
    api = api_of(find=returns(a_model()))
    tokens = api.post("/tokenize", json={"content": "hello there"}).json()["tokens"]
    assert tokens and api.post("/detokenize", json={"tokens": tokens}).json() == {"content": "hello there"}
    pieces = api.post("/tokenize", json={"content": "hello", "with_pieces": True}).json()["tokens"]
    assert "".join(each["piece"] for each in pieces) == "hello"
    assert api.post("/detokenize", json={"tokens": ["x"]}).json()["error"]["param"] == "tokens"
    assert api.post("/detokenize", json={"tokens": [10**6]}).status_code == 400
    assert api.post("/tokenize", json={"content": 5}).json()["error"]["param"] == "content"


def test_a_text_that_is_too_long_is_not_made_into_tokens() -> None:
    reply = api_of(find=returns(a_model())).post("/tokenize", json={"content": "a" * (MAX_TOKENIZED_CHARS + 1)})
    assert reply.status_code == 413 and "in parts" in reply.json()["error"]["message"]


def test_a_conversation_is_shown_as_the_model_gets_it() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    prompt = api_of(find=returns(a_model())).post("/apply-template", json=body).json()["prompt"]
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_the_model_and_the_answers_are_told() -> None:
    questions = SimpleNamespace(answers={"s": PlayedAnswer()}, totals=Totals(answers=4))
    api = api_of(**played(), questions=questions, n_others=1, busy_s=1.5, positions=9)
    assert api.get("/props?model=smollm2-135m").json()["default_generation_settings"]["n_ctx"] == 8192
    slots = api.get("/slots").json()
    assert [slot["is_processing"] for slot in slots[:2]] == [True, False] and slots[0]["n_decoded"] == 3
