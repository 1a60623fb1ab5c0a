"""How two members of a stage prove to each other that they belong to it: three messages of known length, without I/O.

PROTOCOL.md, "Between the members of a stage", gives the reasons. A member draws a fresh salt for each link, and the key
that it sends with is derived from it: no key is used twice, so no nonce is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import NamedTuple

from swarm.errors import RemoteProtocolError
from swarm.wire.proof import derive

MAGIC = b"SWS1"
TAG_BYTES, SALT_BYTES, NONCE_BYTES, MAC_BYTES = 16, 32, 16, 32
_FIELDS = struct.Struct(f"<4s{TAG_BYTES}sBBB{SALT_BYTES}s{NONCE_BYTES}s")
MESSAGE_BYTES = _FIELDS.size + MAC_BYTES  # of a hello and of a welcome
READY_BYTES = MAC_BYTES


class Introduction(NamedTuple):
    """What a member says of itself: to whom, whether its CPU has AES, and its salt of this link."""

    tag: bytes
    sender: int
    to: int
    has_aes: bool
    salt: bytes
    nonce: bytes

    def packed(self) -> bytes:
        return _FIELDS.pack(MAGIC, *self)


class StageProof:
    """One member's end of all its proofs in a stage."""

    def __init__(self, key: bytes, me: int, n: int, has_aes: bool) -> None:
        """`key`: from stage_key."""
        self.me, self.n, self.has_aes = me, n, has_aes
        self.tag = derive(key, b"stage tag")[:TAG_BYTES]  # names the stage and gives nothing away
        self.salt = os.urandom(SALT_BYTES)
        self._key, self._proving = key, derive(key, b"stage proof")

    def introduce(self, to: int) -> Introduction:
        """What this member says to another, once."""
        return Introduction(self.tag, self.me, to, self.has_aes, self.salt, os.urandom(NONCE_BYTES))

    def hello(self, mine: Introduction) -> bytes:
        """The first message, of the one that calls."""
        return self._sealed(b"hello", mine.packed())

    def check_hello(self, message: bytes) -> Introduction:
        """The caller; raise RemoteProtocolError when it is not a member that calls this one."""
        theirs = self._checked(b"hello", message, b"")
        if not self.me < theirs.sender < self.n:  # so that two never call each other
            raise RemoteProtocolError(f"member {theirs.sender} of a stage does not call member {self.me}")
        return theirs

    def welcome(self, mine: Introduction, hello: Introduction) -> bytes:
        """The second message: of the one that was called."""
        return self._sealed(b"welcome", mine.packed(), hello.packed())

    def check_welcome(self, message: bytes, hello: Introduction) -> Introduction:
        """The one that was called; raise RemoteProtocolError when it is not the member that was meant."""
        theirs = self._checked(b"welcome", message, hello.packed())
        if theirs.sender != hello.to:
            raise RemoteProtocolError(f"member {theirs.sender} of a stage answers for member {hello.to}")
        return theirs

    def ready(self, hello: Introduction, welcome: Introduction) -> bytes:
        """The third: the caller knows the key now, and does not only repeat what another has said."""
        return self._mac(b"ready", hello.packed(), welcome.packed())

    def check_ready(self, message: bytes, hello: Introduction, welcome: Introduction) -> None:
        """Raise RemoteProtocolError when it is not of the caller of `hello`."""
        if not hmac.compare_digest(message, self.ready(hello, welcome)):
            raise RemoteProtocolError("a caller did not prove that it belongs to the stage")

    def sending_key(self, member: int, salt: bytes) -> bytes:
        """The key that a member with this salt seals its frames with."""
        return derive(self._key, b"stage sender" + bytes([member]) + salt)

    def _sealed(self, step: bytes, fields: bytes, before: bytes = b"") -> bytes:
        return fields + self._mac(step, fields, before)

    def _checked(self, step: bytes, message: bytes, before: bytes) -> Introduction:
        fields, mac = message[: _FIELDS.size], message[_FIELDS.size :]
        if not hmac.compare_digest(mac, self._mac(step, fields, before)):
            raise RemoteProtocolError("a member of a stage could not prove that it belongs to it")
        magic, tag, sender, to, has_aes, salt, nonce = _FIELDS.unpack(fields)
        theirs = Introduction(tag, sender, to, bool(has_aes), salt, nonce)
        if magic != MAGIC or tag != self.tag or to != self.me or has_aes > 1:
            raise RemoteProtocolError(f"member {sender} of a stage introduced itself to another one")
        return theirs

    def _mac(self, step: bytes, *parts: bytes) -> bytes:
        text = b"".join(len(part).to_bytes(2, "big") + part for part in (step, *parts))
        return hashlib.blake2b(text, digest_size=MAC_BYTES, key=self._proving, person=b"swarm stage").digest()


def stage_key(secret: bytes, author: str, epoch: int, first: int) -> bytes:
    """The key of one stage of a placement: `secret` is what its author drew, `first` the stage's first layer."""
    return derive(secret, f"stage {author} {epoch} {first}".encode())


def tag_of(message: bytes) -> bytes:
    """The tag of the stage that a caller names, not proven yet."""
    return message[len(MAGIC) : len(MAGIC) + TAG_BYTES]
