"""Who might be there: mDNS announcements and browsing on all real interfaces. Heartbeats say who is.

Measured with python-zeroconf: a node that is killed is never reported as removed, and after a partition a browser
misses what was started meanwhile. So nothing is ever believed to be gone here, and on a timer, or when an interface
appears, everything is announced and browsed afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from zeroconf import Error as ZeroconfError
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from swarm import limits
from swarm.net import interfaces
from swarm.net.interfaces import Interface
from swarm.wire.ids import PeerId
from swarm.wire.records import FINGERPRINT_BYTES, Address, Version

log = logging.getLogger(__name__)

NODE_SERVICE = "_swarm._tcp.local."
INVITATION_SERVICE = "_swarm-pair._tcp.local."
RESOLVE_MS = 3000
RESOLVE_AT_ONCE = 16
MAX_TXT_BYTES = 64
VERSION = re.compile(r"(\d{1,5})\.(\d{1,5})", re.ASCII)
HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)


@dataclass(frozen=True)
class Announcement:
    """All that this device tells everyone. An invitation has no fingerprint: its reader is in no swarm."""

    service: str
    instance: str  # unique: a restart must not be hidden behind what others remember
    peer: PeerId
    version: Version
    port: int
    fingerprint: bytes = b""


@dataclass(frozen=True)
class Seen:
    """Somebody announced this; nothing of it is proven."""

    instance: str
    peer: PeerId
    version: Version
    fingerprint: bytes
    addresses: tuple[Address, ...]


class Discovery:
    """Announces and browses until stopped. `on_seen` is called on the loop, again whenever something is heard again."""

    def __init__(
        self,
        service: str,
        on_seen: Callable[[Seen], None],
        announcement: Announcement | None = None,
        list_interfaces: Callable[[], tuple[Interface, ...]] = interfaces.here,
        interval_s: Callable[[], float] = lambda: limits.ANNOUNCE_INTERVAL_S,
    ) -> None:
        """`interval_s`: until everything is announced and browsed afresh; asked again and again."""
        self.problem = ""  # why there is no discovery just now, for `swarm doctor`
        self._service = service
        self._on_seen = on_seen
        self._announcement = announcement
        self._list_interfaces = list_interfaces
        self._interval_s = interval_s
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: AsyncServiceInfo | None = None
        self._using: tuple[Interface, ...] = ()
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(RESOLVE_AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns when the first announcement is out, or could not be made (see `problem`)."""
        await self._follow_interfaces()
        self._task = asyncio.create_task(self._run(), name="swarm-discovery")

    async def stop(self) -> None:
        """Take the announcement back and end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._close()

    async def refresh(self) -> None:
        """Announce and browse afresh now."""
        try:
            await self._announce_again()
            await self._browse()
        except (OSError, ZeroconfError, RuntimeError) as error:
            self._fail(error)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        refreshed_at = loop.time()
        while True:
            hurries = self._interval_s() <= limits.ANNOUNCE_INTERVAL_S
            await asyncio.sleep(limits.INTERFACE_POLL_S if hurries else limits.IDLE_INTERFACE_POLL_S)
            if await self._follow_interfaces():
                refreshed_at = loop.time()
            elif loop.time() >= refreshed_at + self._interval_s():
                refreshed_at = loop.time()
                await self.refresh()

    async def _follow_interfaces(self) -> bool:
        """Open everything anew when the interfaces have changed, or nothing works yet."""
        using = interfaces.usable(self._list_interfaces())
        if using == self._using and self._zeroconf is not None:
            return False
        await self._close()
        self._using = using
        try:
            await self._open()
        except (OSError, ZeroconfError, RuntimeError) as error:
            await self._close()
            self._fail(error)
        return True

    async def _open(self) -> None:
        if not self._using:
            raise OSError("no network interface is up")
        # Inside a container or a strict sandbox this is where multicast fails.
        self._zeroconf = AsyncZeroconf(interfaces=_interface_choice(self._using))
        if self._announcement is not None:
            self._info = _service_info(self._announcement, self._using)
            # The name is unique, so nobody has to be asked for 0.7 s whether it is taken.
            await (await self._zeroconf.async_register_service(self._info, cooperating_responders=True))
        await self._browse()
        self.problem = ""
        log.info("discovery on %s", [each.name for each in self._using])

    async def _browse(self) -> None:
        if self._zeroconf is None:
            return
        if self._browser is not None:
            await self._browser.async_cancel()
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, self._service, handlers=[self._on_change])

    async def _announce_again(self) -> None:
        if self._zeroconf is not None and self._info is not None:
            await (await self._zeroconf.async_update_service(self._info))

    async def _close(self) -> None:
        for task in list(self._resolving.values()):
            task.cancel()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        zeroconf, browser = self._zeroconf, self._browser
        self._zeroconf = self._browser = self._info = None
        if zeroconf is None:
            return
        with contextlib.suppress(OSError, ZeroconfError, RuntimeError):  # the interface may be gone
            if browser is not None:
                await browser.async_cancel()
            await zeroconf.async_unregister_all_services()
        await zeroconf.async_close()

    def _fail(self, error: Exception) -> None:
        self.problem = str(error) or type(error).__name__
        log.warning("discovery failed: %s", self.problem)

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed or name in self._resolving:
            return
        if self._info is not None and name == self._info.name:
            return
        if len(self._resolving) < limits.MAX_DISCOVERED:
            self._resolving[name] = asyncio.get_running_loop().create_task(self._resolve(zeroconf, name))

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            async with self._slots:
                info = AsyncServiceInfo(self._service, name)
                if await info.async_request(zeroconf, RESOLVE_MS):
                    seen = read_service(info)
                    if seen is not None:
                        self._on_seen(seen)
        finally:
            self._resolving.pop(name, None)


def read_service(info: AsyncServiceInfo) -> Seen | None:
    """Return what a service says, None when it is not what a Swarm node would say: anybody may announce anything."""
    instance = info.name.removesuffix("." + info.type)
    peer = _txt(info, "id")
    fingerprint = _txt(info, "fp")
    version = VERSION.fullmatch(_txt(info, "v"))
    if version is None or not info.port or len(peer) != 2 * PeerId.N_BYTES or not HEX.fullmatch(peer):
        return None
    if fingerprint and (len(fingerprint) != 2 * FINGERPRINT_BYTES or not HEX.fullmatch(fingerprint)):
        return None
    hosts = [host for host in info.parsed_scoped_addresses() if _can_be_called(host)]
    hosts.sort(key=lambda host: (host.lower().startswith("fe80"), ":" in host))
    addresses = tuple(Address(host, info.port) for host in hosts[: limits.MAX_ADDRESSES])
    major, minor = int(version[1]), int(version[2])
    return Seen(instance, PeerId(peer), Version(major, minor), bytes.fromhex(fingerprint), addresses)


def _can_be_called(host: str) -> bool:
    """A link-local address means nothing without the interface it was heard on."""
    return len(host) <= limits.MAX_HOST_BYTES and (not host.lower().startswith("fe80") or "%" in host)


def _txt(info: AsyncServiceInfo, key: str) -> str:
    value = info.properties.get(key.encode()) or b""
    return value.decode("ascii", "replace") if len(value) <= MAX_TXT_BYTES else ""


def _service_info(announcement: Announcement, using: tuple[Interface, ...]) -> AsyncServiceInfo:
    txt = {"id": announcement.peer, "v": str(announcement.version)}
    if announcement.fingerprint:
        txt["fp"] = announcement.fingerprint.hex()
    packed = [
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        for address in interfaces.addresses_of(using)[: limits.MAX_ADDRESSES]
    ]
    return AsyncServiceInfo(
        announcement.service,
        f"{announcement.instance}.{announcement.service}",
        addresses=packed,
        port=announcement.port,
        properties=txt,
        server=f"swarm-{announcement.instance}.local.",
    )


def _interface_choice(using: tuple[Interface, ...]) -> list[str | int | tuple[tuple[str, int, int], int]]:
    """IPv4 interfaces go by address, IPv6 ones by index."""
    choice: list[str | int | tuple[tuple[str, int, int], int]] = []
    for each in using:
        choice.extend(address for address in each.addresses if ":" not in address)
        if any(":" in address for address in each.addresses):
            with contextlib.suppress(OSError):
                choice.append(socket.if_nametoindex(each.name))
    return choice
