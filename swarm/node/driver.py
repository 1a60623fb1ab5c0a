"""The one owner of the core: events go in under one lock, and what the core decides is carried out at once, in order.

    driver.act(lambda core, now: core.peer_up(peer, boot, name, now))     an event; on any thread
    driver.read(lambda core: core.others())                               a look; copy what must not change meanwhile
    driver.start()                                                        time passes, too

Whoever carries out a kind of effect says so with `carry_out`: under the lock, on the thread of the event, or, for what
belongs on the loop, there, in order. A core that is busy on another thread keeps `act` and `read` waiting for no longer
than a decision takes; `act_if_free` does not wait.

The loop sleeps until the core's own timer. An event on another thread that leaves nothing but the next step of a
running answer is not looked at for that: such steps only put timers off.
"""

from __future__ import annotations

import threading
import time
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from swarm.cluster.core import Core
from swarm.cluster.effects import NEVER, Compute, Effect, Emit, Send
from swarm.node.background import AFTER_BUG_S, Background

Decide = Callable[[Core, float], list[Effect]]
Look = TypeVar("Look")
Kind = TypeVar("Kind", bound=Effect)
Handler = Callable[[Effect], object]
STEPS = frozenset((Send, Compute, Emit))  # all that a step of a running answer leaves


class Driver:
    """Made on the loop's thread."""

    def __init__(self, core: Core, background: Background, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._background = background
        self._clock = clock
        self._loop_thread = threading.get_ident()
        # Reentrant: who carries out an effect may look at the core.
        self._lock = threading.RLock()
        self._at_once: dict[type[Effect], Handler] = {}
        self._on_loop: dict[type[Effect], Handler] = {}
        self._for_loop: deque[Effect] = deque()
        self._timer: TimerHandle | None = None  # none before the start, and while it rings
        self._timer_at = -NEVER

    @property
    def now(self) -> float:
        """The time that the core is told, in seconds."""
        return self._clock()

    def carry_out(self, kind: type[Kind], handler: Callable[[Kind], object], *, on_loop: bool = False) -> None:
        """From now on `handler` carries out effects of this kind."""
        handlers = self._on_loop if on_loop else self._at_once
        handlers[kind] = cast(Handler, handler)

    def start(self) -> None:
        """From now on the core is told when it is time for what it waits for; on the loop."""
        self._ring()

    def stop(self) -> None:
        """Tell it no more."""
        self._timer_at = -NEVER
        if self._timer is not None:
            self._timer.cancel()

    def act(self, decide: Decide) -> None:
        """Let the core decide on an event, now, and carry out what it decided."""
        self.act_in_parts(lambda core, now: (decide(core, now),))

    def act_in_parts(self, decide: Callable[[Core, float], Iterable[list[Effect]]]) -> None:
        """The same where the core decides in parts: each is carried out before the next one is asked for."""
        is_step = True
        with self._lock:
            for effects in decide(self._core, self._clock()):
                self.perform(effects)
                is_step = is_step and STEPS.issuperset(map(type, effects))
        if threading.get_ident() == self._loop_thread:
            self._perform_on_loop()
            self._set_timer()
        else:
            self._hand_over(is_step=is_step)

    def act_if_free(self, decide: Decide) -> bool:
        """The same, unless another thread is at it: then False, and nothing has happened."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            effects = decide(self._core, self._clock())
            is_step = STEPS.issuperset(map(type, effects))  # asked first: whom they wake waits for this thread
            self.perform(effects)
        finally:
            self._lock.release()
        self._hand_over(is_step=is_step)
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

    def _hand_over(self, *, is_step: bool) -> None:
        """On another thread: leave to the loop what is left."""
        if self._for_loop:
            self._background.post(self._perform_on_loop)
        if not is_step:
            self._background.post(self._set_timer)

    def _perform_on_loop(self) -> None:
        while self._for_loop:
            effect = self._for_loop.popleft()
            self._on_loop[type(effect)](effect)

    # --- time

    def _set_timer(self) -> None:
        """Wake up for what the core waits for first. A timer that is too early stays: it rings and sets another."""
        if self._timer_at == -NEVER:
            return  # not started yet, or it rings just now
        at = self.read(lambda core: core.get_timer())
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._background.call_at(at, self._ring) if at < NEVER else None

    def _ring(self) -> None:
        self._timer, self._timer_at = None, -NEVER
        try:
            self.act(lambda core, now: core.tick(now))
            self._timer_at = NEVER
            self._set_timer()
        except Exception as error:  # a bug in one thing that is to be done must not end the time for all others
            self._background.on_bug(error)
            self._timer_at = self._clock() + AFTER_BUG_S
            self._timer = self._background.call_at(self._timer_at, self._ring)


def is_serving(core: Core) -> bool:
    """An answer passes through this device."""
    return any(entry.running for entry in core.ledger.kv.values())


def waits_for_weights(core: Core) -> bool:
    """An answer of this device stands still until weights are loaded here or elsewhere, or weights are loaded here."""
    return bool(core.shards.loading) or core.placer.waits_for_weights
