"""Log probabilities, as chats and completions tell them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from swarm.answers import Piece
from swarm.api.errors import BadRequest
from swarm.api.openai_chat import parse_chat
from swarm.api.openai_completions import parse_completion
from swarm.api.openai_logprobs import for_chat, for_completion
from swarm.wire.records import TokenChance
from tests.helpers.played_answer import PlayedAnswer, events_in, streamed, whole

WORDS = ["no", " é", "!"]
TEXTS = SimpleNamespace(
    decode=lambda ids, special=False: "".join(WORDS[i] for i in ids), token_bytes=lambda i: WORDS[i].encode()
)
TOLD = [
    (TokenChance(1, -0.5), TokenChance(1, -0.5), TokenChance(0, -1.5)),
    (TokenChance(2, -1e30), TokenChance(0, -0.1), TokenChance(2, -1e30)),
]
ASKED = {"messages": [{"role": "user", "content": "hi"}]}


def told_answer() -> PlayedAnswer:
    answer = PlayedAnswer(Piece(" é"), Piece("!"))
    answer.told = list(TOLD)
    answer.model.tokenizer = TEXTS
    return answer


def test_a_chat_tells_each_token_with_its_bytes_and_the_likeliest() -> None:
    first, _ = for_chat(TOLD, TEXTS)["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == (" é", -0.5, [0x20, 0xC3, 0xA9])
    assert [each["token"] for each in first["top_logprobs"]] == [" é", "no"]


def test_a_completion_tells_lists() -> None:
    told = for_completion(TOLD, TEXTS, 10)
    assert told["tokens"] == [" é", "!"] and told["text_offset"] == [10, 12]
    assert told["top_logprobs"][0] == {" é": -0.5, "no": -1.5}


def test_requests_ask_for_so_many() -> None:
    def n_told(**fields: object) -> int:
        return parse_chat({**ASKED, **fields}).questions[0].params.n_told

    assert (n_told(), n_told(logprobs=True), n_told(logprobs=True, top_logprobs=5)) == (0, 1, 6)
    assert parse_completion({"prompt": "a", "logprobs": 3}).questions[0].params.n_told == 4
    assert parse_completion({"prompt": "a", "logprobs": 0}).questions[0].params.n_told == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs")],
)
def test_what_cannot_be_told_is_refused(fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat({**ASKED, **fields})
    assert caught.value.param == param


def test_replies_tell_each_token_once() -> None:
    reply = whole(parse_chat({**ASKED, "logprobs": True}).dialect, told_answer())
    assert [each["token"] for each in reply["choices"][0]["logprobs"]["content"]] == [" é", "!"]
    data = streamed(parse_completion({"prompt": "a", "logprobs": 2}).dialect, told_answer())
    parts = [v["choices"][0].get("logprobs") for _, v in events_in(data) if v != "[DONE]"]
    assert [token for part in parts if part for token in part["tokens"]] == [" é", "!"]
    assert "logprobs" not in whole(parse_chat(ASKED).dialect, told_answer())["choices"][0]
