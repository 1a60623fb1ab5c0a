"""Finding, inviting and shutting out devices; with a transport that the test plays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import ConfigError, SwarmKeyError
from swarm.net.discovery import Seen
from swarm.net.events import PeerDown, PeerUp, Received
from swarm.net.keys import new_swarm_key
from swarm.node import peers as peers_of
from swarm.node.node import Node
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import LinkProbe, LinkProbed, Message, Rekey, RekeyDone
from swarm.wire.records import Address, Version
from tests.helpers.one_node import one_node

PEER, OTHER, OFF = PeerId("a" * 32), PeerId("c" * 32), PeerId("d" * 32)


class Played:
    """What a node sends, and to whom."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.sent: list[tuple[PeerId, Message]] = []
        send: Any = lambda peer, message, frame=None: self.sent.append((peer, message)) is None  # noqa: E731
        node._outbox.send = send  # type: ignore[method-assign]
        node.transport.send = send  # type: ignore[method-assign]

    def comes(self, peer: PeerId, name: str) -> None:
        self.node._on_event(PeerUp(peer, name, BootId("b" * 32), Version(1, 0), Address("192.0.2.1", 7417)))

    async def sees(self, kind: type[Message]) -> Message:
        while not any(isinstance(message, kind) for _, message in self.sent):
            await asyncio.sleep(0)
        return next(message for _, message in self.sent if isinstance(message, kind))


def test_devices_that_were_met_are_remembered(tmp_path: Path) -> None:
    async def story() -> dict[str, str]:
        async with one_node(tmp_path) as node:
            Played(node).comes(PEER, "attic")
            while not node.options.home.addresses():
                await asyncio.sleep(0)
            return node.options.home.addresses()

    assert asyncio.run(story()) == {PEER: "192.0.2.1:7417"}


@pytest.mark.parametrize("is_alone", [True, False])
def test_who_began_a_swarm_beside_another_one_is_told_how_to_enter_it_once(tmp_path: Path, is_alone: bool) -> None:
    seen = Seen("other", OTHER, Version(1, 0), b"another key", (Address("10.77.0.2", 7417),))

    async def story() -> list[dict[str, Any]]:
        async with one_node(tmp_path) as node:
            if is_alone:
                node.options.home.say_alone()
            for _ in range(2):
                node.peers._on_seen(seen)
            return [fields for _, event, fields in node.events.entries if event == "another_swarm"]

    told = [{"address": "10.77.0.2:7417", "to_enter": "`swarm invite` there, then `swarm join CODE` here"}]
    assert asyncio.run(story()) == (told if is_alone else [])


def test_a_link_is_measured_and_the_core_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_of, "PROBE_DELAY_S", 0.0)

    async def story() -> float:
        async with one_node(tmp_path) as node:
            played = Played(node)
            played.comes(PEER, "attic")
            for sequence in (1, 2):
                while played.sent[-1:] != [(PEER, LinkProbe(sequence))]:
                    await asyncio.sleep(0)
                node._on_event(Received(PEER, LinkProbed(sequence, 1000)))
            while not (rate := node._driver.read(lambda core: core.members.peers[PEER].bytes_per_s)):
                await asyncio.sleep(0)
            return rate

    assert asyncio.run(story()) > 0


def test_a_new_key_goes_to_all_but_the_lost_and_the_node_starts_anew(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            old = new_swarm_key()
            node.options.home.keys.keep_swarm_key(old)
            played = Played(node)
            played.comes(PEER, "attic")
            played.comes(OTHER, "cellar")
            node.options.home.keep_names({OFF: "shed"})
            changing = asyncio.create_task(node.peers.new_key(["cellar", "shed"]))
            message = await played.sees(Rekey)
            assert isinstance(message, Rekey) and message.generation == old.generation + 1
            assert [peer for peer, sent in played.sent if isinstance(sent, Rekey)] == [PEER]
            node._on_event(Received(PEER, RekeyDone(message.generation)))
            rekeyed = await changing
            assert (rekeyed.done, rekeyed.missed, rekeyed.shut_out) == (("attic",), (), ("cellar", "shed"))
            new = node.options.home.keys.swarm_key()
            assert new is not None and new.secret == message.swarm_key
            assert node.starts_anew == "it has a new key"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("nobody", "no device of this swarm is called 'nobody'; nothing was changed: .*attic"),
        ("attic", "2 devices are"),
    ],
)
def test_a_name_that_means_no_one_device_changes_nothing(tmp_path: Path, without: str, says: str) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            old = new_swarm_key()
            node.options.home.keys.keep_swarm_key(old)
            played = Played(node)
            played.comes(PEER, "attic")
            played.comes(OTHER, "attic")
            with pytest.raises(ConfigError, match=says):
                await node.peers.new_key([without])
            assert node.options.home.keys.swarm_key() == old and not node.starts_anew
            assert not any(isinstance(message, Rekey) for _, message in played.sent)

    asyncio.run(story())


def test_a_device_that_goes_while_it_is_given_the_key_has_missed_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            node.options.home.keys.keep_swarm_key(new_swarm_key())
            played = Played(node)
            played.comes(PEER, "attic")
            changing = asyncio.create_task(node.peers.new_key([]))
            await played.sees(Rekey)
            node._on_event(PeerDown(PEER, "attic", "its link broke"))
            assert (await changing).missed == ("attic",)

    asyncio.run(story())


def test_a_key_from_a_member_is_kept_and_an_older_one_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            own = new_swarm_key(5)
            node.options.home.keys.keep_swarm_key(own)
            played = Played(node)
            played.comes(PEER, "attic")
            node._on_event(Received(PEER, Rekey(4, bytes(range(32)))))
            node._on_event(Received(PEER, Rekey(6, bytes(range(32)))))
            await played.sees(RekeyDone)
            new = node.options.home.keys.swarm_key()
            assert new is not None and (new.generation, new.secret) == (6, bytes(range(32)))
            assert "key_refused" in [event for _, event, _ in node.events.entries]

    asyncio.run(story())


def test_without_a_key_nobody_is_invited(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            with pytest.raises(SwarmKeyError, match="swarm key is gone"):
                await node.peers.invite()

    asyncio.run(story())
