"""Headers by ranges: what is read of a large file to know what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.config import HubSettings
from swarm.errors import BadModelFile, UnsupportedModel, UnsupportedQuant
from swarm.store import remote_gguf
from swarm.store.gguf import open_gguf
from swarm.store.remote_gguf import RemoteGGUF, read_remote
from swarm.store.web_file import Web, WebFile
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.hub import StandInHub
from tests.helpers.tiny import make_tiny


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with StandInHub.of({"web/files": {}}) as server:
        yield server


def read(hub: StandInHub, files: dict[str, bytes]) -> RemoteGGUF:
    hub.repos["web/files"].files.update(files)
    with Web(HubSettings(hub.endpoint), sleep=lambda seconds: None) as web:
        return read_remote("here", [(name, WebFile(web, f"{hub.endpoint}/web/{name}")) for name in files], web)


def test_a_header_says_what_the_whole_file_says(hub: StandInHub, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "x.gguf", "air", "Q8_0")
    remote = read(hub, {"x.gguf": path.read_bytes()})
    with open_gguf(path) as whole:
        assert dict(remote.tensors) == dict(whole.tensors)
        assert remote.metadata["general.name"] == whole.metadata["general.name"]
        assert (remote.size_bytes, remote.header_bytes) == (whole.size_bytes, whole.header_bytes)


def test_more_is_read_until_the_header_is_whole_and_no_byte_twice(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_gguf, "FIRST_HEADER_BYTES", 1024)
    path = make_tiny(tmp_path / "x.gguf", "llama", "Q8_0")
    hub.faults.drop_after, hub.faults.n_drops = 500, 2
    remote = read(hub, {"x.gguf": path.read_bytes()})
    assert remote.read_bytes < path.stat().st_size
    assert remote.parts[0].beginning == path.read_bytes()[: remote.read_bytes]
    ranges = [request.range for request in hub.requests]
    assert ranges[0] == "bytes=0-1023" and len(ranges) > 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<!doctype html><html>", "it is a web page, not a model"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 200, "is more than the"),
        (b"GGUF\x03\0\0\0" + b"\0" * 3, "the file ends here"),
    ],
)
def test_what_is_no_model_says_so(hub: StandInHub, data: bytes, says: str) -> None:
    with pytest.raises(BadModelFile, match=says):
        read(hub, {"x.gguf": data})


def test_a_header_that_claims_more_than_the_file_has_costs_no_second_request(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_gguf, "FIRST_HEADER_BYTES", 64)
    data = bytearray(make_tiny(tmp_path / "x.gguf", "llama").read_bytes())
    data[24:32] = (2**40).to_bytes(8, "little")  # the length of the first key
    with pytest.raises(BadModelFile, match="length of"):
        read(hub, {"x.gguf": bytes(data)})
    assert len(hub.requests) == 1


def test_a_type_that_does_not_run_is_told_but_the_family_first(hub: StandInHub, tmp_path: Path) -> None:
    import numpy as np

    tensors = {"x": (np.zeros((1, 256), np.float32), "F32")}
    data = write_gguf(tmp_path / "x.gguf", {"general.architecture": "llama"}, tensors).read_bytes()
    broken = data.replace(
        (256).to_bytes(8, "little") + (1).to_bytes(8, "little") + (0).to_bytes(4, "little"),
        (256).to_bytes(8, "little") + (1).to_bytes(8, "little") + (99).to_bytes(4, "little"),
    )
    with pytest.raises(UnsupportedQuant, match="tensor x"):
        read(hub, {"x.gguf": broken})
    with pytest.raises(UnsupportedModel, match="mamba"):
        read(hub, {"x.gguf": broken.replace(b"llama", b"mamba")})
