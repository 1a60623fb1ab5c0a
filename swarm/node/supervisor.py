"""Telling the service manager how the node is (sd_notify(3)): that it is ready, alive, and what it does."""

from __future__ import annotations

import contextlib
import socket

BEATS = 3  # signs of life in the time after which the manager would end the node


class Supervisor:
    """Speaks to whoever started this process; says nothing where nobody wants to hear it."""

    def __init__(self, address: str, watchdog_s: float) -> None:
        """`address` as in NOTIFY_SOCKET ("@" begins an abstract one, "" is nobody); `watchdog_s` is 0 without one."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.beat_s = watchdog_s / BEATS

    def ready(self, status: str) -> None:
        """The node takes part."""
        self._say("READY=1", f"STATUS={status}")

    def alive(self, status: str) -> None:
        """A sign of life, with one line for `systemctl status`."""
        self._say("WATCHDOG=1", f"STATUS={status}")

    def stopping(self) -> None:
        """The node ends as it should."""
        self._say("STOPPING=1")

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that does not listen must not end an answer; without signs of life it acts by itself.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)
