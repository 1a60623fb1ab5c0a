"""A small model of the same vocabulary that says what may come next, for a large one to check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swarm.guessing import MAX_DRAFTED

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Choose = Callable[[F32, Sequence[int]], int]  # (logits (vocab,), ids so far) -> the token that comes next
READ_TOKENS = 128  # at once: between them somebody else's turn may come


class DraftSteps(Protocol):
    """What a draft needs of a decoder."""

    @property
    def context(self) -> int: ...
    def new_kv(self, capacity: int, /) -> Any: ...
    def forward(self, ids: I32, kv: Any, /) -> F32:
        """Append `ids`; return the logits float32 (vocab,) after the last."""
        ...


class DraftModel:
    """For one conversation after the other: its KV cache follows the ids of the large model."""

    most = MAX_DRAFTED  # tokens at once

    def __init__(self, decoder: DraftSteps, vocab: int) -> None:
        """`vocab`: of the large model; no token beyond it is said."""
        self._decoder = decoder
        self._vocab = vocab
        self._ids: list[int] = []  # in the cache
        self._kv: Any = None  # made when the first ids come

    def propose(self, ids: Sequence[int], n: int, choose: Choose) -> list[int]:
        """At most n tokens that may come after `ids`; none beyond its own context."""
        if n < 1 or len(ids) + n > self._decoder.context:
            return []
        self.read(ids[:-1])
        logits = self._append(ids[-1:])
        found: list[int] = []
        while (token := choose(logits, [*ids, *found])) < self._vocab:
            found.append(token)
            if len(found) == n:
                break
            logits = self._append([token])
        return found

    def read(self, ids: Sequence[int], goes_on: Callable[[], bool] = lambda: True) -> bool:
        """Have just these in the cache; False when `goes_on` said no before all were read, or there is no room."""
        if len(ids) > self._decoder.context:
            return False
        self._keep(ids)
        while len(self._ids) < len(ids):
            if not goes_on():
                return False
            self._append(ids[len(self._ids) : len(self._ids) + READ_TOKENS])
        return True

    def _keep(self, ids: Sequence[int]) -> None:
        """Forget what is in the cache from where these ids are others."""
        have, n = self._ids, min(len(self._ids), len(ids))
        same = n if have[:n] == list(ids[:n]) else next(i for i in range(n) if have[i] != ids[i])
        if same < len(have):
            self._kv.truncate(same)
            del have[same:]

    def _append(self, ids: Sequence[int]) -> F32:
        if self._kv is None:
            self._kv = self._decoder.new_kv(self._decoder.context)
        try:
            logits = self._decoder.forward(np.asarray(ids, np.int32), self._kv)
        except BaseException:  # interrupted: what is in the cache is not known
            self._kv, self._ids = None, []
            raise
        self._ids += ids
        return logits
