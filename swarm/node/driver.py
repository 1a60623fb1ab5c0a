"""The one owner of the core: events go in under one lock, and what the core decides is carried out at once, in order.

    driver.act(lambda core, now: core.peer_up(peer, boot, name, now))     an event; on any thread
    driver.read(lambda core: core.others())                               a look; copy what must not change meanwhile

Whoever carries out a kind of effect says so with `carry_out`: under the lock, on the thread of the event, or, for what
belongs on the loop, there, in order. A core that is busy on another thread keeps `act` and `read` waiting for no longer
than a decision takes; `act_if_free` does not wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar, cast

from swarm.cluster.core import Core
from swarm.cluster.effects import Effect
from swarm.node.background import Post

Decide = Callable[[Core, float], list[Effect]]
Look = TypeVar("Look")
Kind = TypeVar("Kind", bound=Effect)
Handler = Callable[[Effect], object]


class Driver:
    """Made on the loop's thread; `post` calls a function there."""

    def __init__(self, core: Core, post: Post, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._post = post
        self._clock = clock
        self._loop_thread = threading.get_ident()
        # Reentrant: who carries out an effect may look at the core.
        self._lock = threading.RLock()
        self._at_once: dict[type[Effect], Handler] = {}
        self._on_loop: dict[type[Effect], Handler] = {}
        self._for_loop: deque[Effect] = deque()

    @property
    def now(self) -> float:
        """The time that the core is told, in seconds."""
        return self._clock()

    def carry_out(self, kind: type[Kind], handler: Callable[[Kind], object], *, on_loop: bool = False) -> None:
        """From now on `handler` carries out effects of this kind."""
        handlers = self._on_loop if on_loop else self._at_once
        handlers[kind] = cast(Handler, handler)

    def act(self, decide: Decide) -> None:
        """Let the core decide on an event, now, and carry out what it decided."""
        with self._lock:
            self.perform(decide(self._core, self._clock()))
        self._hand_over()

    def act_if_free(self, decide: Decide) -> bool:
        """The same, unless another thread is at it: then False, and nothing has happened."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self.perform(decide(self._core, self._clock()))
        finally:
            self._lock.release()
        self._hand_over()
        return True

    def read(self, look: Callable[[Core], Look]) -> Look:
        """What `look` sees while nothing changes."""
        with self._lock:
            return look(self._core)

    def perform(self, effects: list[Effect]) -> None:
        """Carry out effects in order; what belongs on the loop is left for it."""
        for effect in effects:
            handler = self._at_once.get(type(effect))
            if handler is not None:
                handler(effect)
            else:
                self._for_loop.append(effect)

    def _hand_over(self) -> None:
        if not self._for_loop:
            return
        if threading.get_ident() == self._loop_thread:
            self._perform_on_loop()
        else:
            self._post(self._perform_on_loop)

    def _perform_on_loop(self) -> None:
        while self._for_loop:
            effect = self._for_loop.popleft()
            self._on_loop[type(effect)](effect)


def is_serving(core: Core) -> bool:
    """An answer passes through this device."""
    return any(entry.running for entry in core.ledger.kv.values())
