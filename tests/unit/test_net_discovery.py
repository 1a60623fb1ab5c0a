"""What services say is read with suspicion; two searches on this machine find each other."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from zeroconf.asyncio import AsyncServiceInfo

from swarm.net import interfaces
from swarm.net.discovery import NODE_SERVICE, Announcement, Discovery, Seen, read_service
from swarm.wire.ids import PeerId
from swarm.wire.messages import PROTOCOL
from swarm.wire.records import Address, Version

PEER = "ab" * 16
TXT = {"id": PEER, "v": "1.0", "fp": "0102030405060708"}


def service(txt: dict[str, str | bytes], port: int = 7417, *addresses: str) -> AsyncServiceInfo:
    packed = [socket.inet_pton(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in addresses]
    name = f"abab-0102.{NODE_SERVICE}"
    return AsyncServiceInfo(NODE_SERVICE, name, addresses=packed, port=port, properties=txt, server="x.local.")


def test_a_service_becomes_what_was_announced_ipv4_first() -> None:
    seen = read_service(service(TXT, 7417, "fd00::1", "192.168.1.7"))
    wanted = (Address("192.168.1.7", 7417), Address("fd00::1", 7417))
    assert seen == Seen("abab-0102", PeerId(PEER), Version(1, 0), bytes(range(1, 9)), wanted)


def test_a_link_local_address_without_its_interface_is_left_out() -> None:
    seen = read_service(service(TXT, 7417, "fe80::1"))
    assert seen is not None and seen.addresses == ()


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "ab"},
        {"id": "AB" * 16},
        {"id": "zz" * 16},
        {"id": PEER * 7},
        {"v": ""},
        {"v": "1"},
        {"v": "1.0.0"},
        {"v": "-1.0"},
        {"v": "999999.0"},
        {"v": "١.٠"},
        {"fp": "01"},
        {"fp": "zz" * 8},
        {"id": b"\xff" * 32},
    ],
)
def test_a_service_that_no_node_would_announce_is_ignored(change: dict[str, str | bytes]) -> None:
    assert read_service(service({**TXT, **change})) is None


def test_an_invitation_has_no_fingerprint_and_a_node_without_a_port_is_ignored() -> None:
    seen = read_service(service({"id": PEER, "v": "1.0"}))
    assert seen is not None and seen.fingerprint == b""
    assert read_service(service(TXT, 0)) is None


def test_two_nodes_find_each_other_and_tell_nothing_more_than_they_must() -> None:
    if not interfaces.usable(interfaces.here()):
        pytest.skip("this machine has no network interface")

    async def story() -> tuple[Seen, Seen]:
        loop = asyncio.get_running_loop()
        found: list[asyncio.Future[Seen]] = [loop.create_future(), loop.create_future()]
        ids = [PeerId(os.urandom(16).hex()) for _ in found]

        def handler(mine: int) -> object:
            def on_seen(seen: Seen) -> None:
                if seen.peer == ids[1 - mine] and not found[mine].done():
                    found[mine].set_result(seen)

            return on_seen

        searches = [
            Discovery(
                NODE_SERVICE,
                handler(i),  # type: ignore[arg-type]
                Announcement(NODE_SERVICE, f"{ids[i][:8]}-test", ids[i], PROTOCOL, 7000 + i, b"12345678"),
            )
            for i in range(2)
        ]
        await asyncio.gather(*(search.start() for search in searches))
        try:
            return await asyncio.wait_for(found[0], 10), await asyncio.wait_for(found[1], 10)
        finally:
            await asyncio.gather(*(search.stop() for search in searches))

    first, second = asyncio.run(story())
    assert {first.addresses[0].port, second.addresses[0].port} == {7000, 7001}
    assert first.fingerprint == b"12345678"


def test_without_an_interface_the_problem_is_named_and_nothing_fails() -> None:
    async def story() -> str:
        search = Discovery(NODE_SERVICE, lambda _: None, None, lambda: ())
        await search.start()
        await search.stop()
        return search.problem

    assert asyncio.run(story()) == "no network interface is up"
