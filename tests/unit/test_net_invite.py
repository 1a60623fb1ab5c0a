"""Invitations over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from swarm import limits
from swarm.errors import SwarmKeyError, SwarmNetworkError
from swarm.net.invite import InvitationServer, accept_invitation, why_unreached
from swarm.net.keys import SwarmKey
from swarm.net.pairing import Code, Invitation, Party, Secret
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

ANN, BOB = Party(PeerId("aa" * 16), "ann"), Party(PeerId("bb" * 16), "bob")
SECRET = Secret(bytes(range(32)), 5, 7417)
CODE, WRONG = Code(7, "482915"), Code(7, "482916")


async def serve() -> tuple[InvitationServer, Address, list[Invitation]]:
    ended: list[Invitation] = []
    server = InvitationServer(Invitation(CODE, ANN, SECRET, time.monotonic()), ended.append)
    await server.start("127.0.0.1")
    return server, Address("127.0.0.1", server.port), ended


def test_a_device_joins_with_the_code() -> None:
    async def story() -> None:
        server, address, ended = await serve()
        key, inviter, node = await accept_invitation(CODE, BOB, [address])
        assert (key, inviter, node) == (SwarmKey(SECRET.swarm_key, 5), ANN, Address("127.0.0.1", 7417))
        await server.stop()
        assert [each.joined for each in ended] == [BOB]

    asyncio.run(story())


def test_three_wrong_guesses_close_the_invitation() -> None:
    async def story() -> None:
        server, address, ended = await serve()
        for _ in range(limits.MAX_WRONG_GUESSES):
            with pytest.raises(SwarmKeyError, match="code is wrong"):
                await accept_invitation(WRONG, BOB, [address])
        with pytest.raises(SwarmNetworkError, match="swarm invite"):
            await accept_invitation(CODE, BOB, [address])
        await server.stop()
        assert len(ended) == 1 and ended[0].joined is None

    asyncio.run(story())


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async def story() -> None:
        server, address, _ = await serve()
        key, _, _ = await accept_invitation(CODE, BOB, [Address("127.0.0.1", 1), address])
        assert key.generation == 5
        await server.stop()

    asyncio.run(story())


def test_strangers_cost_no_guess() -> None:
    async def story() -> None:
        server, address, _ = await serve()
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff" + b"x" * 10, b"\x00\x02\xc1\xc1", bytes(4096)):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(noise)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        key, _, _ = await accept_invitation(CODE, BOB, [address])
        assert key.generation == 5
        assert server.invitation.wrong == 0
        await server.stop()

    asyncio.run(story())


def test_dialogues_that_never_guess_keep_nobody_out() -> None:
    async def story() -> None:
        server, address, _ = await serve()
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(60)]
        key, _, _ = await accept_invitation(CODE, BOB, [address])
        assert key.generation == 5
        for _, writer in held:
            writer.close()
        await server.stop()

    asyncio.run(story())


def test_more_dialogues_than_there_is_room_for_end_the_oldest() -> None:
    async def story() -> None:
        server, address, _ = await serve()
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(200)]
        await asyncio.sleep(0)
        key, _, _ = await accept_invitation(CODE, BOB, [address])
        assert key.generation == 5 and len(server._dialogues) <= limits.MAX_PAIRING_DIALOGUES
        for _, writer in held:
            writer.close()
        await server.stop()

    asyncio.run(story())


def test_nobody_there_is_one_clear_line() -> None:
    with pytest.raises(SwarmNetworkError, match="run `swarm invite` there"):
        asyncio.run(accept_invitation(CODE, BOB, []))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "no answer from 10.77.0.1:7419; if that device is on, its firewall may be in the way: allow"),
        (ConnectionRefusedError(111, "refused"), "nothing listens at 10.77.0.1:7419; run `swarm invite` there"),
        (EOFError(), "10.77.0.1:7419 hung up; the invitation may be over"),
        (OSError(113, "No route to host"), "10.77.0.1:7419 cannot be reached (No route to host); check the address"),
    ],
)  # fmt: skip
def test_who_cannot_be_reached_is_told_with_the_cause_and_what_to_do(error: Exception, says: str) -> None:
    assert why_unreached(error, Address("10.77.0.1", 7419)).startswith(says)


def test_a_firewall_that_drops_everything_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        monkeypatch.setattr(limits, "PAIRING_TIMEOUT_S", 0.05)
        monkeypatch.setattr(asyncio, "open_connection", silence)
        with pytest.raises(SwarmNetworkError, match=r"no answer from 10\.77\.0\.1:7419; .*firewall"):
            await accept_invitation(CODE, BOB, [Address("10.77.0.1", 7419)])

    asyncio.run(story())
