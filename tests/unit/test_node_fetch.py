"""Fetching chunks, with a store and a network that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from swarm import limits
from swarm.errors import DiskFull
from swarm.node.fetch import Around, Fetcher
from swarm.wire.ids import ChunkId, ModelId, PeerId
from swarm.wire.messages import ChunkCancel, ChunkReply, ChunkRequest, Have, ManifestReply, ManifestRequest, Message
from swarm.wire.records import ModelHolding

MODEL, PEER = ModelId("ab" * 32), PeerId("cd" * 16)
N_CHUNKS = 4


def test_a_fetch_that_fails_cancels_what_it_asked_for() -> None:
    asyncio.run(fail_in_the_middle())


async def fail_in_the_middle() -> None:
    sent: list[Message] = []

    def put(*_: object) -> bool:
        raise DiskFull("the disk is full")

    async def run_io(function: Callable[..., object], *arguments: object) -> Any:
        return function(*arguments)

    def send(peer: PeerId, message: Message) -> bool:
        sent.append(message)
        return True

    manifest = SimpleNamespace(
        chunk_sizes=np.full(N_CHUNKS, 100), n_chunks=N_CHUNKS, name="m", chunk_id=lambda chunk: f"{chunk:064x}"
    )
    here = SimpleNamespace(manifest=manifest, held=np.zeros(N_CHUNKS, bool))
    store: Any = SimpleNamespace(model=lambda model: here, make_room=lambda *_: None, put=put)
    nothing: Any = lambda *_: None  # noqa: E731
    fetcher = Fetcher(Around(store, send, run_io, nothing, nothing, set, nothing), Random(1))
    fetcher.catalog(PEER, [ModelHolding(MODEL, "m", N_CHUNKS, N_CHUNKS, 400)])
    fetch = asyncio.create_task(fetcher.fetch(MODEL, range(N_CHUNKS)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    fetcher.have(PEER, Have(MODEL, 0, N_CHUNKS), memoryview(b"\x0f"))
    first = next(message.request for message in sent if isinstance(message, ChunkRequest))
    fetcher.chunk(PEER, ChunkReply(first, ChunkId("0" * 64), 0, True), memoryview(bytes(100)))
    with pytest.raises(DiskFull):
        await fetch
    asked = [message.request for message in sent if isinstance(message, ChunkRequest)]
    assert len(asked) >= N_CHUNKS
    assert [message.request for message in sent if isinstance(message, ChunkCancel)] == asked[1:]


def manifest_from(answers: dict[PeerId, Callable[[int], tuple[bytes, int]]]) -> tuple[list[tuple[PeerId, str]], object]:
    """Ask for a manifest that these devices have; what each says to (offset) is (piece, total)."""
    told: list[tuple[PeerId, str]] = []

    async def run_io(function: Callable[..., object], *arguments: object) -> Any:
        return function(*arguments)

    def send(peer: PeerId, message: Message) -> bool:
        assert isinstance(message, ManifestRequest)
        piece, total = answers[peer](message.offset)
        reply = ManifestReply(message.model, message.offset, total)
        asyncio.get_running_loop().call_soon(fetcher.manifest_piece, peer, reply, memoryview(piece))
        return True

    nothing: Any = lambda *_: None  # noqa: E731
    store: Any = SimpleNamespace(model=lambda model: None, add_manifest=lambda data, model, in_use: data)
    around = Around(store, send, run_io, nothing, nothing, set, lambda peer, why: told.append((peer, why)))
    fetcher = Fetcher(around, Random(1))
    for peer in answers:
        fetcher.catalog(peer, [ModelHolding(MODEL, "m", 9, 9, 9)])
    return told, asyncio.run(fetcher.manifest(MODEL))


def test_a_manifest_that_drips_is_asked_of_another_device() -> None:
    other = PeerId("ef" * 16)
    told, data = manifest_from({PEER: lambda offset: (b"x", 40 << 20), other: lambda offset: (b"right", 5)})
    assert data == b"right" and [peer for peer, _ in told] == [PEER] and "make no sense" in told[0][1]


def test_a_manifest_of_several_pieces_comes_whole() -> None:
    whole = bytes(range(256)) * (6 << 12)  # one and a half pieces
    piece = limits.MAX_BULK_FRAME_BYTES
    told, data = manifest_from({PEER: lambda offset: (whole[offset : offset + piece], len(whole))})
    assert data == whole and not told
