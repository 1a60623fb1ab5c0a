"""Which network interfaces lead to other devices: real ones that are up, not bridges of containers or tunnels."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

# Names that container engines, hypervisors and VPNs give to interfaces on which no home device can be.
NOT_REAL = re.compile(
    r"docker|br-[0-9a-f]|veth|virbr|vnet|vmnet|vboxnet|cni|flannel|cali|cilium|kube|nodelocaldns|weave|ovs|podman|lxc|lxdbr"
    r"|incusbr|tun|tap|wg|tailscale|zt|utun|ipsec|ppp|dummy|ifb|sit|gre|bond_slave|awdl|llw|anpi|ap\d"
)


LOOK_AGAIN_S = 10.0  # after a change of networks
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface: its addresses without zone."""

    name: str
    is_up: bool
    is_loopback: bool
    has_multicast: bool
    addresses: tuple[str, ...]


def usable(interfaces: Iterable[Interface]) -> tuple[Interface, ...]:
    """Return the interfaces to announce and browse on, in a fixed order; the loopback when there is no other.

    So several nodes on one machine without a network find each other too.
    """
    up = [each for each in interfaces if each.is_up and each.addresses]
    real = [each for each in up if each.has_multicast and not each.is_loopback and not NOT_REAL.match(each.name)]
    chosen = real or [each for each in up if each.is_loopback]
    return tuple(sorted(chosen, key=lambda each: each.name))


def addresses_of(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    """Return every address, those that work best first: IPv4, then IPv6, link-local last."""
    every = [address for each in interfaces for address in each.addresses]
    return tuple(sorted(dict.fromkeys(every), key=_rank))


def here() -> tuple[Interface, ...]:
    """Return all interfaces of this machine, usable or not."""
    stats = psutil.net_if_stats()
    return tuple(
        _interface(name, entries, stats[name]) for name, entries in psutil.net_if_addrs().items() if name in stats
    )


class Neighbourhood:
    """This device's own networks, as its interfaces have them now and then."""

    def __init__(self) -> None:
        self._networks: list[Network] = []
        self._looked_at = -float("inf")

    def is_near(self, host: str) -> bool:
        """True for an IP address in one of them."""
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            self._networks, self._looked_at = networks(), time.monotonic()
        return any(ip in network for network in self._networks)


def networks() -> list[Network]:
    """The networks of all interfaces that are up, the loopback's too."""
    stats = psutil.net_if_stats()
    found: list[Network] = []
    for name, entries in psutil.net_if_addrs().items():
        if name not in stats or not stats[name].isup:
            continue
        for entry in entries:
            address = str(entry.address).partition("%")[0]
            if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.netmask:
                with contextlib.suppress(ValueError):
                    found.append(ipaddress.ip_network(f"{address}/{_prefix(str(entry.netmask))}", strict=False))
    return found


def _prefix(netmask: str) -> int:
    """255.255.255.0 and ffff:ffff:ffff:ffff:: as a number of bits."""
    return int(ipaddress.ip_address(netmask)).bit_count()


def _interface(name: str, entries: Iterable[object], stats: object) -> Interface:
    flags = str(getattr(stats, "flags", "")).split(",")
    addresses = [
        str(getattr(entry, "address", "")).partition("%")[0]
        for entry in entries
        if getattr(entry, "family", None) in (socket.AF_INET, socket.AF_INET6)
    ]
    is_up = bool(getattr(stats, "isup", False))
    is_running = "running" in flags or not any(flags)  # carrier; a pulled cable leaves the interface up
    return Interface(name, is_up and is_running, "loopback" in flags, "multicast" in flags, tuple(addresses))


def _rank(address: str) -> tuple[bool, bool, int]:
    ip = ipaddress.ip_address(address)
    return ip.is_link_local, ip.version == 6, int(ip)
