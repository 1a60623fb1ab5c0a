"""What the command line asks of a node: to see is free, to change needs the token."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.config import HubSettings
from swarm.errors import ModelNotFound, SwarmNetworkError
from swarm.node.answerable import Answerable
from swarm.node.peers import Invited, Rekeyed
from tests.helpers.api_client import CHANGES, api_of, returns


def test_status_and_doctor_are_for_everybody_here() -> None:
    api = api_of(status=SimpleNamespace(collect=returns({"devices": []})), doctor=lambda: [{"level": "bad"}])
    assert api.get("/swarm/status").json() == {"devices": []}
    assert api.get("/swarm/doctor").json() == {"findings": [{"level": "bad"}]}


def test_every_device_that_a_plan_adds_is_counted() -> None:
    plan = returns({"fits": True})
    body = {"model": "m", "context": 4096, "add": ["pi5"] * 40, "chats": 3}
    assert api_of(plan=plan).post("/swarm/plan", json=body, headers=CHANGES).json() == {"fits": True}
    assert plan.calls == [("m", ["pi5"] * 40, 4096, 3)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("context", bad) for bad in (-1, "x", 10**10, 1.5, True)),
        *(("chats", bad) for bad in (0, 17, "x", True)),
        ("add", "pi5"),
        ("add", [1]),
        ("model", 1),
    ],
)
def test_a_plan_of_nonsense_is_refused(field: str, value: object) -> None:
    reply = api_of(plan=returns({})).post("/swarm/plan", json={field: value}, headers=CHANGES)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == field


def test_a_model_is_told_by_its_name() -> None:
    spec = SimpleNamespace(context_length=2048, family="llama")
    known = SimpleNamespace(id="ab", name="m", spec=spec)
    of_node = {"find": returns(known), "settings": SimpleNamespace(context=0)}
    told = {"id": "ab", "name": "m", "context": 2048, "family": "llama"}
    api = api_of(answerable=returns([Answerable("other", 1, id="cd")]), **of_node)
    assert api.post("/swarm/model", json={"model": "m"}, headers=CHANGES).json() == told
    listed = api_of(answerable=returns([Answerable("as-its-file-is-called", 1, id="ab")]), **of_node)
    assert listed.post("/swarm/model", json={"model": "m"}, headers=CHANGES).json() == {
        **told,
        "name": "as-its-file-is-called",
    }


def test_an_error_of_the_node_has_openais_shape() -> None:
    async def find(name: str) -> None:
        raise ModelNotFound(f"no device here has a model called {name!r}")

    reply = api_of(find=find).post("/swarm/model", json={"model": "x"}, headers=CHANGES)
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["invite", "leave", "rekey", "models", "plan", "model"])
def test_changes_need_the_token(path: str) -> None:
    for headers in ({}, {"authorization": "Bearer guess"}):
        reply = api_of().post(f"/swarm/{path}", json={}, headers=headers)
        assert reply.status_code == 403 and "only the user" in reply.json()["error"]["message"]


def test_an_invitation_is_opened() -> None:
    api = api_of(peers=SimpleNamespace(invite=returns(Invited("7-482-915", 7419, 600.0))))
    reply = api.post("/swarm/invite", headers=CHANGES)
    assert reply.json() == {"code": "7-482-915", "port": 7419, "seconds": 600.0}
    rows = api.post("/swarm/invite", json={"qr": True}, headers=CHANGES).json()["qr"]
    assert len(rows) >= 21 and all(len(row) == len(rows) and set(row) <= {"0", "1"} for row in rows)
    assert rows[0].startswith("11111110") and rows[-1].startswith("11111110"), "what cameras look for"


def test_leaving_ends_the_node() -> None:
    stopping = asyncio.Event()
    reply = api_of(stopping=stopping, n_others=3).post("/swarm/leave", headers=CHANGES)
    assert reply.json() == {"left": True, "devices": 3} and stopping.is_set()


def test_a_new_key_is_made_without_some() -> None:
    new_key = returns(Rekeyed(("attic",), ("cellar",), ("lost",)))
    api = api_of(peers=SimpleNamespace(new_key=new_key))
    reply = api.post("/swarm/rekey", json={"without": ["lost"]}, headers=CHANGES)
    assert reply.json() == {"done": ["attic"], "missed": ["cellar"], "shut_out": ["lost"]}
    assert new_key.calls == [(["lost"],)]
    for without in ("lost", [1], [""]):
        assert api.post("/swarm/rekey", json={"without": without}, headers=CHANGES).status_code == 400


def test_a_file_is_offered_by_its_full_path() -> None:
    node: Any = {"add_file": returns("ab"), "library": SimpleNamespace(known={"ab": SimpleNamespace(name="m")})}
    api = api_of(**node)
    assert api.post("/swarm/models", json={"path": "/m.gguf"}, headers=CHANGES).json() == {"id": "ab", "name": "m"}
    assert [str(path) for (path,) in node["add_file"].calls] == ["/m.gguf"]
    for path in ("m.gguf", 5, None):
        assert api.post("/swarm/models", json={"path": path}, headers=CHANGES).status_code == 400


def test_a_small_model_is_named_by_its_full_path_and_for_a_model() -> None:
    node: Any = {"draft": returns("small.gguf")}
    api = api_of(**node)
    reply = api.post("/swarm/draft", json={"path": "/small.gguf", "model": "m"}, headers=CHANGES)
    assert reply.json() == {"draft": "small.gguf"}
    assert [(str(path), model) for path, model in node["draft"].calls] == [("/small.gguf", "m")]
    assert api.post("/swarm/draft", json={"path": "mtp", "model": "m"}, headers=CHANGES).status_code == 200
    for path in ("small.gguf", 5, None):
        assert api.post("/swarm/draft", json={"path": path}, headers=CHANGES).status_code == 400


def test_trouble_with_the_network_is_a_503() -> None:
    async def invite() -> None:
        raise SwarmNetworkError("nobody could answer it")

    reply = api_of(peers=SimpleNamespace(invite=invite)).post("/swarm/invite", headers=CHANGES)
    assert reply.status_code == 503 and reply.json()["error"]["message"] == "nobody could answer it"


def test_a_pull_uses_the_hub_of_whoever_asks_or_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "own")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    start = returns({"alone": True})
    api = api_of(house=SimpleNamespace(start=start))
    for body in ({"model": "m"}, {"model": "m", "endpoint": "http://other"}):
        assert api.post("/swarm/pull", json=body, headers=CHANGES).json() == {"alone": True}
    assert start.calls == [("m", HubSettings("http://127.0.0.1:9", "own")), ("m", HubSettings("http://other", ""))]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert api.post("/swarm/pull", json={"model": "m"}, headers=CHANGES).status_code == 503
