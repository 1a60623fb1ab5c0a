"""From a short code that a person types to the swarm key: SPAKE2, without sockets.

    inviter  -> joiner   Greeting   who invites
    joiner   -> inviter  JoinRequest    who wants in, and its half of the PAKE
    inviter  -> joiner   Half       the other half
    joiner   -> inviter  Confirm    proof that both halves came from the same code: this is the guess
    inviter  -> joiner   Sealed     the swarm key, encrypted with the PAKE's key; or Wrong

Whoever listens, or sits in the middle, learns nothing that would let him test a code without one of these dialogues,
and the third wrong Confirm ends the invitation. Both ids, both names and both halves are part of what is confirmed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Meta
from spake2 import SPAKE2_A, SPAKE2_B

from swarm import limits
from swarm.errors import RemoteProtocolError, SwarmKeyError
from swarm.net.keys import SwarmKey
from swarm.wire.ids import PeerId
from swarm.wire.messages import PROTOCOL
from swarm.wire.proof import derive
from swarm.wire.records import KEY_BYTES, Version
from swarm.wire.schema import Name, Record, Software, Violation, pack, unpack

CODE_DIGITS = 6
PLACES = 9  # invitations on one network told apart by the first digit; it is not secret
HALF_BYTES = 33  # a side and a point of Ed25519
SEAL_NONCE = bytes(12)  # each key seals one message

Kind = TypeVar("Kind", bound=Record)


class Greeting(Record):
    """Who invites."""

    version: Version
    peer: PeerId
    name: Name


class JoinRequest(Record):
    """Who wants in."""

    version: Version
    peer: PeerId
    name: Name
    half: Annotated[bytes, Meta(min_length=HALF_BYTES, max_length=HALF_BYTES)]


class Half(Record):
    """The inviter's half."""

    half: Annotated[bytes, Meta(min_length=HALF_BYTES, max_length=HALF_BYTES)]


class Confirm(Record):
    """The joiner's guess."""

    mac: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class Sealed(Record):
    """The swarm key, encrypted; empty when the guess was wrong."""

    box: Annotated[bytes, Meta(max_length=256)]
    guesses_left: Annotated[int, Meta(ge=0, le=limits.MAX_WRONG_GUESSES)]


class Secret(Record):
    """What is sealed."""

    swarm_key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    generation: Annotated[int, Meta(ge=0, le=65535)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    software: Software = ""

    def __repr__(self) -> str:
        return f"Secret(generation={self.generation})"  # the key never in a log


@dataclass(frozen=True)
class Code:
    """What a person reads on one device and types on the other: 7-482-915."""

    place: int
    digits: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.place}-{self.digits[:3]}-{self.digits[3:]}"


@dataclass(frozen=True)
class Party:
    """One side as it introduces itself."""

    peer: PeerId
    name: str


def new_code() -> Code:
    """Return a random code."""
    return Code(1 + secrets.randbelow(PLACES), f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}")


def parse_code(text: str) -> Code:
    """Return the code that was typed, with or without dashes and blanks; raise SwarmKeyError."""
    digits = "".join(text.split()).replace("-", "")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) != 1 + CODE_DIGITS or digits[0] == "0":
        raise SwarmKeyError("this is not an invitation code; `swarm invite` on a device of the swarm shows one")
    return Code(int(digits[0]), digits[1:])


class Invitation:
    """One code, good for one device, for ten minutes and for three wrong guesses in all.

    What is counted is the Confirm: a dialogue that ends without one has guessed nothing, and blocks nobody.
    """

    def __init__(self, code: Code, me: Party, secret: Secret, now: float) -> None:
        self.code = code
        self.me = me
        self.expires_at = now + limits.INVITATION_S
        self.wrong = 0
        self.joined: Party | None = None
        self._secret = secret

    def is_over(self, now: float) -> bool:
        """True when nobody can use it any more."""
        return self.joined is not None or now >= self.expires_at or self.wrong >= limits.MAX_WRONG_GUESSES

    def open(self, now: float) -> Inviter | None:
        """Begin a dialogue; None when the invitation is over."""
        return None if self.is_over(now) else Inviter(self)


class Inviter:
    """The inviter's side of one dialogue. Each method takes a message and returns the next; see the top."""

    def __init__(self, invitation: Invitation) -> None:
        self._invitation = invitation
        self._key = b""
        self._joiner: Party | None = None

    def greeting(self) -> bytes:
        """Return the first message."""
        return pack(Greeting(PROTOCOL, self._invitation.me.peer, self._invitation.me.name))

    def answer_request(self, data: bytes) -> bytes:
        """Return our half."""
        request = _unpack(JoinRequest, data)
        _check_version(request.version)
        self._joiner = Party(request.peer, request.name)
        pake = SPAKE2_A(_password(self._invitation.code), *_ids(self._invitation.me, self._joiner))
        half: bytes = pake.start()
        self._key = _finish(pake, request.half, self._invitation.me, self._joiner, half + request.half)
        return pack(Half(half))

    def answer_confirm(self, data: bytes, now: float) -> bytes:
        """Return the sealed key, or that the guess was wrong, which counts."""
        confirm, invitation = _unpack(Confirm, data), self._invitation
        right = hmac.compare_digest(confirm.mac, derive(self._key, b"confirm"))
        if invitation.is_over(now):
            return pack(Sealed(b"", 0))
        if not right:
            invitation.wrong += 1
            return pack(Sealed(b"", limits.MAX_WRONG_GUESSES - invitation.wrong))
        invitation.joined = self._joiner
        plain = pack(invitation._secret)
        box = ChaCha20Poly1305(derive(self._key, b"seal")).encrypt(SEAL_NONCE, plain, None)
        return pack(Sealed(box, limits.MAX_WRONG_GUESSES - invitation.wrong))


