"""The local API of a real node: OpenAI's own client, and requests that no client would send."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from swarm.node.answer import KV_RESERVATIONS
from tests.helpers.nodes import PATIENCE_S, NodeProcess, Swarm, wait_for

CONTEXT = 1024
QUESTION = [{"role": "user", "content": "Name three colours."}]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, real_model: Path) -> Iterator[Swarm]:
    with Swarm(tmp_path_factory.mktemp("swarm"), [400_000_000], model=real_model, context=CONTEXT) as swarm_:
        yield swarm_


@pytest.fixture
def node(nodes: Swarm) -> NodeProcess:
    return nodes.nodes[0]


@pytest.fixture(scope="module")
def alone(real_model: Path) -> swarm.Model:
    return swarm.load(real_model, threads=1, context=CONTEXT)


def request(
    node: NodeProcess, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, object]]:
    assert node.local is not None
    connection = http.client.HTTPConnection("127.0.0.1", node.local.api_port, timeout=PATIENCE_S)
    data = body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    value = json.loads(response.read())
    connection.close()
    return response.status, value


def error_code(reply: tuple[int, dict[str, object]]) -> tuple[int, object]:
    return reply[0], reply[1]["error"]["code"]  # type: ignore[index]


def test_the_first_requests_of_a_model_may_come_all_at_once(tmp_path: Path, real_model: Path) -> None:
    """The file is hashed and loaded once, for all of them; it is not known to the node before."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a-model.gguf").symlink_to(real_model)
    with Swarm(tmp_path, [400_000_000], context=CONTEXT) as nodes:
        body = {"model": "a-model", "messages": QUESTION, "temperature": 0, "max_tokens": 3}
        with ThreadPoolExecutor(8) as pool:
            path = "/v1/chat/completions"
            replies = list(pool.map(lambda _: request(nodes.nodes[0], "POST", path, body), range(8)))
    assert [status for status, _ in replies] == [200] * 8, replies
    assert len({reply["choices"][0]["message"]["content"] for _, reply in replies}) == 1  # type: ignore[index]


def test_openais_client_lists_models_and_chats(nodes: Swarm, node: NodeProcess, alone: swarm.Model) -> None:
    openai = pytest.importorskip("openai")
    assert node.local is not None
    with openai.OpenAI(base_url=f"http://127.0.0.1:{node.local.api_port}/v1", api_key="none") as client:
        name = client.models.list().data[0].id
        assert client.models.retrieve(name).id == name
        params = {"model": name, "messages": QUESTION, "temperature": 0.7, "seed": 5, "max_tokens": 30}
        whole = client.chat.completions.create(**params)
        chunks = list(client.chat.completions.create(**params, stream=True, stream_options={"include_usage": True}))
        legacy = client.completions.create(model=name, prompt="Once upon a time", max_tokens=8, temperature=0)
        with pytest.raises(openai.NotFoundError, match="no device here has a model called 'gpt-4'"):
            client.chat.completions.create(model="gpt-4", messages=QUESTION)
    expected = alone.chat(QUESTION, max_tokens=30, params=SamplingParams(temperature=0.7, seed=5))
    assert whole.choices[0].message.content == expected.text
    assert whole.choices[0].finish_reason == "length"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (expected.stats.prompt_tokens, 30)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    assert chunks[-1].usage.completion_tokens == 30
    greedy = alone.generate("Once upon a time", max_tokens=8, params=SamplingParams(temperature=0))
    assert legacy.choices[0].text == greedy.text


def test_an_answer_goes_on_past_the_room_that_was_reserved_first(
    nodes: Swarm, node: NodeProcess, alone: swarm.Model
) -> None:
    prompt = "The sea is blue and the sky is blue and the ship is"
    body = {"model": nodes.model, "prompt": prompt, "max_tokens": 10_000, "temperature": 0, "repetition_penalty": 1.3}
    heard = node.ask(body)
    expected = alone.generate(prompt, params=SamplingParams(temperature=0, repetition_penalty=1.3))
    assert expected.text and len(expected.tokens) > KV_RESERVATIONS[0]
    assert heard.tokens == expected.tokens and heard.finish == expected.finish_reason


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(nodes: Swarm, node: NodeProcess) -> None:
    heard = node.ask({"model": nodes.model, "messages": QUESTION, "temperature": 0, "stop": ["most"]})
    assert heard.finish == "stop" and heard.text and "most" not in heard.text


def test_the_next_turn_reuses_what_was_read_before(nodes: Swarm, node: NodeProcess, alone: swarm.Model) -> None:
    first = node.ask({"model": nodes.model, "messages": QUESTION, "temperature": 0, "max_tokens": 40})
    messages = [*QUESTION, {"role": "assistant", "content": first.text}, {"role": "user", "content": "Which is best?"}]
    second = node.ask({"model": nodes.model, "messages": messages, "temperature": 0, "max_tokens": 20})
    expected = alone.chat(messages, max_tokens=20, params=SamplingParams(temperature=0))
    assert expected.text and second.tokens == expected.tokens


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", (400, "bad_parameter")),
        ("[1]", (400, "bad_parameter")),
        ({"messages": []}, (400, "bad_parameter")),
        ({"messages": [{"role": "user"}]}, (400, "bad_prompt")),
        ({"messages": QUESTION, "temperature": "hot"}, (400, "bad_parameter")),
        ({"messages": QUESTION, "temperature": -1}, (400, "bad_parameter")),
        ({"messages": QUESTION, "n": 0}, (400, "bad_parameter")),
        ({"messages": QUESTION, "max_tokens": 0}, (400, "bad_parameter")),
        ({"messages": QUESTION, "stop": [1]}, (400, "bad_parameter")),
        ({"messages": QUESTION, "seed": 1.5}, (400, "bad_parameter")),
        ({"messages": QUESTION, "model": "nothing-like-it"}, (404, "model_not_found")),
        ({"messages": [{"role": "user", "content": "word " * 1100}]}, (400, "context_length_exceeded")),
    ],
)
def test_a_bad_request_gets_one_clear_error(node: NodeProcess, body: object, code: tuple[int, str]) -> None:
    reply = request(node, "POST", "/v1/chat/completions", body)
    assert error_code(reply) == code
    text = reply[1]["error"]["message"]  # type: ignore[index]
    assert text and "\n" not in text and "Traceback" not in text


