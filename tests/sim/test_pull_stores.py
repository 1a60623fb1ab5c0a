"""The scheduler and real chunk stores together: a model goes from device to device, and arrives bit for bit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import DiskFull
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.manifest import Manifest
from swarm.store.pull import AskChunk, AskHave, Ban, Pull, PullEffect
from swarm.store.rectangles import Rectangle
from swarm.wire.ids import PeerId
from tests.helpers.chunked import write_model

Serve = Callable[[AskChunk], bytes | None]


class Fetch:
    """Carries the effects of a pull out at once: asks go straight into the other stores."""

    def __init__(self, store: ChunkStore, manifest: Manifest, peers: dict[str, ChunkStore], seed: int = 0) -> None:
        self.store, self.manifest = store, manifest
        self.peers = {PeerId(name): peer for name, peer in peers.items()}
        self.served: Counter[PeerId] = Counter()
        self.chunks: Counter[int] = Counter()
        self.bans: list[Ban] = []
        self.spoil: set[PeerId] = set()
        self.now = 0.0
        store.add_manifest(manifest.encoded, manifest.id)
        self.pull = Pull(manifest.chunk_sizes, random.Random(seed), manifest.name)
        self.queue: list[PullEffect] = []

    def run(self, chunks: list[int], max_asks: int | None = None) -> None:
        held = self.store.model(self.manifest.id).held
        self.queue += self.pull.want([chunk for chunk in chunks if not held[chunk]], self.now)
        for peer in self.peers:
            self.queue += self.pull.add_peer(peer, self.now)
        n_asks = 0
        while self.queue and n_asks != max_asks:
            effect = self.queue.pop(0)
            self.now += 0.001
            if isinstance(effect, AskChunk):
                n_asks += 1
                self.queue += self._fetch(effect)
            elif isinstance(effect, AskHave):
                bits = self.peers[effect.peer].have_bits(self.manifest.id)
                self.queue += self.pull.peer_has(effect.peer, bits, 0, self.now)
            elif isinstance(effect, Ban):
                self.bans.append(effect)

    def _fetch(self, ask: AskChunk) -> list[PullEffect]:
        if not self.pull.is_wanted(ask.request):
            return []
        data = self.peers[ask.peer].read(self.manifest.chunk_id(ask.chunk), 0, ask.n_bytes)
        effects = self.pull.arrived(ask.request, data is not None, self.now)
        if data is None:
            return effects
        if ask.peer in self.spoil:
            data = bytes(data)[:-1] + bytes([data[-1] ^ 1])
        right = self.store.put(self.manifest.id, ask.chunk, data)
        self.served[ask.peer] += right
        self.chunks[ask.chunk] += right
        return effects + self.pull.verified(ask.request, right, self.now)


@pytest.fixture
def stores(tmp_path: Path):
    """A device with the file, and two without anything."""
    path = write_model(tmp_path / "model.gguf")
    made = {name: ChunkStore(tmp_path / name) for name in ("file", "a", "b")}
    yield path, made["file"].import_gguf(path), made
    for store in made.values():
        store.close()


def assert_is_the_file(store: ChunkStore, manifest: Manifest, path: Path) -> None:
    model = store.open(manifest.id)
    with open_gguf(path) as file:
        assert list(model.tensors) == list(file.tensors)
        for name in file.tensors:
            np.testing.assert_array_equal(model.raw(name), file.raw(name))


def test_a_model_goes_from_the_file_to_one_device_and_from_both_to_the_next(stores) -> None:
    path, manifest, made = stores
    first = Fetch(made["a"], manifest, {"file": made["file"]})
    first.run(list(range(manifest.n_chunks)))
    assert first.pull.done and set(first.chunks.values()) == {1}
    assert_is_the_file(made["a"], manifest, path)
    second = Fetch(made["b"], manifest, {"file": made["file"], "a": made["a"]})
    second.run(list(range(manifest.n_chunks)))
    assert second.pull.done and set(second.chunks.values()) == {1} and min(second.served.values()) > 3
    assert_is_the_file(made["b"], manifest, path)


def test_two_devices_with_different_layers_make_a_whole_for_a_third(stores, tmp_path: Path) -> None:
    path, manifest, made = stores
    layers = [[name for name in manifest.by_name if name.startswith(f"blk.{i}.")] for i in range(2)]
    rest = [name for name in manifest.by_name if not name.startswith("blk.")]
    Fetch(made["a"], manifest, {"file": made["file"]}).run(manifest.chunks_of(map(Rectangle, layers[0] + rest)))
    Fetch(made["b"], manifest, {"file": made["file"]}).run(manifest.chunks_of(map(Rectangle, layers[1])))
    third = ChunkStore(tmp_path / "third")
    try:
        fetch = Fetch(third, manifest, {"a": made["a"], "b": made["b"]})
        fetch.run(list(range(manifest.n_chunks)))
        assert fetch.pull.done
        assert_is_the_file(third, manifest, path)
    finally:
        third.close()


@pytest.mark.parametrize("seed", range(5))
def test_an_interrupted_fetch_goes_on_where_it_was(stores, tmp_path: Path, seed: int) -> None:
    path, manifest, made = stores
    rng = random.Random(seed)
    total: Counter[int] = Counter()
    made["a"].close()
    while True:
        made["a"] = ChunkStore(tmp_path / "a")
        fetch = Fetch(made["a"], manifest, {"file": made["file"]}, seed)
        fetch.run(list(range(manifest.n_chunks)), max_asks=rng.randint(1, 12))
        total += fetch.chunks
        if fetch.pull.done:
            break
        made["a"].close()
    assert set(total.values()) == {1} and len(total) == manifest.n_chunks
    assert_is_the_file(made["a"], manifest, path)


def test_a_lying_and_a_damaged_device_are_found_out_and_the_model_is_right(stores) -> None:
    path, manifest, made = stores
    Fetch(made["a"], manifest, {"file": made["file"]}).run(list(range(manifest.n_chunks)))
    damaged = made["a"].model(manifest.id)
    with (damaged.directory / "layer0000.data").open("r+b") as file:
        file.write(b"\xff" * 4096)
    damaged._checked[:] = False  # as after a restart
    fetch = Fetch(made["b"], manifest, {"file": made["file"], "a": made["a"], "liar": made["file"]})
    fetch.spoil = {PeerId("liar")}
    fetch.run(list(range(manifest.n_chunks)))
    assert fetch.pull.done and [ban.peer for ban in fetch.bans] == ["liar"]
    assert_is_the_file(made["b"], manifest, path)


def test_a_full_disk_stops_the_fetch_and_room_lets_it_go_on(stores) -> None:
    path, manifest, made = stores
    store = made["a"]
    store.quota_bytes = manifest.total_bytes // 2
    fetch = Fetch(store, manifest, {"file": made["file"]})
    with pytest.raises(DiskFull):
        fetch.run(list(range(manifest.n_chunks)))
    assert 0 < store.stored_bytes <= store.quota_bytes
    store.quota_bytes = None
    again = Fetch(store, manifest, {"file": made["file"]})
    again.run(list(range(manifest.n_chunks)))
    assert again.pull.done and not set(again.chunks) & set(fetch.chunks)
    assert_is_the_file(store, manifest, path)