class Guesses:
    """How often one code that was typed may be tried: whoever answers an attempt could test one code of his own.

    A stranger who answers again and again would find the code otherwise, and with it the way into the swarm.
    """

    def __init__(self) -> None:
        self.left = limits.MAX_WRONG_GUESSES

    def take(self) -> None:
        """One more; SwarmKeyError when there were too many."""
        if self.left <= 0:
            raise SwarmKeyError(
                f"{limits.MAX_WRONG_GUESSES} devices answered this code and none of them knew it: somebody interferes. "
                "Run `swarm invite` for a new code, and join with --peer and the address of that device"
            )
        self.left -= 1


class Joiner:
    """The joiner's side of one dialogue."""

    def __init__(self, code: Code, me: Party, guesses: Guesses | None = None) -> None:
        self._guesses = guesses or Guesses()
        self.inviter: Party | None = None
        self._code = code
        self._me = me
        self._key = b""
        self._half = b""

    def answer_greeting(self, data: bytes) -> bytes:
        """Return our request."""
        greeting = _unpack(Greeting, data)
        _check_version(greeting.version)
        self.inviter = Party(greeting.peer, greeting.name)
        self._pake = SPAKE2_B(_password(self._code), *_ids(self.inviter, self._me))
        self._half = self._pake.start()
        return pack(JoinRequest(PROTOCOL, self._me.peer, self._me.name, self._half))

    def answer_half(self, data: bytes) -> bytes:
        """Return the proof that we know the code; SwarmKeyError when it was given too often."""
        half = _unpack(Half, data)
        assert self.inviter is not None
        self._guesses.take()
        self._key = _finish(self._pake, half.half, self.inviter, self._me, half.half + self._half)
        return pack(Confirm(derive(self._key, b"confirm")))

    def open_sealed(self, data: bytes) -> tuple[SwarmKey, int]:
        """Return the swarm key and the port of the inviter's node; raise SwarmKeyError when the code was wrong."""
        sealed = _unpack(Sealed, data)
        if not sealed.box:
            left = sealed.guesses_left
            hint = f"{left} {'try' if left == 1 else 'tries'} left" if left else "ask for a new one with `swarm invite`"
            raise SwarmKeyError(f"the code is wrong, or was used, or is too old; {hint}")
        try:
            plain = ChaCha20Poly1305(derive(self._key, b"seal")).decrypt(SEAL_NONCE, sealed.box, None)
        except InvalidTag:
            raise SwarmKeyError("somebody else answered the invitation; ask for a new code and try again") from None
        secret = _unpack(Secret, plain)
        return SwarmKey(secret.swarm_key, secret.generation), secret.port


def _password(code: Code) -> bytes:
    return f"swarm invitation {code}".encode()


def _ids(inviter: Party, joiner: Party) -> tuple[bytes, bytes]:
    return inviter.peer.encode(), joiner.peer.encode()


def _finish(pake: SPAKE2_A | SPAKE2_B, half: bytes, inviter: Party, joiner: Party, halves: bytes) -> bytes:
    """Return the shared key, bound to everything that both have seen."""
    try:
        shared: bytes = pake.finish(half)
    except Exception as error:  # the package has no common base: not on the curve, wrong side, wrong length, ...
        raise RemoteProtocolError(f"{inviter.name} and {joiner.name}: a half of the pairing is not valid") from error
    seen = hashlib.blake2b(digest_size=KEY_BYTES, key=shared, person=b"swarm pairing")
    for part in (inviter.peer, inviter.name, joiner.peer, joiner.name):
        seen.update(len(part.encode()).to_bytes(2, "big") + part.encode())
    seen.update(halves)
    return seen.digest()


def _check_version(version: Version) -> None:
    if version.major != PROTOCOL.major:
        raise RemoteProtocolError(
            f"the other device speaks protocol {version}, this one {PROTOCOL}: update the older one"
        )


def _unpack(kind: type[Kind], data: bytes) -> Kind:
    if len(data) > limits.MAX_PAIRING_BYTES:
        raise RemoteProtocolError(f"a pairing message of {len(data)} bytes; {limits.MAX_PAIRING_BYTES} are allowed")
    try:
        return unpack(kind, data)
    except Violation as error:
        raise RemoteProtocolError(f"the other device broke the pairing protocol: {error}") from error
