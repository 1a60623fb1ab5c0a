"""Keys and values on this device's disk: what is worth a file, what makes way for it, what a question can begin with.

A conversation that memory has no room for any more, or that is there when the node ends, leaves its keys and values in
a file; one that rests in memory gets one as well, for a device may lose its power. They are found again by **marks**: a
mark names a run of MARK_TOKENS ids together with all that is before it, under the secret of their owner. So a stage
needs to know neither whose question it is nor what it asks, and a device finds what an earlier run of it has kept, for
another session.

A file is a cache: whatever is wrong with it, its positions are computed again. Its part of a model is exact, so each
device of a pipeline, and each member of a stage, keeps what it has and says how much of it there is.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence

from swarm import limits
from swarm.cluster.effects import NEVER, Effect, ForgetKept, KeepKv, KeptBeginning, KeptKv, KeptPlace, Send
from swarm.cluster.memory import Ledger
from swarm.cluster.stage_session import RingPlace, StageSession
from swarm.wire.ids import SessionId
from swarm.wire.messages import SessionOpen

Marks = tuple[bytes, ...]


class KeptIndex:
    """The files of keys and values; those that were used longest ago come first."""

    def __init__(self, ledger: Ledger, sessions: Mapping[SessionId, StageSession]) -> None:
        """What the ledger of these sessions drops is kept where that is worth it."""
        ledger.keep = self.keep
        self._ledger = ledger
        self._sessions = sessions
        self._is_ending = False
        self.quota_bytes = 0  # nothing is kept
        self.files: dict[str, KeptKv] = {}
        self._marks: dict[str, Marks] = {}
        self._written: set[str] = set()  # those that are whole
        self._reading: dict[SessionId, float] = {}  # sessions whose beginning is read, and until when it may be
        self._resting: tuple[SessionId, str] | None = None  # the one that is written while it stays in memory; its file
        self._looked_at: dict[SessionId, float] = {}  # those that rest and need no file, or have one: used when last

    @property
    def n_bytes(self) -> int:
        """On the disk, or on the way there."""
        return sum(kept.n_bytes for kept in self.files.values())

    def found(self, files: Sequence[KeptKv], quota_bytes: int) -> list[Effect]:
        """What earlier runs have left, those that were used longest ago first; from now on so much is kept."""
        self.quota_bytes = quota_bytes
        for kept in files:
            self._add(kept)
            self._written.add(kept.name)
        return self._make_room(0)

    def begin_of(self, message: SessionOpen, place: RingPlace, have: int) -> KeptBeginning | None:
        """What a session can begin with; None where memory has (almost) as much: `have` positions."""
        wanted = KeptPlace(message.entry, message.owner, message.model, place.kv, *place.held)
        best, most = "", have // limits.MARK_TOKENS
        for name, kept in self.files.items():
            if name in self._written and kept.place == wanted:
                n = _n_common(self._marks[name], message.marks)
                best, most = (name, n) if n > most else (best, most)
        if not best:
            return None
        self._use(best)
        return KeptBeginning(self.files[best], most * limits.MARK_TOKENS, message.epoch)

    def begins(self, session: StageSession, now: float) -> None:
        """Its beginning is read from now on."""
        self._reading[session.open.session] = now + limits.KEPT_PATIENCE_S

    def read(self, key: SessionId, epoch: int, n: int) -> list[Effect]:
        """So many positions of a session's beginning have come from the disk; what is missing is computed."""
        session = self._sessions.get(key)
        if session is None or session.epoch != epoch or session.answered is not None or session.beginning is None:
            return []
        self._reading.pop(key, None)
        return [Send(session.open.entry, session.begin(_ids_of(session.beginning.kept, n)))]

    def tick(self, now: float) -> list[Effect]:
        """Where the disk is too slow, or a long step is in its way, a session begins without."""
        effects: list[Effect] = []
        for key in [key for key, until in self._reading.items() if now >= until]:
            del self._reading[key]
            session = self._sessions.get(key)
            if session is not None and session.answered is None:
                effects += [session.open_kv(0)] if key in self._ledger.kv else []
                effects += [Send(session.open.entry, session.begin([]))]
        return effects + self._keep_resting(now)

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return min([*self._reading.values(), *(due for due, _ in self._unkept())], default=NEVER)

    def keep(self, key: SessionId) -> tuple[KeptKv | None, list[Effect]]:
        """The file for a session that leaves memory, or None; and what makes room for it.

        One that is answered just now is computed on elsewhere, and gets none unless this node ends.
        """
        if self._resting is not None and self._resting[0] == key:
            self.lost(self._resting[1])  # it is not whole, and will not be: what is written now is
        return self._file_of(key, rests=False)

    def _keep_resting(self, now: float) -> list[Effect]:
        """While nobody is answered, conversations that have rested for a while get files, one after the other."""
        for _, key in sorted(each for each in self._unkept() if each[0] <= now):
            self._looked_at[key] = self._ledger.kv[key].used_at
            kept, room = self._file_of(key, rests=True)
            if kept is not None:
                self._resting = key, kept.name
                return [*room, KeepKv(key, kept)]
        return []

    def _unkept(self) -> Iterator[tuple[float, SessionId]]:
        """Conversations that may need a file while they rest, and when they have done so for long enough."""
        is_busy = self._resting is not None or any(entry.running for entry in self._ledger.kv.values())
        if not self.quota_bytes or self._is_ending or is_busy:
            return
        for key, entry in self._ledger.kv.items():
            if self._looked_at.get(key) != entry.used_at:
                yield entry.used_at + limits.KEPT_REST_S, key

    def _file_of(self, key: SessionId, *, rests: bool) -> tuple[KeptKv | None, list[Effect]]:
        """A new file for a session, which leaves memory or `rests` there, unless one has most of it; and its room."""
        session = self._sessions.get(key)
        if session is None or not session.open.owner or not (session.closed or self._is_ending):
            return None, []
        n = min(session.done // limits.MARK_TOKENS, limits.MAX_MARKS) * limits.MARK_TOKENS
        if n < limits.MIN_KEPT_TOKENS:
            return None, []
        kept = _kept_of(session, n, rests=rests)
        growth = limits.KEPT_REST_GROWTH if rests else limits.KEPT_GROWTH
        if kept.n_bytes > self.quota_bytes or self._has(kept, growth):
            return None, []
        room = self._make_room(kept.n_bytes)
        self._add(kept)
        return kept, room

    def keep_all(self) -> list[Effect]:
        """The node ends: all conversations leave memory, those that were used last before the others."""
        self._is_ending = True
        keys = sorted(self._ledger.kv, key=lambda key: -self._ledger.kv[key].used_at)
        return [effect for key in keys for effect in self._ledger.drop_kv(key)]

    def written(self, name: str) -> list[Effect]:
        """A file is whole: others that hold only a beginning of it are of no use any more."""
        if name not in self.files:
            return [ForgetKept((name,))]
        self._written.add(name)
        self._rested(name)
        place, marks = self.files[name].place, self._marks[name]
        others = [
            other
            for other, kept in self.files.items()
            if other in self._written - {name}
            and kept.place == place
            and marks[: len(self._marks[other])] == self._marks[other]
        ]
        return self._forget(others)

    def lost(self, name: str) -> None:
        """A file could not be written, or is damaged."""
        self.files.pop(name, None)
        self._marks.pop(name, None)
        self._written.discard(name)
        self._rested(name)

    # --- within

    def _rested(self, name: str) -> None:
        """That file is written or never will be: the next conversation that rests may get one."""
        if self._resting is not None and self._resting[1] == name:
            self._resting = None
            self._looked_at = {key: at for key, at in self._looked_at.items() if key in self._ledger.kv}

    def _has(self, kept: KeptKv, growth: int) -> bool:
        """Whether all of it but one part in `growth` is in some file already."""
        place, marks = kept.place, _marks_of(kept)
        least = len(marks) - len(marks) // growth
        for name, other in self.files.items():
            if other.place == place and _n_common(self._marks[name], marks) >= least:
                self._use(name)
                return True
        return False

    def _add(self, kept: KeptKv) -> None:
        self.files[kept.name] = kept
        self._marks[kept.name] = _marks_of(kept)

    def _use(self, name: str) -> None:
        self.files[name] = self.files.pop(name)

    def _make_room(self, n_bytes: int) -> list[Effect]:
        """Forget what was used longest ago until so much fits."""
        going: list[str] = []
        left, n_files = self.n_bytes, len(self.files)
        for name in self.files:
            if left + n_bytes <= self.quota_bytes and n_files < limits.MAX_KEPT_FILES:
                break
            if name in self._written:
                going.append(name)
                left, n_files = left - self.files[name].n_bytes, n_files - 1
        return self._forget(going)

    def _forget(self, names: Sequence[str]) -> list[Effect]:
        for name in names:
            self.lost(name)
        return [ForgetKept(tuple(names))] if names else []


def marks_of(owner: bytes, ids: Sequence[int]) -> Marks:
    """What names each whole run of MARK_TOKENS ids, with all before it, to whoever knows the owner's secret."""
    mark, marks = b"", []
    for start in range(0, len(ids) - limits.MARK_TOKENS + 1, limits.MARK_TOKENS):
        run = array("i", ids[start : start + limits.MARK_TOKENS]).tobytes()
        mark = hashlib.blake2b(mark + run, key=owner, digest_size=limits.MARK_BYTES).digest()
        marks.append(mark)
        if len(marks) == limits.MAX_MARKS:
            break
    return tuple(marks)


def _ids_of(kept: KeptKv, n: int) -> list[int]:
    """The first n ids of a file."""
    return array("i", kept.ids[: 4 * n]).tolist()


def _marks_of(kept: KeptKv) -> Marks:
    return marks_of(kept.place.owner, _ids_of(kept, kept.n))


def _kept_of(session: StageSession, n: int, *, rests: bool) -> KeptKv:
    """A file of its first n positions; while it `rests` in memory one of another name, for both may be on the way."""
    opened, place, ids = session.open, session.place, session.ids[:n]
    first, end, bounds = place.held
    n_bytes = session.model.stage_kv_bytes(first, end, n)
    what = (opened.entry, opened.model, place.kv, first, end, bounds, marks_of(opened.owner, ids)[-1].hex(), rests)
    name = hashlib.blake2b(repr(what).encode(), digest_size=limits.MARK_BYTES).hexdigest()
    data = array("i", ids).tobytes()
    return KeptKv(
        name, KeptPlace(opened.entry, opened.owner, opened.model, place.kv, first, end, bounds), data, n_bytes
    )


def _n_common(a: Marks, b: Marks) -> int:
    """How many marks the two have in common: each names all before it, so the first that differs ends that."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
