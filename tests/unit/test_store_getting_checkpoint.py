"""A checkpoint from the hub: which files, verified, what has come is kept, nothing of what cannot be converted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.config import HubSettings
from swarm.errors import DiskFull, DownloadError, ModelNotFound, UnsupportedModel
from swarm.store import download as download_module
from swarm.store.getting_checkpoint import get_checkpoint
from swarm.store.hub_names import HubName
from swarm.store.web_file import Web
from tests.helpers.checkpoints import write_checkpoint
from tests.helpers.hub import StandInHub
from tests.helpers.tiny import TINY

REPO = HubName("u", "Tiny-1B")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_checkpoint(tmp_path / "origin", TINY["llama"])
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    return {**found, "README.md": b"#", "onnx/model.safetensors": b"x", "consolidated.safetensors": b"y"}


@pytest.fixture
def hub(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    monkeypatch.setattr(download_module, "_FIRST_PAUSE_S", 0.0)
    with StandInHub.of({"u/Tiny-1B": files, "u/Only-GGUF": {"m-Q8_0.gguf": b"GGUF" * 9}}) as server:
        yield server


@pytest.fixture
def web(hub: StandInHub) -> Iterator[Web]:
    with Web(HubSettings(hub.endpoint), sleep=lambda seconds: None) as client:
        yield client


def quiet(what: str, done: int, total: int) -> None:
    pass


def anything(folder: Path) -> None:
    pass


def test_the_files_of_a_checkpoint_and_no_others_are_brought(
    hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path
) -> None:
    folder = get_checkpoint(REPO, tmp_path / "models", web, quiet, anything)
    assert folder.name == "u_Tiny-1B"
    here = {file.name: file.read_bytes() for file in folder.iterdir()}
    left_out = {"README.md", "onnx/model.safetensors", "consolidated.safetensors"}
    assert here == {name: data for name, data in files.items() if name not in left_out}


def test_a_second_time_asks_for_no_byte_of_the_weights(hub: StandInHub, web: Web, tmp_path: Path) -> None:
    get_checkpoint(REPO, tmp_path / "models", web, quiet, anything)
    sent = hub.sent_bytes()
    get_checkpoint(REPO, tmp_path / "models", web, quiet, anything)
    assert hub.sent_bytes() == sent


def test_what_cannot_be_converted_costs_no_weights(
    hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path
) -> None:
    def refuse(folder: Path) -> None:
        assert (folder / "config.json").exists()
        raise UnsupportedModel("no")

    with pytest.raises(UnsupportedModel):
        get_checkpoint(REPO, tmp_path / "models", web, quiet, refuse)
    assert not any(path.endswith(".safetensors") for path in hub.paths)


def test_cuts_and_busy_hubs_are_borne(hub: StandInHub, web: Web, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.faults.n_drops, hub.faults.drop_after, hub.faults.n_broken = 3, 10_000, 2
    folder = get_checkpoint(REPO, tmp_path / "models", web, quiet, anything)
    name = "model-00001-of-00003.safetensors"
    assert (folder / name).read_bytes() == files[name]


def test_a_wrong_byte_is_found(hub: StandInHub, web: Web, tmp_path: Path) -> None:
    hub.faults.flipped = True
    with pytest.raises(DownloadError, match="thrown away"):
        get_checkpoint(REPO, tmp_path / "models", web, quiet, anything)


def test_a_disk_without_room_is_said_before_the_weights(
    hub: StandInHub, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.files.spare_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match="models_dir"):
        get_checkpoint(REPO, tmp_path / "models", web, quiet, anything)
    assert not any(path.endswith(".safetensors") for path in hub.paths)


def test_a_repository_of_model_files_says_what_to_do(hub: StandInHub, web: Web, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no checkpoint.*`swarm pull u/Only-GGUF`"):
        get_checkpoint(HubName("u", "Only-GGUF"), tmp_path, web, quiet, anything)
