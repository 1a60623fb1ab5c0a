"""What a repository holds, and what the hub's refusals mean."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from swarm.config import HubSettings
from swarm.errors import DownloadError
from swarm.store.hub import NoSuchRepository, file_of, repository
from swarm.store.hub_names import HubName
from swarm.store.variants import RepoFile
from swarm.store.web_file import Web
from tests.helpers.hub import COMMIT, OTHER_TOKEN, TOKEN, Repo, StandInHub

FILES = {"x-Q4_0.gguf": b"GGUF" + b"a" * 5000, "BF16/x-BF16.gguf": b"GGUF" + b"b" * 9000, "README.md": b"# x\n"}


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with StandInHub.of({"u/r": FILES}) as server:
        server.repos["u/gated"] = Repo(dict(FILES), gated=True)
        server.repos["u/private"] = Repo(dict(FILES), private=True)
        yield server


def web(hub: StandInHub, token: str = "") -> Web:
    return Web(HubSettings(hub.endpoint, token), sleep=lambda seconds: None)


def listed(name: str = "x-Q4_0.gguf") -> RepoFile:
    return RepoFile(name, len(FILES[name]), hashlib.sha256(FILES[name]).hexdigest())


def test_one_request_tells_commit_sizes_and_hashes(hub: StandInHub) -> None:
    with web(hub) as client:
        found = repository(client, HubName("u", "r"))
    assert found.commit == COMMIT and set(found.files) >= {listed(), listed("BF16/x-BF16.gguf")}
    assert hub.paths == ["/api/models/u/r"]


def test_a_mirror_that_tells_no_sizes_is_asked_for_its_tree_page_by_page(hub: StandInHub) -> None:
    hub.faults.sizes = False
    with web(hub) as client:
        found = repository(client, HubName("u", "r"))
    assert {file for file in found.files if file.sha256} == {listed(), listed("BF16/x-BF16.gguf")}
    assert hub.paths == ["/api/models/u/r", f"/api/models/u/r/tree/{COMMIT}", f"/api/models/u/r/tree/{COMMIT}"]


@pytest.mark.parametrize(
    ("name", "token", "says"),
    [
        (HubName("u", "none"), "", "the hub has no repository u/none, or it is private: then set HF_TOKEN"),
        (HubName("u", "none"), TOKEN, "the hub has no repository u/none"),
        (HubName("u", "private"), "", "or it is private"),
        (HubName("u", "r"), "hf_wrong", "the hub does not know your HF_TOKEN"),
        (HubName("u", "r", revision="nope"), "", "u/r has no revision nope"),
    ],
)
def test_a_refusal_says_what_is_the_matter(hub: StandInHub, name: HubName, token: str, says: str) -> None:
    with web(hub, token) as client, pytest.raises(DownloadError) as caught:
        repository(client, name)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_gated_file_tells_where_to_ask_and_comes_with_the_token(hub: StandInHub) -> None:
    for token, says in (("", "ask at http.*/u/gated, then set HF_TOKEN"), (OTHER_TOKEN, "not open to the owner")):
        with web(hub, token) as client, pytest.raises(DownloadError, match=says):
            list(file_of(client, "u/gated", COMMIT, listed()).read(0, 10))
    with web(hub, TOKEN) as client:
        assert b"".join(file_of(client, "u/gated", COMMIT, listed()).read(0, 10)) == FILES["x-Q4_0.gguf"][:10]


def test_a_file_that_is_gone_is_named(hub: StandInHub) -> None:
    with web(hub) as client, pytest.raises(NoSuchRepository, match=r"u/r has no file y.gguf"):
        list(file_of(client, "u/r", COMMIT, RepoFile("y.gguf", 10)).read(0, 10))


def test_a_server_that_is_no_hub_is_told(hub: StandInHub) -> None:
    with Web(HubSettings(f"{hub.endpoint}/nothing")) as client, pytest.raises(DownloadError, match="no repository"):
        repository(client, HubName("u", "r"))


def test_a_busy_hub_is_asked_again(hub: StandInHub) -> None:
    hub.faults.n_broken = 2
    with web(hub) as client:
        assert repository(client, HubName("u", "r")).commit == COMMIT


def test_a_name_that_leads_elsewhere_or_a_size_that_makes_no_sense_is_no_file(hub: StandInHub) -> None:
    files = hub.repos["u/r"].files
    files["../../etc/x-Q8_0.gguf"] = b"GGUF" * 10
    files["a\x1b[2Jb-Q8_0.gguf"] = b"GGUF" * 10
    with web(hub) as client:
        found = repository(client, HubName("u", "r"))
    assert [file.path for file in found.files if "Q8_0" in file.path] == []
