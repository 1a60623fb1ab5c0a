"""Real interfaces are used, bridges of containers and tunnels are not."""

from __future__ import annotations

import pytest

from swarm.net import interfaces
from swarm.net.interfaces import Interface, addresses_of, usable


def interface(name: str, *addresses: str, up: bool = True, loopback: bool = False, multicast: bool = True) -> Interface:
    return Interface(name, up, loopback, multicast, addresses or ("192.168.1.7",))


@pytest.mark.parametrize(
    "name", ["eth0", "enp3s0", "end0", "eno1", "wlan0", "wlp2s0", "wlx00c0ca", "usb0", "br0", "bond0"]
)
def test_an_interface_of_a_home_device_is_used(name: str) -> None:
    assert [each.name for each in usable([interface(name)])] == [name]


CONTAINERS = (
    "docker0",
    "br-3f1a",
    "veth12ab",
    "cni0",
    "flannel.1",
    "cali12",
    "podman0",
    "lxcbr0",
    "lxdbr0",
    "incusbr0",
)
MACHINES = ("virbr0", "vnet3", "vmnet8", "vboxnet0", "tap1")
TUNNELS = ("tun0", "wg0", "tailscale0", "zt7nnig", "utun3", "ppp0", "dummy0")


@pytest.mark.parametrize("name", [*CONTAINERS, *MACHINES, *TUNNELS])
def test_an_interface_without_home_devices_is_ignored(name: str) -> None:
    assert [each.name for each in usable([interface(name), interface("eth0")])] == ["eth0"]


def test_an_interface_that_is_down_or_has_no_address_or_no_multicast_is_ignored() -> None:
    unfit = [
        interface("eth1", up=False),
        Interface("eth2", True, False, True, ()),
        interface("eth3", multicast=False),
    ]
    assert [each.name for each in usable([*unfit, interface("wlan0")])] == ["wlan0"]


def test_the_loopback_is_used_only_when_there_is_nothing_else() -> None:
    loopback = interface("lo", "127.0.0.1", loopback=True, multicast=False)
    assert usable([loopback, interface("docker0")]) == (loopback,)
    assert loopback not in usable([loopback, interface("eth0")])
    assert usable([]) == ()


def test_addresses_that_work_best_come_first_and_once() -> None:
    both = [interface("eth0", "fe80::1", "fd00::2", "192.168.1.9"), interface("wlan0", "192.168.1.7", "fd00::2")]
    assert addresses_of(both) == ("192.168.1.7", "192.168.1.9", "fd00::2", "fe80::1")


def test_this_machine_has_a_loopback() -> None:
    assert any(each.is_loopback and "127.0.0.1" in each.addresses for each in interfaces.here())
