"""Who has what of a model: asked, told, and told to the core; in a node whose peers the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.errors import ModelNotFound
from swarm.net.events import PeerUp, Received
from swarm.node.node import Node
from swarm.parts import all_parts
from swarm.wire.ids import BootId, ModelId, PeerId
from swarm.wire.messages import Catalog, HaveRequest, ManifestRequest, Message
from swarm.wire.records import Address, ModelHolding, Version
from tests.helpers.one_node import one_node
from tests.helpers.tiny import TINY, make_weights, write_tiny

PEER = PeerId("a" * 32)
UNKNOWN = ModelId("cd" * 32)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return write_tiny(path, TINY["llama"], make_weights(TINY["llama"]), "Q8_0")


class Played:
    """A node, and what it sends to a peer that the test plays."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.sent: list[Message] = []
        node._outbox.send = lambda peer, message, frame=None: self.sent.append(message) is None  # type: ignore[method-assign]
        node.holdings.library.fetcher._around.__dict__["send"] = node._outbox.send
        node._on_event(PeerUp(PEER, "attic", BootId("b" * 32), Version(1, 0), Address("192.0.2.1", 7417)))

    def hears(self, message: Message) -> None:
        self.node._on_event(Received(PEER, message))

    def catalogs(self) -> list[Catalog]:
        return [message for message in self.sent if isinstance(message, Catalog)]

    def held(self, peer: PeerId, model: ModelId) -> frozenset[object]:
        return frozenset(self.node._driver.read(lambda core: core.held.get((peer, model), frozenset())))


def play(tmp_path: Path, story: Callable[[Played], Awaitable[None]]) -> None:
    async def run() -> None:
        async with one_node(tmp_path) as node:
            await story(Played(node))

    asyncio.run(run())


def test_a_file_that_is_offered_is_told_to_the_core_and_to_everybody(tmp_path: Path, model_file: Path) -> None:
    async def story(played: Played) -> None:
        node = played.node
        assert played.catalogs() == [Catalog(())], "a peer that comes is told what is here"
        model = await node.add_file(model_file)
        (holding,) = played.catalogs()[-1].models
        assert holding.model == model and holding.n_have == holding.n_chunks > 0
        assert played.held(node.peer, model) == frozenset(all_parts(TINY["llama"].n_layers))
        again = await asyncio.gather(*(node.add_file(model_file) for _ in range(3)))
        assert again == [model] * 3

    play(tmp_path, story)


def test_what_a_peer_has_of_a_known_model_is_told_to_the_core(tmp_path: Path, model_file: Path) -> None:
    async def story(played: Played) -> None:
        model = await played.node.add_file(model_file)
        n = played.node.library.known[model].manifest.n_chunks
        played.hears(Catalog((ModelHolding(model, "tiny", n, n, 100),)))
        assert played.held(PEER, model) == played.node.library.known[model].parts_and_beside
        played.hears(Catalog((ModelHolding(model, "tiny", n, n - 1, 100),)))
        assert played.sent[-1] == HaveRequest(model, 0), "of a part it is asked which"

    play(tmp_path, story)


def test_nothing_is_asked_for_because_a_peer_announces_it(tmp_path: Path) -> None:
    async def story(played: Played) -> None:
        for _ in range(3):
            played.hears(Catalog(tuple(ModelHolding(ModelId(f"{i:064x}"), "junk", 1, 1, 100) for i in range(64))))
            await asyncio.sleep(0)
        assert not any(isinstance(message, ManifestRequest) for message in played.sent)
        assert not list((tmp_path / "store" / "models").iterdir()) if (tmp_path / "store" / "models").exists() else True

    play(tmp_path, story)


def test_a_model_that_nobody_gave_is_looked_up_again_when_a_peer_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[ModelId] = []

    async def know(model: ModelId) -> None:
        tries.append(model)
        raise ModelNotFound("nobody has it")

    async def story(played: Played) -> None:
        monkeypatch.setattr(played.node.library, "know", know)
        played.node.holdings.look_up(UNKNOWN)
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            played.hears(Catalog((ModelHolding(UNKNOWN, "m", 4, 4, 100),)))
        await asyncio.sleep(0)
        assert tries[:3] == [UNKNOWN] * 3
        assert [event for _, event, _ in played.node.events.entries].count("model_unknown") == 1

    play(tmp_path, story)


def test_a_model_is_asked_of_who_has_it(tmp_path: Path) -> None:
    async def story(played: Played) -> None:
        played.hears(Catalog((ModelHolding(UNKNOWN, "m", 4, 4, 100),)))
        played.node.holdings.look_up(UNKNOWN)
        while not any(isinstance(message, ManifestRequest) for message in played.sent):
            await asyncio.sleep(0)
        assert ManifestRequest(UNKNOWN, 0) in played.sent

    play(tmp_path, story)
