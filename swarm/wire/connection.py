"""One link to a peer without its socket: frames and the time go in, typed messages and frames to send come out.

The caller sends `call()`; the one that is called gives the first message to `answer()`. Both then hold a Connection and
pass every further message to `receive()`. Nothing here reads a clock, a socket or a random number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarm import limits
from swarm.errors import RemoteProtocolError
from swarm.wire import proof
from swarm.wire.codec import Buffer, UnknownType, decode, encode, first_version
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import PROTOCOL, Heartbeat, Hello, Lane, Message, Refusal, Refuse, Welcome
from swarm.wire.proof import Credentials
from swarm.wire.records import NodeState, Version

UNKNOWN_REST = -1  # counts the types beyond MAX_UNKNOWN_TYPES


@dataclass(frozen=True)
class LocalEnd:
    """This device as it introduces itself."""

    credentials: Credentials
    boot: BootId
    name: str
    port: int
    bulk_port: int

    @property
    def peer(self) -> PeerId:
        """This device's id."""
        return self.credentials.peer


@dataclass(frozen=True)
class Remote:
    """The other end, proven."""

    peer: PeerId
    boot: BootId
    name: str
    version: Version
    port: int
    bulk_port: int
    device_key: bytes


class LinkRefused(Exception):
    """The link is not accepted; `refuse` is what the other end said, or what it is to be told."""

    def __init__(self, refuse: Refuse, peer: PeerId | None = None, boot: BootId | None = None) -> None:
        super().__init__(refuse.text)
        self.refuse = refuse
        self.peer = peer
        self.boot = boot


def refusal(reason: Refusal, text: str, retry_s: float) -> Refuse:
    """Return a Refuse of this device."""
    return Refuse(reason, text, PROTOCOL, int(retry_s))


def call(me: LocalEnd, lane: Lane, nonce: bytes) -> bytes:
    """Return the header of the first message of the caller."""
    evidence = proof.hello_proof(me.credentials, me.boot, lane.value, nonce)
    fingerprint = me.credentials.fingerprint
    return encode(Hello(PROTOCOL, me.peer, me.boot, me.name, lane.value, fingerprint, evidence, me.port, me.bulk_port))


def answered(me: LocalEnd, lane: Lane, nonce: bytes, frames: Sequence[Buffer], *, where: str, now: float) -> Connection:
    """Return the caller's connection from the answer to its hello.

    Raise LinkRefused when the other end said no or speaks another version, RemoteProtocolError when it broke a rule.
    """
    _check_version(frames, where)
    message, _ = decode(frames, where)
    if isinstance(message, Refuse):
        raise LinkRefused(message)
    if not isinstance(message, Welcome):
        raise RemoteProtocolError(f"{where} broke the protocol: {type(message).__name__} came before Welcome")
    fault = proof.check_welcome(me.credentials, message, nonce)
    if fault or message.lane != lane.value:
        raise RemoteProtocolError(f"{where} is not who it says: {fault or 'it answers for another lane'}")
    return Connection(_remote(message), lane, now)


def answer(
    me: LocalEnd, lane: Lane, nonce: bytes, frames: Sequence[Buffer], *, curve_key: bytes, where: str, now: float
) -> tuple[Connection, bytes]:
    """Return the connection and the welcome for a caller's first message.

    Raise LinkRefused with what to tell the caller, or RemoteProtocolError when it broke a rule.
    """
    _check_version(frames, where)
    message, _ = decode(frames, where)
    if not isinstance(message, Hello):
        raise LinkRefused(refusal("hello", "say Hello first", 0))
    fault = proof.check_hello(me.credentials, message, curve_key)
    if fault or message.lane != lane.value:
        raise RemoteProtocolError(f"{where} is not who it says: {fault or 'it calls for another lane'}")
    evidence = proof.welcome_proof(me.credentials, message.proof, me.boot, lane.value, nonce)
    fingerprint = me.credentials.fingerprint
    welcome = Welcome(PROTOCOL, me.peer, me.boot, me.name, lane.value, fingerprint, evidence, me.port, me.bulk_port)
    return Connection(_remote(message), lane, now), encode(welcome)


