"""The memory of this device: weights and KV, counted in one place and never beyond the limit.

What nobody needs now stays as a cache until room is needed: weights of placements that are gone, and KV of answers that
are over (the next turn of the chat may begin with the same tokens).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from swarm.cluster.effects import DropKv, Effect, KeptKv, Unload
from swarm.parts import Part
from swarm.wire.ids import ModelId, PeerId, SessionId

ClaimKey = tuple[PeerId, ModelId]  # the author of a placement (its entry node), and the model
PartKey = tuple[ModelId, Part]
Held = tuple[int, int, tuple[int, ...]]  # layers from the first to before the end, and the slice of each


@dataclass(frozen=True, slots=True)
class KvEntry:
    """The KV of one session on this device."""

    owner: ClaimKey
    first: int
    end: int
    n_bytes: int
    running: bool  # an answer needs it now; otherwise it is a cache
    used_at: float
    slice: tuple[int, ...] = ()  # of whose heads; empty: of all

    @property
    def held(self) -> Held:
        return self.first, self.end, self.slice


class Ledger:
    """Who uses how many bytes."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.parts: dict[PartKey, int] = {}  # weights that are resident or on the way
        self.kv: dict[SessionId, KvEntry] = {}
        self.keep: Callable[[SessionId], tuple[KeptKv | None, list[Effect]]] = lambda session: (None, [])

    @property
    def used_bytes(self) -> int:
        return sum(self.parts.values()) + sum(entry.n_bytes for entry in self.kv.values())

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    def running_bytes(self) -> int:
        """KV that answers need now."""
        return sum(entry.n_bytes for entry in self.kv.values() if entry.running)

    def is_serving(self, owner: ClaimKey) -> bool:
        """True while an answer of that entry node and model runs here."""
        return any(entry.running and entry.owner == owner for entry in self.kv.values())

    def outdated(self, owner: ClaimKey, held: Held) -> list[SessionId]:
        """Sessions whose KV is of no use once that is what the owner has here."""
        return [session for session, entry in self.kv.items() if entry.owner == owner and entry.held != held]

    def rest(self, session: SessionId, now: float) -> None:
        """The answer is over; its KV stays while there is room."""
        if session in self.kv:
            self.kv[session] = replace(self.kv[session], running=False, used_at=now)

    def rest_idle(self, but: PeerId, before: float) -> None:
        """KV of other entry nodes' answers that stood still since then is a cache: somebody here waits for the room."""
        for session, entry in self.kv.items():
            if entry.running and entry.owner[0] != but and entry.used_at < before:
                self.kv[session] = replace(entry, running=False)

    def used(self, session: SessionId, now: float) -> None:
        """Its KV is of use, whether an answer needs it or not."""
        self.kv[session] = replace(self.kv[session], used_at=now)

    def wake(self, session: SessionId, now: float) -> None:
        """An answer needs its KV."""
        entry = self.kv[session]
        if not entry.running or now - entry.used_at > 1.0:
            self.kv[session] = replace(entry, running=True, used_at=now)

    def drop_kv(self, session: SessionId) -> list[Effect]:
        """Free it; what is worth it goes to the disk, where others make room for it."""
        if self.kv.pop(session, None) is None:
            return []
        kept, room = self.keep(session)
        return [*room, DropKv(session, kept)]

    def make_room(self, n_bytes: int, needed: AbstractSet[PartKey]) -> list[Effect]:
        """Free `n_bytes`, or as much as can be: weights that are not `needed` go first, then the oldest resting KV."""
        effects = self.unload_surplus(n_bytes, needed)
        resting = sorted((e.used_at, s) for s, e in self.kv.items() if not e.running)
        for _, session in resting:
            if self.free_bytes >= n_bytes:
                break
            effects += self.drop_kv(session)
        return effects

    def unload_surplus(self, n_bytes: int, needed: AbstractSet[PartKey]) -> list[Effect]:
        """The same with weights only."""
        dropped: dict[ModelId, set[Part]] = {}
        for model, part in sorted(key for key in self.parts if key not in needed):
            if self.free_bytes >= n_bytes:
                break
            del self.parts[model, part]
            dropped.setdefault(model, set()).add(part)
        return [Unload(model, frozenset(parts)) for model, parts in dropped.items()]
