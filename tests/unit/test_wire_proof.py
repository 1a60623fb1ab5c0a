"""What a device proves, without links: test_wire_connection.py has the two ends together."""

from __future__ import annotations

import random

from swarm.wire.ids import BootId
from swarm.wire.messages import PROTOCOL, Hello, Welcome
from swarm.wire.proof import Credentials, check_hello, check_welcome, derive, hello_proof, peer_id_of, welcome_proof
from swarm.wire.records import FINGERPRINT_BYTES, NONCE_BYTES, Proof

RNG = random.Random(7)
SWARM_KEY = RNG.randbytes(32)
ANN, BOB = (Credentials(SWARM_KEY, RNG.randbytes(32)) for _ in range(2))
EVE = Credentials(RNG.randbytes(32), RNG.randbytes(32))
BOOT = BootId("0b" * 8)
NONCES = (b"a" * NONCE_BYTES, b"b" * NONCE_BYTES)


def hello(me: Credentials, lane: str = "fast") -> Hello:
    evidence = hello_proof(me, BOOT, lane, NONCES[0])
    return Hello(PROTOCOL, me.peer, BOOT, "me", "fast", me.fingerprint, evidence, 1, 2)


def welcome(me: Credentials, caller: Proof) -> Welcome:
    evidence = welcome_proof(me, caller, BOOT, "fast", NONCES[1])
    return Welcome(PROTOCOL, me.peer, BOOT, "me", "fast", me.fingerprint, evidence, 1, 2)


def test_a_member_is_believed_and_a_stranger_is_not() -> None:
    assert check_hello(BOB, hello(ANN), ANN.device_key) == ""
    assert "another swarm key" in check_hello(BOB, hello(EVE), EVE.device_key)


def test_a_hello_counts_only_from_the_key_that_curve_has_proven() -> None:
    assert "does not belong" in check_hello(BOB, hello(ANN), BOB.device_key)


def test_a_hello_for_one_lane_proves_nothing_on_the_other() -> None:
    assert "proof is wrong" in check_hello(BOB, hello(ANN, "bulk"), ANN.device_key)


def test_a_welcome_answers_one_hello() -> None:
    answer = welcome(BOB, hello(ANN).proof)
    assert check_welcome(ANN, answer, NONCES[0]) == ""
    assert "proof is wrong" in check_welcome(ANN, answer, NONCES[1])
    assert "proof is wrong" in check_welcome(ANN, welcome(EVE, hello(ANN).proof), NONCES[0])


def test_secrets_are_not_in_the_text_of_credentials() -> None:
    text = repr(ANN)
    for secret in (SWARM_KEY, ANN.device_secret, ANN.server_secret):
        assert secret.hex() not in text and repr(secret) not in text


def test_derived_values_do_not_repeat_the_key_or_each_other() -> None:
    labels = (b"fingerprint", b"curve server", b"member")
    values = {derive(SWARM_KEY, label) for label in labels}
    assert len(values) == 3 and SWARM_KEY not in values
    assert ANN.fingerprint == BOB.fingerprint and len(ANN.fingerprint) == FINGERPRINT_BYTES


def test_an_id_is_a_hash_of_the_device_key() -> None:
    assert ANN.peer == peer_id_of(ANN.device_key) != BOB.peer
    assert len(ANN.peer) == 2 * ANN.peer.N_BYTES
