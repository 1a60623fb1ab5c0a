"""What a device proves when it calls: that it is a member (knows the swarm key), and which device it is.

Pure functions over bytes; PROTOCOL.md, section Strangers, gives the reasons. Everything secret is derived here, so that
the swarm key itself is used for nothing but deriving.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Hello, Welcome
from swarm.wire.records import FINGERPRINT_BYTES, KEY_BYTES, Proof


@dataclass(frozen=True)
class Credentials:
    """The secrets of one device in one swarm; never printed."""

    swarm_key: bytes = field(repr=False)
    device_secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        """Names the swarm and gives nothing away: a one-way hash of 32 random bytes."""
        return derive(self.swarm_key, b"fingerprint")[:FINGERPRINT_BYTES]

    @property
    def device_key(self) -> bytes:
        """The device's public key."""
        return X25519PrivateKey.from_private_bytes(self.device_secret).public_key().public_bytes_raw()

    @property
    def peer(self) -> PeerId:
        """The device's id."""
        return peer_id_of(self.device_key)

    @property
    def server_secret(self) -> bytes:
        """The CURVE secret that every member's listening socket has: to reach one is to know the swarm key."""
        return derive(self.swarm_key, b"curve server")


def derive(key: bytes, label: bytes) -> bytes:
    """Return 32 bytes that say nothing about `key` or about those of another label (BLAKE2b as a keyed PRF)."""
    return hashlib.blake2b(label, digest_size=KEY_BYTES, key=key, person=b"swarm v1").digest()


def peer_id_of(device_key: bytes) -> PeerId:
    """Return the id that belongs to a device's public key."""
    return PeerId(hashlib.blake2b(device_key, digest_size=PeerId.N_BYTES, person=b"swarm peer").hexdigest())


def hello_proof(me: Credentials, boot: BootId, lane: str, nonce: bytes) -> Proof:
    """The caller's proof. CURVE has already proven its device key to the one that is called."""
    text = _transcript(b"hello", me.device_key, boot, lane, nonce)
    return Proof(me.device_key, nonce, _mac(_member_key(me), text), b"")


def check_hello(me: Credentials, hello: Hello, curve_key: bytes) -> str:
    """Return "" or what is wrong. `curve_key` is the public key that the CURVE handshake has proven."""
    proof, peer = hello.proof, hello.peer
    if proof.device_key != curve_key or peer_id_of(curve_key) != peer:
        return "its id does not belong to its device key"
    text = _transcript(b"hello", proof.device_key, hello.boot, hello.lane, proof.nonce)
    return _same(proof.member_mac, _mac(_member_key(me), text))


def welcome_proof(me: Credentials, hello: Proof, boot: BootId, lane: str, nonce: bytes) -> Proof:
    """The proof of the one that was called: any member has the server key, so the device key is proven here."""
    text = _transcript(b"welcome", me.device_key, boot, lane, nonce + hello.nonce + hello.device_key)
    device_mac = _mac(_shared(me, hello.device_key), text)
    return Proof(me.device_key, nonce, _mac(_member_key(me), text), device_mac)


def check_welcome(me: Credentials, welcome: Welcome, nonce: bytes) -> str:
    """Return "" or what is wrong. `nonce` is the one of our hello."""
    proof = welcome.proof
    if peer_id_of(proof.device_key) != welcome.peer:
        return "its id does not belong to its device key"
    nonces = proof.nonce + nonce + me.device_key
    text = _transcript(b"welcome", proof.device_key, welcome.boot, welcome.lane, nonces)
    try:
        shared = _shared(me, proof.device_key)
    except ValueError:  # a point of small order
        return "its device key is not a key"
    return _same(proof.member_mac, _mac(_member_key(me), text)) or _same(proof.device_mac, _mac(shared, text))


def _member_key(me: Credentials) -> bytes:
    return derive(me.swarm_key, b"member")


def _shared(me: Credentials, other: bytes) -> bytes:
    secret = X25519PrivateKey.from_private_bytes(me.device_secret)
    return derive(secret.exchange(X25519PublicKey.from_public_bytes(other)), b"device")


def _transcript(step: bytes, device_key: bytes, boot: BootId, lane: str, nonces: bytes) -> bytes:
    parts = (step, device_key, bytes.fromhex(boot), lane.encode(), nonces)
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _mac(key: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=KEY_BYTES, key=key, person=b"swarm mac").digest()


def _same(given: bytes, wanted: bytes) -> str:
    return "" if hmac.compare_digest(given, wanted) else "its proof is wrong: it has another swarm key"
