"""Devices fetch what they lack from each other: from all at once, checked, resumed after a kill, within their disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.store.chunks import ChunkStore
from tests.helpers.fetch_node import COMMAND, FetchNode
from tests.helpers.nodes import wait_for

Start = Callable[..., FetchNode]


@pytest.fixture
def start(tmp_path: Path, real_model: Path) -> Iterator[Start]:
    """Start nodes by name: the first one has the model file, the others call it."""
    key, nodes = os.urandom(32), []

    def start_one(name: str, **setup: object) -> FetchNode:
        calls = [f"127.0.0.1:{nodes[0].port}"] if nodes else []
        has = {} if "sources" in setup else {"file": str(real_model)}
        node = FetchNode(COMMAND, tmp_path / name, key, name, discover=False, port=0, calls=calls, **has, **setup)
        nodes.append(node)
        return node

    yield start_one
    for node in nodes:
        if node.process.poll() is None:
            node.kill()  # it may wait for something that never comes


def test_a_device_fetches_from_all_that_have_something(start: Start) -> None:
    start("origin")
    for sources in (1, 2, 3):
        got = start(f"node{sources}", sources=sources).says()
        print(f"{sources} sources: {got['bytes'] / got['seconds'] / 1e6:.0f} MB/s")
        assert got["whole"] and got["bytes"] <= got["total"] and not got["liars"]


def test_a_killed_fetch_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    start("origin")
    victim = start("victim", sources=1)
    data = tmp_path / "victim" / "store"
    wait_for(lambda: sum(f.stat().st_blocks * 512 for f in data.rglob("*.data")) > 20e6, "a part of the model")
    victim.kill()
    store = ChunkStore(data)
    [holding] = store.holdings()
    chunks = store.model(holding.model)
    assert chunks is not None
    missing = int(chunks.manifest.chunk_sizes[~chunks.held].sum())
    store.close()
    if not missing:
        pytest.skip("this machine was too fast: everything had come before the kill")
    got = start("victim", sources=1).says()
    assert got["whole"] and got["bytes"] == missing < got["total"], "nothing that was verified is fetched twice"
    again = start("another", sources=2).says()
    assert again["whole"]


def test_a_lying_device_is_found_out_and_named(start: Start) -> None:
    start("origin")
    start("liar", lies=True)
    got = start("victim", sources=2).says()
    assert got["whole"] and len(got["liars"]) == 1 and "sent a wrong chunk" in got["liars"][0]


def test_what_got_lost_is_told_again(start: Start) -> None:
    start("origin", loses=["Catalog", "ManifestReply", "Have", "ChunkReply"])
    assert start("victim", sources=1).says()["whole"]


def test_a_full_disk_ends_a_fetch_with_one_line(start: Start) -> None:
    start("origin")
    got = start("victim", sources=1, disk="30MB").says()
    assert got["error"].startswith("DiskFull: the model store may take 28.6 MiB") and "\n" not in got["error"]