def test_paths_that_do_not_exist_are_errors_of_the_same_shape(node: NodeProcess) -> None:
    assert request(node, "GET", "/v1/nothing")[0] == 404
    assert request(node, "GET", "/v1/chat/completions")[0] == 405
    assert request(node, "GET", "/health")[1]["status"] == "ok"


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"host": "127.0.0.1.evil.example:80"}]
)
def test_a_web_page_cannot_use_the_api(node: NodeProcess, headers: dict[str, str]) -> None:
    assert error_code(request(node, "GET", "/v1/models", **headers)) == (403, "not_local")
    assert request(node, "POST", "/swarm/leave", {}, **headers)[0] == 403
    assert node.is_running


def test_changes_need_the_token_of_the_node(node: NodeProcess) -> None:
    for path in ("/swarm/leave", "/swarm/invite", "/swarm/rekey", "/swarm/models"):
        assert request(node, "POST", path, {})[0] == 403
        assert request(node, "POST", path, {}, authorization="Bearer wrong")[0] == 403
    assert node.is_running


def test_a_client_that_goes_away_ends_its_answer(nodes: Swarm, node: NodeProcess) -> None:
    assert node.local is not None
    no_end = {"0": -100, "2": -100}  # biases of the model's end marks: it goes on until somebody stops it
    for stream in (True, False):
        question = {"messages": QUESTION, "max_tokens": 900, "stream": stream, "logit_bias": no_end}
        body = json.dumps(question).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", node.local.api_port)) as client:
            client.sendall(head.encode() + body)
            wait_for(lambda: "running" in phases(node), "the answer to begin")
        wait_for(lambda: "running" not in phases(node), "the answer to end", 10.0)


def phases(node: NodeProcess) -> list[str]:
    return [chat["phase"] for chat in node.status()["chats"]]  # type: ignore[index,attr-defined]


def test_the_api_listens_on_this_device_only(node: NodeProcess) -> None:
    assert node.local is not None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.2", 0))  # another address of this device: the API is not on all of them
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", node.local.api_port), timeout=5).close()


MIB = 1 << 20
HEAVY: dict[str, dict[str, object]] = {
    "one word": {"messages": [{"role": "user", "content": "a" * 3 * MIB}]},
    "words": {"prompt": "word " * (MIB // 2)},
    "marks": {"messages": [{"role": "user", "content": "<" * 4 * MIB}]},
    "an assistant's marks": {"messages": [{"role": "assistant", "content": "<|" * 2 * MIB}, *QUESTION]},
    "flags": {"messages": [{"role": "user", "content": "\ufdd0" * MIB}]},
    "accents": {"prompt": "e\u0301\u0323" * (MIB // 8)},
    "ids": {"prompt": [1] * 262_000},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 60_000}]},
    "many messages": {"messages": QUESTION * 20_000},
    "calls": {
        "messages": [
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" + "[]," * MIB + "1]"}}]}
        ]
    },
    "tools": {"messages": QUESTION, "tools": [{"function": {"name": "f" * 64, "parameters": {"<": "<" * 64}}}] * 9_000},
    "stops": {"messages": QUESTION, "stop": ["a" * 7 * MIB], "max_tokens": 20},
    "a schema": {
        "messages": QUESTION,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"schema": {"properties": {f"p{i}": {"type": "integer"} for i in range(500)}}},
        },
    },
    "a grammar": {"prompt": "a", "guided_regex": "(a{1000}){1000}"},
    "biases": {"messages": QUESTION, "logit_bias": {str(i): 1 for i in range(100_000)}},
}


# Seconds, most of them the machine's; a neighbour takes a device for lost after two. Beside busy programs any one reply
# may be late: what holds a node up does so each time.
MOST_S = 0.5


@pytest.mark.parametrize("name", HEAVY)
def test_no_request_makes_the_node_deaf(node: NodeProcess, name: str) -> None:
    path = "/v1/completions" if "prompt" in HEAVY[name] else "/v1/chat/completions"
    body = json.dumps({"max_tokens": 2, **HEAVY[name]})
    slowest_s = slowest_health_s(node, path, body)
    for _ in range(2):
        if slowest_s >= MOST_S:
            slowest_s = min(slowest_s, slowest_health_s(node, path, body))
    assert slowest_s < MOST_S


def slowest_health_s(node: NodeProcess, path: str, body: str) -> float:
    """The longest time that another request took while this one was answered."""
    replies: list[tuple[int, dict[str, object]]] = []
    asking = threading.Thread(target=lambda: replies.append(request(node, "POST", path, body)))
    asking.start()
    slowest_s = 0.0
    while asking.is_alive():
        begun = time.monotonic()
        assert request(node, "GET", "/health")[0] == 200
        slowest_s = max(slowest_s, time.monotonic() - begun)
        time.sleep(0.005)
    assert replies
    return slowest_s
