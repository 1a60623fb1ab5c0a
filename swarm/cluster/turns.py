"""Which of the steps that wait at a stage go next, and which go together.

Decode steps go before batches of a prompt, sessions take turns, and a batch that waited PREFILL_PATIENCE_S goes first:
so several chats share the stage and none starves. Decode steps of sessions on the same layers may share one step: the
weights are then read once for all of them, and the bits of each are the same. Whether that is faster than turns depends
on the machine, the model and the number of rows, so it is measured as it happens (`RowCosts`).

A batch of a prompt takes the decode steps that wait along: a few rows more cost it little, and those chats do not stand
still while it is computed. While others decode, a batch is cut into pieces that take no longer than a reader may wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from swarm import limits
from swarm.cluster.effects import StageId
from swarm.wire.ids import ModelId, SessionId

# Of a model, from the first, to before the end; and the stage of several devices that runs them together, if one does.
Layers = tuple[ModelId, int, int, StageId | None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The first step that waits of one session."""

    session: SessionId
    layers: Layers
    n_tokens: int
    since: float
    context: int  # positions that the session's KV cache has room for
    n_guesses: int = 0  # of the tokens

    @property
    def is_decode(self) -> bool:
        return self.n_tokens == 1 + self.n_guesses


class RowCosts:
    """Seconds that decode steps over several sessions took, in classes of up to 1, 2, 4, 8, ... rows."""

    def __init__(self) -> None:
        self._row_s: dict[int, deque[float]] = {}  # per row, of the last steps, by class
        self._taken_at: dict[int, int] = {}  # the last step of a class
        self._n_steps = 0

    def took(self, n_rows: int, seconds: float) -> None:
        """A step of so many sessions, a token each, is done."""
        size = 1 << (n_rows - 1).bit_length()  # _class, in its place: this is done for every token
        if size not in self._row_s:
            self._row_s[size] = deque(maxlen=limits.ROW_COSTS_KEPT)
        self._row_s[size].append(seconds / n_rows)
        self._n_steps += 1
        self._taken_at[size] = self._n_steps

    def best(self, n_waiting: int) -> int:
        """How many of those that wait share the next step: as many as make the most tokens a second.

        What was hardly ever seen, or not for long, is tried: the answer does not change, only when it comes.
        """
        sizes = [n_waiting, *(size for size in _classes() if size < n_waiting)]
        for size in sizes:
            seen = self._row_s.get(_class(size), ())
            passed = self._n_steps - self._taken_at.get(_class(size), 0)
            if len(seen) < limits.ROW_COSTS_NEEDED or passed >= limits.ROW_COST_STEPS:
                return size
        return min(sizes, key=lambda size: min(self._row_s[_class(size)]))  # the least: other programs only add


class Turns:
    """Remembers what steps cost; whose turn it is follows from the order of what waits."""

    def __init__(self) -> None:
        self._costs: dict[Layers, RowCosts] = {}
        self._most: dict[Layers, int] = {}  # tokens of a prompt at once, as the last ones went

    def took(self, layers: Layers, n_rows: int, seconds: float) -> None:
        """A step of decode steps alone is done."""
        if layers not in self._costs:
            while len(self._costs) >= limits.ROW_COST_STAGES:
                del self._costs[next(iter(self._costs))]
            self._costs[layers] = RowCosts()
        self._costs[layers].took(n_rows, seconds)

    def took_batch(self, layers: Layers, n_tokens: int, seconds: float) -> None:
        """A step with a batch of a prompt is done.

        What a token of it takes depends on how many there are, so the next size is found from the last one in steps.
        """
        scale = min(max(limits.PAUSE_S / max(seconds, 1e-9), 0.5), 2.0)
        self._most.pop(layers, None)
        while len(self._most) >= limits.ROW_COST_STAGES:
            del self._most[next(iter(self._most))]
        self._most[layers] = min(max(int(n_tokens * scale), limits.MIN_PIECE_TOKENS), limits.MAX_BATCH_TOKENS)

    def most_tokens(self, layers: Layers) -> int:
        """Tokens of a prompt that are computed at once while others decode: about as many as take PAUSE_S."""
        n_tokens = self._most.get(layers, 2 * limits.MIN_PIECE_TOKENS)
        return n_tokens // limits.MIN_PIECE_TOKENS * limits.MIN_PIECE_TOKENS

    def next(self, waiting: Sequence[Waiting], now: float) -> list[SessionId]:
        """Of what waits, first come first, the sessions that share the next step."""
        if not waiting:
            return []
        late = _first(waiting, lambda w: now - w.since > limits.PREFILL_PATIENCE_S)
        head = late or _first(waiting, lambda w: w.is_decode) or waiting[0]
        room = min(limits.MAX_BATCH_TOKENS, head.context) - head.n_tokens
        others = [w for w in waiting if w is not head and w.n_tokens == 1 and w.layers == head.layers]
        others = others[: max(min(room, limits.MAX_STEP_SESSIONS - 1), 0)]
        if head.is_decode and others:
            n_together = self._costs.get(head.layers, RowCosts()).best(1 + len(others))
            others = others[: n_together - 1]
        return [head.session, *(w.session for w in others)]


def _first(waiting: Iterable[Waiting], wanted: Callable[[Waiting], bool]) -> Waiting | None:
    return next(filter(wanted, waiting), None)


def _class(n_rows: int) -> int:
    """The smallest power of two that is not below."""
    return 1 << (n_rows - 1).bit_length()


def _classes() -> list[int]:
    return [1 << i for i in range(_class(limits.MAX_STEP_SESSIONS).bit_length())]
