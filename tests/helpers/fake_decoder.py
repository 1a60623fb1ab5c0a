"""A decoder without weights: it says a script, or what a hash of the ids makes it say, and remembers its steps."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

F32 = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass
class FakeKV:
    capacity: int
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.ids)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self.ids)
        del self.ids[length:]


@dataclass
class FakeDecoder:
    """`script[n]` is the likeliest token after n tokens; without a script, a token that depends on the ids before."""

    vocab: int = 50
    context: int = 64
    script: dict[int, int] | None = None
    memory: int | None = None  # of the ids before, only so many last ones count: what it says repeats itself
    steps: list[list[int]] = field(default_factory=list)
    kvs: list[FakeKV] = field(default_factory=list)
    before_step: Callable[[], None] = lambda: None
    after_step: Callable[[], None] = lambda: None
    busy: bool = False

    def new_kv(self, capacity: int) -> FakeKV:
        self.kvs.append(FakeKV(capacity))
        return self.kvs[-1]

    def forward(self, ids: np.ndarray, kv: FakeKV) -> F32:
        return self.forward_all(ids, kv)[-1]

    def forward_all(self, ids: np.ndarray, kv: FakeKV) -> np.ndarray:
        assert not self.busy, "two steps at once"
        self.busy = True
        try:
            return self._step(ids, kv)
        finally:
            self.busy = False

    def _step(self, ids: np.ndarray, kv: FakeKV) -> np.ndarray:
        self.before_step()
        assert ids.dtype == np.int32 and len(ids)
        assert kv.length + len(ids) <= kv.capacity, "the context was passed"
        self.steps.append(ids.tolist())
        kv.ids += ids.tolist()
        self.after_step()
        return np.stack([self._after(kv.ids[: len(kv.ids) - len(ids) + i + 1]) for i in range(len(ids))])

    def logits(self, ids: np.ndarray) -> np.ndarray:
        return np.stack([self._after(ids[: i + 1].tolist()) for i in range(len(ids))])

    def _after(self, ids: list[int]) -> F32:
        if self.script is not None:
            logits = np.zeros(self.vocab, np.float32)
            logits[self.script.get(len(ids), 0)] = 9.0
            return logits
        seed = zlib.crc32(np.array(ids[-self.memory :] if self.memory else ids, np.int32).tobytes())
        return np.random.default_rng(seed).standard_normal(self.vocab).astype(np.float32) * 3
