"""Which user of this device a local connection comes from: the kernel's table of connections says it.

Programs on a device mostly send no key. So that one user's questions tell another one nothing, they are told apart by
whose process has the other end of the connection. A connection stays its user's, so it is looked up once: beside many
others that takes milliseconds of the loop.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _USER = 1, 2, 7  # columns


class ConnectionUser:
    """Who has the other end of one connection."""

    def __init__(self, look_up: Callable[[tuple[str, int], tuple[str, int]], str] | None = None) -> None:
        self._look_up = look_up or user_of
        self._found = ""

    def of(self, client: tuple[str, int], server: tuple[str, int]) -> str:
        """The number of that user; empty where the system does not tell."""
        self._found = self._found or self._look_up(client, server)
        return self._found


def user_of(client: tuple[str, int], server: tuple[str, int], tables: tuple[Path, ...] = TABLES) -> str:
    """The number of the user whose process has the client's end; empty where the system does not tell."""
    try:
        wanted = [_written(*client), _written(*server)]
        for table in tables:
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if [_as_v4(columns[_LOCAL]), _as_v4(columns[_REMOTE])] == wanted:
                    return columns[_USER]
    except (OSError, ValueError, IndexError):
        pass
    return ""


def _written(host: str, port: int) -> str:
    """An address as the table has it: the bytes of 32-bit words in the processor's order, in hexadecimal digits."""
    packed = ipaddress.ip_address(host.split("%", maxsplit=1)[0]).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    shown = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return _as_v4(f"{shown}:{port:04X}")


def _as_v4(address: str) -> str:
    """An IPv4 address in IPv6's clothes as itself."""
    prefix = "0000000000000000" + f"{socket.htonl(0xFFFF):08X}"
    return address.removeprefix(prefix)
