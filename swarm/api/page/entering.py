"""How a browser gets to change things: `swarm page` has a code made, and the page turns it into the node's key.

The page itself is given to every program of this device, other users' too, so the key cannot stand in it. The code
stands in the address that the browser is told, which others may see for a moment in the list of processes: it is good
once, and for a minute.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

from swarm.api.errors import BadRequest

CODE_S = 60.0
MAX_CODES = 8  # that are good at the same time; the oldest makes way


class Codes:
    """The codes that are good just now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def make(self) -> str:
        """A new code."""
        code = secrets.token_urlsafe(24)
        self._until[code] = self._clock() + CODE_S
        while len(self._until) > MAX_CODES:
            del self._until[next(iter(self._until))]
        return code

    def use(self, code: object) -> None:
        """Take a code; raise BadRequest when it is none, or no longer."""
        text = code.encode() if isinstance(code, str) else b""
        found = next((each for each in self._until if hmac.compare_digest(each.encode(), text)), "")
        if self._until.pop(found, 0.0) <= self._clock():
            raise BadRequest("this code is no longer good; `swarm page` makes another", "code", status=403)
