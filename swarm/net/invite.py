"""Invitations over TCP: a small listener beside the node while a code is open, and the one that uses a code.

Not ZeroMQ, because the joiner has no key yet: five small messages, each with a length in front, bounded and in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable

from swarm import limits
from swarm.errors import RemoteProtocolError, SwarmNetworkError
from swarm.net.keys import SwarmKey
from swarm.net.pairing import Code, Guesses, Invitation, Inviter, Joiner, Party
from swarm.wire.records import Address

LENGTH_BYTES = 2


class InvitationServer:
    """Serves one invitation until it is used, too old, or guessed wrong too often."""

    def __init__(self, invitation: Invitation, on_end: Callable[[Invitation], None]) -> None:
        self.invitation = invitation
        self.port = 0
        self._on_end = on_end
        self._server: asyncio.Server | None = None
        self._dialogues: dict[asyncio.Task[None], str] = {}  # with the host that called, the oldest first
        self._expiry: asyncio.TimerHandle | None = None

    async def start(self, host: str | None = None, port: int = 0) -> None:
        """Listen; raise SwarmNetworkError when that is not possible."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=limits.MAX_PAIRING_BYTES)
        except OSError as error:
            raise SwarmNetworkError(f"cannot listen for the invitation ({error.strerror})") from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._expiry = asyncio.get_running_loop().call_later(limits.INVITATION_S, self._end)

    async def stop(self) -> None:
        """Withdraw the invitation."""
        self._end()
        for task in list(self._dialogues):
            task.cancel()
        await asyncio.gather(*self._dialogues, return_exceptions=True)

    def _end(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self._expiry is not None:
            self._expiry.cancel()
        self._on_end(self.invitation)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._make_room()
        self._dialogues[task] = _host(writer)
        try:
            inviter = self.invitation.open(time.monotonic())
            if inviter is not None:
                async with asyncio.timeout(limits.PAIRING_TIMEOUT_S):
                    await _invite(inviter, reader, writer)
        except (OSError, TimeoutError, EOFError, RemoteProtocolError):
            pass  # a stranger: nothing was learnt, and the node has other things to do
        except asyncio.CancelledError:
            if self._server is None:
                raise  # not to make room for another: the invitation is withdrawn
        finally:
            self._dialogues.pop(task, None)
            await _hang_up(writer)
            if self.invitation.is_over(time.monotonic()):
                self._end()

    def _make_room(self) -> None:
        """Whoever comes is heard: when there are too many, one ends of the host that has most, its oldest."""
        if len(self._dialogues) >= limits.MAX_PAIRING_DIALOGUES:
            hosts = Counter(self._dialogues.values())
            oldest = max(self._dialogues, key=lambda task: hosts[self._dialogues[task]])
            del self._dialogues[oldest]
            oldest.cancel()


async def accept_invitation(
    code: Code, me: Party, addresses: Iterable[Address], guesses: Guesses | None = None
) -> tuple[SwarmKey, Party, Address]:
    """Use a code at the first of these addresses that answers; return the key, who invited, and where its node is.

    `guesses`: how often the code may be tried still, here and elsewhere. Raise SwarmKeyError when the code is wrong or
    was tried too often, SwarmNetworkError when nobody answers.
    """
    guesses = guesses or Guesses()
    trouble = "no device answers; run `swarm invite` there and try again"
    for address in addresses:
        try:
            async with asyncio.timeout(limits.PAIRING_TIMEOUT_S):
                return await _join(code, me, address, guesses)
        except (OSError, TimeoutError, EOFError, RemoteProtocolError) as error:
            trouble = why_unreached(error, address)
    raise SwarmNetworkError(f"the invitation could not be used: {trouble}")


def why_unreached(error: Exception, address: Address) -> str:
    """Why nobody answered at an address, and what to do about it."""
    if isinstance(error, RemoteProtocolError):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {address}; run `swarm invite` there, or give the address of the device that did"
    if isinstance(error, TimeoutError):
        return (
            f"no answer from {address}; if that device is on, its firewall may be in the way: allow TCP "
            f"{address.port - 2}-{address.port} there (`swarm doctor` there says how)"
        )
    if isinstance(error, EOFError):
        return f"{address} hung up; the invitation may be over, run `swarm invite` there again"
    assert isinstance(error, OSError)
    why = error.strerror or str(error) or type(error).__name__
    return f"{address} cannot be reached ({why}); check the address, and that both are on one network"


async def _invite(inviter: Inviter, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _write(writer, inviter.greeting())
    # The arithmetic of a half takes some ms in Python: not on the loop that serves answers.
    half = await asyncio.to_thread(inviter.answer_request, await _read_soon(reader))
    await _write(writer, half)
    await _write(writer, inviter.answer_confirm(await _read_soon(reader), time.monotonic()))


async def _join(code: Code, me: Party, address: Address, guesses: Guesses) -> tuple[SwarmKey, Party, Address]:
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=limits.MAX_PAIRING_BYTES)
    try:
        joiner = Joiner(code, me, guesses)
        await _write(writer, await asyncio.to_thread(joiner.answer_greeting, await _read(reader)))
        await _write(writer, await asyncio.to_thread(joiner.answer_half, await _read(reader)))
        key, port = joiner.open_sealed(await _read(reader))
        assert joiner.inviter is not None
        return key, joiner.inviter, Address(address.host, port)
    finally:
        await _hang_up(writer)


async def _read_soon(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(limits.PAIRING_STEP_S):
        return await _read(reader)


async def _read(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > limits.MAX_PAIRING_BYTES:
        raise RemoteProtocolError(f"a pairing message of {length} bytes; {limits.MAX_PAIRING_BYTES} are allowed")
    return await reader.readexactly(length)


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
    await writer.drain()


def _host(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return str(name[0]) if name else ""


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
