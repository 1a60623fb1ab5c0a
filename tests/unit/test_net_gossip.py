"""What is told about others, and what of it is believed to be worth a call."""

from __future__ import annotations

import msgspec
import pytest

from swarm.net.gossip import is_told, news_of, tell, to_learn
from swarm.net.links import PeerInfo
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import PROTOCOL, Gossip
from swarm.wire.records import Address, PeerAddresses

ANN, BOB, ME = (PeerId(digit * 32) for digit in "abc")
ADDRESS = Address("192.168.1.7", 7417)


def info(peer: PeerId, address: Address = ADDRESS) -> PeerInfo:
    return PeerInfo(peer, "name", BootId("00" * 8), PROTOCOL, address, True, True, None, None, 90.0, 0)


def test_connected_devices_are_told_with_their_age_and_never_to_themselves() -> None:
    told = tell((info(ANN), info(BOB)), 100.0, leave_out=BOB)
    assert told == Gossip((PeerAddresses(ANN, "name", (ADDRESS,), 10.0),))
    assert [each.peer for each in news_of((info(ANN), info(BOB)), BOB, 100.0).peers] == [BOB]


def test_an_address_that_means_something_only_here_is_not_told() -> None:
    assert tell((info(ANN, Address("fe80::1%eth0", 7417)),), 100.0) == Gossip(())


@pytest.mark.parametrize(
    "host", ["fe80::1", "fe80::1%eth0", "169.254.0.1", "224.0.0.1", "0.0.0.0", "::", "pi.local", ""]
)
def test_an_address_of_no_use_is_not_learnt(host: str) -> None:
    assert not is_told(Address(host, 1))
    gossip = Gossip((PeerAddresses(ANN, "n", (Address(host, 1), ADDRESS), 0.0),))
    assert list(to_learn(gossip, ME, ADDRESS)) == [(ANN, (ADDRESS,))]


def test_nothing_is_learnt_about_ourselves_or_without_an_address() -> None:
    mine = PeerAddresses(ME, "me", (ADDRESS,), 0.0)
    assert list(to_learn(Gossip((mine, msgspec.structs.replace(mine, peer=ANN, addresses=()))), ME, ADDRESS)) == []


def test_addresses_of_this_machine_count_only_from_a_teller_on_it() -> None:
    loopback = Address("127.0.0.1", 22)
    gossip = Gossip((PeerAddresses(ANN, "n", (loopback,), 0.0),))
    assert list(to_learn(gossip, ME, ADDRESS)) == []
    assert list(to_learn(gossip, ME, Address("127.0.0.1", 7417))) == [(ANN, (loopback,))]
