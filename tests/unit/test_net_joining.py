"""A device finds the invitation that belongs to its code."""

from __future__ import annotations

import asyncio

import pytest

from swarm.errors import SwarmKeyError, SwarmNetworkError
from swarm.net import interfaces, joining
from swarm.net.joining import invite, join
from swarm.net.keys import new_swarm_key
from swarm.net.pairing import Code, Invitation, Party
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

ANN, BOB = Party(PeerId("aa" * 16), "ann"), Party(PeerId("bb" * 16), "bob")
needs_network = pytest.mark.skipif(
    not interfaces.usable(interfaces.here()), reason="this machine has no network interface"
)


@needs_network
def test_a_code_finds_its_invitation_by_itself() -> None:
    async def story() -> None:
        key, ended = new_swarm_key(3), asyncio.Event()

        def on_end(_: Invitation) -> None:
            ended.set()

        opened = await invite(ANN, key, 7417, on_end)
        try:
            got, inviter, node = await join(opened.invitation.code, BOB)
            assert (got, inviter, node.port) == (key, ANN, 7417)
            await asyncio.wait_for(ended.wait(), 5)
            assert opened.invitation.joined == BOB
        finally:
            await opened.close()

    asyncio.run(story())


@needs_network
def test_a_wrong_code_is_told_at_once_and_another_place_is_not_bothered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "SEARCH_S", 1.5)

    async def story() -> None:
        opened = await invite(ANN, new_swarm_key(), 7417, lambda _: None)
        code = opened.invitation.code
        try:
            with pytest.raises(SwarmNetworkError, match="no invitation with a code that begins"):
                await join(Code(code.place % 9 + 1, code.digits), BOB)
            assert opened.invitation.wrong == 0
            with pytest.raises(SwarmKeyError, match="2 tries left"):
                await join(Code(code.place, code.digits[::-1] + "x"), BOB)
        finally:
            await opened.close()

    asyncio.run(story())


def test_an_address_given_by_hand_needs_no_multicast() -> None:
    async def story() -> None:
        key = new_swarm_key()
        opened = await invite(ANN, key, 7417, lambda _: None, host="127.0.0.1")
        try:
            got, _, node = await join(opened.invitation.code, BOB, [Address("127.0.0.1", opened.port)])
            assert (got, node) == (key, Address("127.0.0.1", 7417))
        finally:
            await opened.close()

    asyncio.run(story())
