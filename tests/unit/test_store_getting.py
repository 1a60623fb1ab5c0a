"""From what somebody asked for to files that are whole, verified and in place."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from swarm.config import HubSettings
from swarm.errors import DiskFull, DownloadError, ModelNotFound, UnsupportedModel, UnsupportedQuant
from swarm.models.appraise import beside_weights
from swarm.store import download as download_module
from swarm.store.getting import Room, get, is_here, list_place, look, target_paths
from swarm.store.hub_names import HubName, WebAddress
from swarm.store.keeping import kept_models
from swarm.store.kept_pieces import journal_of
from swarm.store.model_table import NamedModel, TableModel, named_model
from swarm.store.origins import kept_from, origin_of
from swarm.store.web_file import Web
from tests.helpers.hub import COMMIT, StandInHub
from tests.helpers.repositories import tiny_files
from tests.helpers.tiny import make_tiny

ROOM = Room(10**9, "this device", partial(beside_weights, kv="f16", context=0))
REPO = HubName("u", "Tiny-GGUF")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return tiny_files(tmp_path_factory.mktemp("repo"), "Q8_0", "Q4_0", "F16")


@pytest.fixture
def hub(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    monkeypatch.setattr(download_module, "_FIRST_PAUSE_S", 0.0)
    with StandInHub.of({"u/Tiny-GGUF": files, "web/files": files}) as server:
        yield server


@pytest.fixture
def web(hub: StandInHub) -> Iterator[Web]:
    with Web(HubSettings(hub.endpoint), sleep=lambda seconds: None) as client:
        yield client


def quiet(what: str, done: int, total: int) -> None:
    pass


def test_a_model_is_brought_verified_and_known_by_its_origin(
    hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    found = look(HubName("u", "Tiny-GGUF", "q4_0"), web, ROOM)
    path = get(found, tmp_path, web, lambda *step: told.append(step))
    assert path.name == "Tiny-Q4_0.gguf" and path.read_bytes() == files[path.name]
    origin = origin_of(path)
    assert origin is not None and (origin.place, origin.commit) == ("u/Tiny-GGUF", COMMIT)
    assert origin.sha256 == hashlib.sha256(files[path.name]).hexdigest()
    assert told[-1][:1] == ("Downloading",) or told[-1][0] == "Verifying"
    assert not journal_of(path).exists()
    assert is_here(found, tmp_path) == path
    asked = ["/api/models/u/Tiny-GGUF", f"/u/Tiny-GGUF/resolve/{COMMIT}/{path.name}", f"/cdn/u/Tiny-GGUF/{path.name}"]
    assert hub.paths == asked, "no request that it does not need: the header's bytes are the file's first"
    assert hub.sent_twice() == 0


def test_what_is_here_is_not_fetched_again(hub: StandInHub, web: Web, tmp_path: Path) -> None:
    found = look(REPO, web, ROOM)
    path = get(found, tmp_path, web, quiet)
    n_bytes = hub.sent_bytes()
    assert get(found, tmp_path, web, quiet) == path
    assert hub.sent_bytes() == n_bytes
    kept = kept_models(tmp_path)
    assert kept_from(REPO, kept) == path == kept_from(HubName("U", "tiny-gguf", "q8_0"), kept)
    assert kept_from(HubName("u", "Tiny-GGUF", "F16"), kept) is None


def test_a_file_that_somebody_fetched_by_hand_is_verified_and_taken(
    hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "Tiny-Q4_0.gguf").write_bytes(files["Tiny-Q4_0.gguf"])
    found = look(HubName("u", "Tiny-GGUF", "Q4_0"), web, ROOM)
    n_bytes = hub.sent_bytes()
    path = get(found, tmp_path, web, quiet)
    assert hub.sent_bytes() == n_bytes and origin_of(path) is not None


def test_another_model_under_that_name_stays_and_the_new_one_gets_its_owners_name(
    web: Web, files: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "Tiny-Q4_0.gguf").write_bytes(b"GGUF mine")
    path = get(look(HubName("u", "Tiny-GGUF", "Q4_0"), web, ROOM), tmp_path, web, quiet)
    assert path.name == "u_Tiny-Q4_0.gguf" and path.read_bytes() == files["Tiny-Q4_0.gguf"]
    assert (tmp_path / "Tiny-Q4_0.gguf").read_bytes() == b"GGUF mine"


def test_names_that_say_nothing_get_the_repositorys(hub: StandInHub, web: Web, tmp_path: Path) -> None:
    files = hub.repos["u/Tiny-GGUF"].files
    hub.repos["u/Tiny-GGUF"].files = {"ggml-model-Q4_0.gguf": files["Tiny-Q4_0.gguf"]}
    found = look(REPO, web, ROOM)
    assert target_paths(found, tmp_path) == [tmp_path / "Tiny-ggml-model-Q4_0.gguf"]


def test_a_type_that_does_not_run_is_refused_with_what_else_there_is(hub: StandInHub, web: Web) -> None:
    files = hub.repos["u/Tiny-GGUF"].files
    data, name = bytearray(files["Tiny-Q4_0.gguf"]), b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    assert data[at : at + 4] == bytes([2, 0, 0, 0])
    data[at] = 139
    hub.repos["u/Tiny-GGUF"].files = files | {"Tiny-Q4_0.gguf": bytes(data)}
    with pytest.raises(UnsupportedQuant, match=r"attn_q\.weight is stored as IQ4_K, a type of ik_llama\.cpp") as error:
        look(HubName("u", "Tiny-GGUF", "Q4_0"), web, ROOM)
    assert "; u/Tiny-GGUF also has Q8_0 " in str(error.value) and "\n" not in str(error.value)
    assert not any(path.endswith("Tiny-Q8_0.gguf") for path in hub.paths), "nothing of the others was asked for"


def test_without_a_quant_the_best_that_fits_is_taken(hub: StandInHub, web: Web, files: dict[str, bytes]) -> None:
    assert look(REPO, web, ROOM).variant.label == "Q8_0"
    beside = look(REPO, web, ROOM).need_bytes - len(files["Tiny-Q8_0.gguf"])
    small = Room(len(files["Tiny-Q4_0.gguf"]) + beside, "this device", ROOM.judge)
    found = look(REPO, web, small)
    assert found.variant.label == "Q4_0" and found.header.size_bytes == len(files["Tiny-Q4_0.gguf"])
    with pytest.raises(DownloadError, match=r"nothing fits this device.* Q4_0, needs .* name a quant: there is Q4_0"):
        look(REPO, web, Room(beside, "this device", ROOM.judge))
    assert look(HubName("u", "Tiny-GGUF", "F16"), web, Room(0, "", ROOM.judge)).variant.label == "F16"


def test_memory_is_counted_as_the_weights_take_it_there(tmp_path: Path, hub: StandInHub, web: Web) -> None:
    path = make_tiny(tmp_path / "Tiny-IQ1_S.gguf", "llama-wide", "IQ1_S")
    hub.repos["u/Tiny-GGUF"].files = {path.name: path.read_bytes()}
    found = look(HubName("u", "Tiny-GGUF", "IQ1_S"), web, Room(10**9, "", lambda metadata, tensors: 0))
    blocks = [tensor.n_bytes // 50 for tensor in found.header.tensors.values() if tensor.quant.name == "IQ1_S"]
    assert found.need_bytes == path.stat().st_size + (106 - 50) * sum(blocks)


def test_a_cut_connection_is_taken_up_again(hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.faults.drop_after, hub.faults.n_drops = 20_000, 3
    path = get(look(REPO, web, ROOM), tmp_path, web, quiet)
    assert path.read_bytes() == files[path.name]


def test_a_wrong_hash_throws_away_what_came(hub: StandInHub, web: Web, tmp_path: Path) -> None:
    hub.faults.flipped = True
    found = look(HubName("u", "Tiny-GGUF", "Q4_0"), web, Room(10**9, "", lambda metadata, tensors: 0))
    with pytest.raises(DownloadError, match=r"what came has SHA-256 .* it was thrown away"):
        get(found, tmp_path, web, quiet)
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*.partial"))


def test_a_full_disk_is_told_before_the_first_byte(
    hub: StandInHub, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look(REPO, web, ROOM)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    n_requests = len(hub.requests)
    with pytest.raises(DiskFull, match=r"to spare and .* are needed; free some space, or set models_dir"):
        get(found, tmp_path, web, quiet)
    assert len(hub.requests) == n_requests
    assert {path.name for path in tmp_path.iterdir()} <= {".Tiny-Q8_0.gguf.lock"}


def test_a_family_that_does_not_run_is_refused_after_its_header(
    hub: StandInHub, web: Web, files: dict[str, bytes]
) -> None:
    hub.repos["u/Tiny-GGUF"].files = {"x-Q4_0.gguf": files["Tiny-Q4_0.gguf"].replace(b"llama", b"mamba")}
    with pytest.raises(UnsupportedModel, match="mamba"):
        look(REPO, web, ROOM)


def test_a_family_of_the_table_that_does_not_run_is_refused_without_a_request(hub: StandInHub, web: Web) -> None:
    row = TableModel("made-up", "u/made-up", "mamba", ("u/Tiny-GGUF",), 10**9, 4096, "MIT", "")
    with pytest.raises(UnsupportedModel, match="made-up is a mamba model"):
        look(NamedModel(row), web, ROOM)
    assert hub.requests == []


def test_the_next_repository_is_asked_when_one_lacks_the_quant_or_is_gone(hub: StandInHub, web: Web) -> None:
    row = TableModel("tiny", "u/t", "llama", ("u/none", "u/few", "u/Tiny-GGUF"), 10**9, 4096, "MIT", "")
    hub.repos["u/few"] = type(hub.repos["u/Tiny-GGUF"])({"x-Q2_K.gguf": b"GGUF"})
    found = look(NamedModel(row, "F16"), web, ROOM)
    assert found.place == "u/Tiny-GGUF" and found.name == "tiny"
    with pytest.raises(ModelNotFound, match=r"u/none.* u/few has no Q5_0.* u/Tiny-GGUF has no Q5_0"):
        look(NamedModel(row, "Q5_0"), web, ROOM)


def test_an_address_of_the_web_is_fetched_and_recorded(
    hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path
) -> None:
    address = WebAddress(f"{hub.endpoint}/web/Tiny-Q8_0.gguf")
    path = get(look(address, web, ROOM), tmp_path, web, quiet)
    assert path.read_bytes() == files["Tiny-Q8_0.gguf"]
    assert kept_from(address, kept_models(tmp_path)) == path


def test_a_repository_without_gguf_files_says_what_it_has(hub: StandInHub, web: Web) -> None:
    hub.repos["u/Tiny-GGUF"].files = {"model.safetensors": b"x", "README.md": b"y"}
    with pytest.raises(ModelNotFound, match="it holds safetensors and no GGUF file; look for"):
        list_place(REPO, web)
    hub.repos["u/Tiny-GGUF"].files = {"a.gguf": b"x", "b.gguf": b"y"}
    with pytest.raises(ModelNotFound, match=r"say which file, as in USER/REPO:FILE.gguf; there is a.gguf"):
        list_place(REPO, web)


def test_every_name_of_the_table_can_be_looked_for() -> None:
    assert named_model("glm-4-9b") is not None