def _check_version(frames: Sequence[Buffer], where: str) -> None:
    version = first_version(frames)
    if version is not None and version.major != PROTOCOL.major:
        text = f"{where} speaks protocol {version}, this device {PROTOCOL}: update the older one"
        raise LinkRefused(refusal("version", text[: limits.MAX_TEXT_BYTES], limits.GARBAGE_BACKOFF_S))


def _remote(message: Hello | Welcome) -> Remote:
    return Remote(
        message.peer,
        message.boot,
        message.name,
        message.version,
        message.port,
        message.bulk_port,
        message.proof.device_key,
    )


class Connection:
    """A proven link: decodes, keeps the time of the last sign of life, and measures the round trip."""

    def __init__(self, remote: Remote, lane: Lane, now: float) -> None:
        self.remote = remote
        self.lane = lane
        self.heard_at = now
        self.beat_s = limits.HEARTBEAT_INTERVAL_S  # what its last heartbeat said of the next one
        self.rtt_s: float | None = None
        self._rtts: deque[float] = deque(maxlen=limits.RTT_SAMPLES)
        self.wall_offset_s: float | None = None
        self.unknown: dict[int, int] = {}
        self._echo_us = 0
        self._echo_at = now

    @property
    def device_key(self) -> bytes:
        """The public key that the peer has proven."""
        return self.remote.device_key

    def __str__(self) -> str:
        return f"{self.remote.name} ({self.remote.peer[:8]})"

    def receive(self, frames: Sequence[Buffer], now: float, wall: float) -> tuple[Message, Buffer | None] | None:
        """Return the message and its raw frame, or None for a type of a newer version.

        Raise RemoteProtocolError when the peer broke a rule.
        """
        try:
            message, frame = decode(frames, self)
        except UnknownType as unknown:
            self._count_unknown(unknown.number)
            return None
        if message.LANE is not self.lane and type(message) is not Refuse:
            raise self._fault(message, f"on the {self.lane.value} lane")
        if isinstance(message, (Hello, Welcome)):
            raise self._fault(message, "on a link that is up")
        self.heard_at = now
        if type(message) is Heartbeat:
            self._note_heartbeat(message, now, wall)
        return message, frame

    def heartbeat(self, now: float, wall: float, state: NodeState) -> bytes:
        """Return the header of the next heartbeat."""
        held_us = int((now - self._echo_at) * 1e6)
        return encode(Heartbeat(int(now * 1e6), self._echo_us, held_us, int(wall * 1e3), state))

    def is_silent(self, now: float) -> bool:
        """True when nothing came for PEER_SILENCE_S, or longer where the peer said that it beats more slowly."""
        return now - self.heard_at > limits.PEER_SILENCE_S * self.beat_s / limits.HEARTBEAT_INTERVAL_S

    def _fault(self, message: Message, where: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self} broke the protocol: {type(message).__name__} {where}")

    def _note_heartbeat(self, message: Heartbeat, now: float, wall: float) -> None:
        self._echo_us, self._echo_at, self.beat_s = message.clock_us, now, message.state.beat_s
        if not message.echo_us:
            return
        sample = max(0.0, now - (message.echo_us + message.held_us) / 1e6)
        self._rtts.append(sample)
        # The best: between heartbeats cores and radios fall asleep, but not between the messages of an answer.
        self.rtt_s = min(self._rtts)
        self.wall_offset_s = message.wall_ms / 1e3 + sample / 2 - wall

    def _count_unknown(self, number: int) -> None:
        key = number if number in self.unknown or len(self.unknown) < limits.MAX_UNKNOWN_TYPES else UNKNOWN_REST
        self.unknown[key] = self.unknown.get(key, 0) + 1
