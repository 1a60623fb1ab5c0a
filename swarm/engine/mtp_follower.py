"""The block that predicts further tokens beside the last layers of a model: it follows one session there.

As in mtp.py its entry for a position is made of the token there and of the state before it, which is the model's after
its last norm. Only what is certain gets an entry, so guesses leave no trace; where it was not told of some positions (a
step with others, keys and values that came from a disk) it begins anew behind them. That costs guesses, and no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from swarm.engine.decoder import MAX_STEP_TOKENS, Rows
from swarm.engine.mtp import MtpBlock

F32 = npt.NDArray[np.float32]
MAX_WAITING = 64  # entries that wait until they are computed together


class MtpFollower:
    """The block's keys and values of one session, and how far they go."""

    def __init__(self, block: MtpBlock, capacity: int, kv: str) -> None:
        """`capacity`: positions of the session, at most the context of the block."""
        self.block, self.kind = block, kv
        self.cache = block.decoder.new_kv(capacity, kv)
        self.end = 0  # positions before this one were seen
        self._first = 1  # the position of the first entry: there is no state before position 0
        self._waiting: list[tuple[int, F32]] = []  # entries that are not in the cache: a token, and the state before it
        self._state: F32 | None = None  # of the last position that was seen; None: not known
        self._ahead: int | None = None  # the token of the cache's last entry, where that is for position `end`

    def resize(self, capacity: int) -> None:
        """Room for so many positions."""
        self.cache.resize(capacity)

    def cut(self, length: int) -> None:
        """The session goes on from this position."""
        if length >= self.end:
            return
        if length < self._first:
            self._begin_anew(length)
            return
        self._forget_ahead()
        n_kept = length - self._first
        del self._waiting[max(n_kept - self.cache.length, 0) :]
        self.cache.truncate(min(n_kept, self.cache.length))
        self.end, self._state = length, None

    def saw(self, position: int, ids: Sequence[int], states: F32) -> None:
        """The model computed these, which are certain, with these states float32 (len(ids), hidden)."""
        self.cut(position)
        if position > self.end:
            self._begin_anew(position)
        before = self._before(position)
        for i, token in enumerate(ids):
            if i == 0 and self._ahead == token:
                self._ahead = None
            elif before is not None:
                self._forget_ahead()
                self._waiting.append((token, before))
            before = states[i]
        self.end, self._state = position + len(ids), states[-1].copy()
        if len(self._waiting) > MAX_WAITING:
            self._compute()

    def logits(self, token: int) -> F32 | None:
        """What comes after this token, which is the next one and certain: logits float32 (vocab,); None: no room."""
        if self._state is None:
            return None
        self._forget_ahead()
        if self.cache.length + len(self._waiting) >= self.cache.capacity:
            return None
        self._waiting.append((token, self._state))
        self._ahead = token
        return self._compute(wanted=True)

    def _before(self, position: int) -> F32 | None:
        """The state before a position; zeros for one that is not known in the middle of what was seen."""
        if self._state is not None or position < self._first:
            return self._state
        return np.zeros(self.block.decoder.spec.hidden, np.float32)

    def _begin_anew(self, position: int) -> None:
        """The first entry is for the position behind this one: there is no state before it."""
        self._waiting.clear()
        self.cache.truncate(0)
        self.end, self._first, self._state, self._ahead = position, position + 1, None, None

    def _forget_ahead(self) -> None:
        if self._ahead is not None:
            self.cache.truncate(self.cache.length - 1)
            self._ahead = None

    def _compute(self, *, wanted: bool = False) -> F32 | None:
        """Make the entries that wait; `wanted`: the logits after the last one."""
        waiting, self._waiting = self._waiting, []
        rows = self.block.entries([token for token, _ in waiting], np.stack([state for _, state in waiting]))
        decoder = self.block.decoder
        last = len(rows) - wanted
        for start in range(0, last, MAX_STEP_TOKENS):
            decoder.store(rows[start : min(start + MAX_STEP_TOKENS, last)], self.cache)
        return decoder.step_logits([Rows(rows[-1:], self.cache)])[0] if wanted else None
