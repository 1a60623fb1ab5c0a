"""A new swarm key for all but the lost device."""

from __future__ import annotations

import pytest

from swarm.errors import SwarmKeyError
from swarm.net.events import Received
from swarm.net.keys import SwarmKey, new_swarm_key
from swarm.net.rekey import WAIT_S, Rekeying, accept
from swarm.wire.ids import PeerId
from swarm.wire.messages import Rekey, RekeyDone

ANN, BOB, EVE = (PeerId(digit * 32) for digit in "abe")
OLD, NEW = SwarmKey(b"o" * 32, 1), SwarmKey(b"n" * 32, 2)


def test_it_is_over_when_all_that_remain_have_written_the_key_down() -> None:
    rekeying = Rekeying(NEW, [ANN, BOB], 0.0)
    assert rekeying.message() == Rekey(2, NEW.secret)
    rekeying.take(ANN, RekeyDone(2))
    rekeying.take(EVE, RekeyDone(2))
    rekeying.take(BOB, RekeyDone(1))
    assert not rekeying.is_over(1.0) and rekeying.waiting == {BOB}
    rekeying.take(BOB, RekeyDone(2))
    assert rekeying.is_over(1.0) and rekeying.done == {ANN, BOB}


def test_a_device_that_does_not_answer_or_is_lost_does_not_hold_the_others_up() -> None:
    rekeying = Rekeying(NEW, [ANN, BOB], 0.0)
    rekeying.lost(ANN)
    assert not rekeying.is_over(WAIT_S - 0.1)
    assert rekeying.is_over(WAIT_S) and rekeying.waiting == {BOB}


def test_only_a_newer_key_is_taken() -> None:
    assert accept(OLD, Rekey(2, NEW.secret)) == NEW
    assert accept(NEW, Rekey(2, NEW.secret)) is None
    for older in (Rekey(1, OLD.secret), Rekey(2, OLD.secret)):
        with pytest.raises(SwarmKeyError, match="older"):
            accept(NEW, older)


def test_no_key_is_in_the_text_of_a_message_or_an_event() -> None:
    key = new_swarm_key(1)
    text = repr(Received(ANN, Rekey(1, key.secret))) + repr(key)
    assert repr(key.secret) not in text and key.secret.hex() not in text
