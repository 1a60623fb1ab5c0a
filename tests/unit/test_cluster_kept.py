"""Which keys and values go to the disk, what makes way for them, and what a question can begin with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import msgspec
import pytest

from swarm import limits
from swarm.cluster.cost import LayerCost, ModelCost
from swarm.cluster.effects import NEVER, DropKv, Effect, ForgetKept, KeepKv, KeptKv, OpenKv, Send
from swarm.cluster.kept import KeptIndex, marks_of
from swarm.cluster.memory import KvEntry, Ledger
from swarm.cluster.stage_session import RingPlace, StageSession
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import SessionOpen, SessionReply
from swarm.wire.records import Sampling

ENTRY, OTHER = PeerId("e" * 32), PeerId("f" * 32)
MODEL = ModelId("1" * 64)
OWNER = b"somebody"
RUN = limits.MARK_TOKENS
COST = ModelCost("m", (LayerCost(100, 1, 2),) * 4, 50, 50, 8, 1)  # KV: 2 bytes of a layer and position
QUOTA = 100 * RUN


def ids(n_runs: int, first: int = 1) -> list[int]:
    return list(range(first, first + n_runs * RUN))


def place(first: int = 0, end: int = 2, kv: str = "f16") -> RingPlace:
    return RingPlace(MODEL, first, end, ENTRY, (), None, None, ENTRY, ENTRY, True, kv)


def opening(n: int, text: list[int], owner: bytes = OWNER, entry: PeerId = ENTRY, epoch: int = 1) -> SessionOpen:
    key = SessionId(f"{n:032x}")
    return SessionOpen(key, MODEL, epoch, 1, entry, 9999, 0, Sampling(), (), owner=owner, marks=marks_of(owner, text))


@dataclass
class Disk:
    """A device's memory of conversations, and its files."""

    quota_bytes: int = QUOTA
    ledger: Ledger = field(default_factory=lambda: Ledger(10**9))
    sessions: dict[SessionId, StageSession] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kept = KeptIndex(self.ledger, self.sessions)
        self.kept.found([], self.quota_bytes)
        self.now = 0.0

    def said(self, n: int, text: list[int], at: RingPlace | None = None, **more: object) -> SessionId:
        """A conversation that rests in memory."""
        message = opening(n, text, **more)  # type: ignore[arg-type]
        at = at or place()
        session = StageSession(message, at, len(text), len(text), text, COST, closed=True)
        self.sessions[message.session] = session
        self.now += 1
        first, end, bounds = at.held
        self.ledger.kv[message.session] = KvEntry((ENTRY, MODEL), first, end, 10, False, self.now, bounds)
        return message.session

    def drop(self, key: SessionId) -> KeptKv | None:
        """Memory gives it up."""
        return kept_of(self.ledger.drop_kv(key))

    def keep(self, n: int, text: list[int], at: RingPlace | None = None, **more: object) -> KeptKv:
        """The same, and it is on the disk then."""
        file = self.drop(self.said(n, text, at, **more))
        assert file is not None
        assert self.kept.written(file.name) == []
        return file

    def found(self, text: list[int], at: RingPlace | None = None, have: int = 0, **more: object) -> int:
        """Positions that a question can begin with."""
        beginning = self.kept.begin_of(opening(99, text, **more), at or place(), have)  # type: ignore[arg-type]
        return beginning.n if beginning is not None else 0


def kept_of(effects: list[Effect]) -> KeptKv | None:
    (dropped,) = [effect for effect in effects if isinstance(effect, DropKv)]
    return dropped.kept


def test_what_leaves_memory_is_found_by_what_begins_alike() -> None:
    disk = Disk()
    file = disk.keep(1, [*ids(4), 5, 6])
    assert (file.n, file.n_bytes, file.place.first, file.place.end) == (4 * RUN, 4 * RUN * 2 * 2, 0, 2)
    assert disk.found(ids(4)) == 4 * RUN
    assert disk.found([*ids(2), *ids(3, first=9000)]) == 2 * RUN, "a beginning of it"
    assert disk.found([*ids(4)[:-1], 0, 7]) == 3 * RUN
    assert disk.found(ids(9)) == 4 * RUN
    assert disk.found([0, *ids(4)]) == 0
    assert disk.found(ids(4), have=4 * RUN) == 0, "memory has it"
    assert disk.found(ids(4), have=3 * RUN + 1) == 4 * RUN


def test_it_is_of_use_to_the_same_owner_on_the_same_layers_only() -> None:
    disk = Disk()
    disk.keep(1, ids(4))
    assert disk.found(ids(4), owner=b"somebody else") == 0
    assert disk.found(ids(4), entry=OTHER) == 0
    assert disk.found(ids(4), place(0, 1)) == disk.found(ids(4), place(1, 3)) == 0
    assert disk.found(ids(4), place(kv="q8_0")) == 0
    sliced = msgspec.structs.replace(place(), slice=(1, 2, 0, 1, 0, 0, 0, 0, 0, 9))
    assert disk.found(ids(4), sliced) == 0
    disk.keep(2, ids(4), sliced)
    assert disk.found(ids(4), sliced) == 4 * RUN
    message = msgspec.structs.replace(opening(3, ids(4)), model=ModelId("2" * 64))
    assert disk.kept.begin_of(message, place(), 0) is None


def test_marks_tell_nothing_to_who_does_not_know_the_owner() -> None:
    assert not set(marks_of(b"a", ids(4))) & set(marks_of(b"b", ids(4)))
    assert marks_of(b"a", ids(4))[:2] == marks_of(b"a", [*ids(2), *ids(1, first=7777)])[:2]
    assert len(marks_of(b"a", ids(limits.MAX_MARKS + 3))) == limits.MAX_MARKS
    assert marks_of(b"a", ids(1)[:-1]) == ()


def test_a_file_counts_once_it_is_whole() -> None:
    disk = Disk()
    file = disk.drop(disk.said(1, ids(4)))
    assert file is not None and disk.found(ids(4)) == 0
    disk.kept.written(file.name)
    assert disk.found(ids(4)) == 4 * RUN
    disk.kept.lost(file.name)
    assert disk.found(ids(4)) == 0 and disk.kept.n_bytes == 0
    disk.kept.lost(file.name)
    assert disk.kept.written("never asked for") == [ForgetKept(("never asked for",))]


@pytest.mark.parametrize(
    ("text", "more"),
    [(ids(limits.MIN_KEPT_TOKENS // RUN)[:-1], {}), (ids(4), {"owner": b""}), (ids(101), {})],
    ids=["too short", "of nobody", "larger than the quota"],
)
def test_some_conversations_are_not_kept(text: list[int], more: dict[str, object]) -> None:
    disk = Disk(quota_bytes=100 * RUN * 4)
    assert disk.drop(disk.said(1, text, **more)) is None
    assert disk.kept.n_bytes == 0
    off = Disk(quota_bytes=0)
    assert off.drop(off.said(1, ids(4))) is None


def test_one_that_is_answered_is_kept_when_the_node_ends_only() -> None:
    disk = Disk()
    key = disk.said(1, ids(4))
    disk.sessions[key].closed = False
    assert disk.drop(key) is None
    first, second = disk.said(2, ids(4)), disk.said(3, ids(4, first=500))
    disk.sessions[first].closed = False
    effects = disk.kept.keep_all()
    assert [effect.session for effect in effects if isinstance(effect, DropKv)] == [second, first], (
        "the last used first"
    )
    assert all(effect.kept is not None for effect in effects if isinstance(effect, DropKv)) and not disk.ledger.kv


def test_only_what_is_computed_is_kept() -> None:
    disk = Disk()
    key = disk.said(1, ids(5))
    disk.sessions[key].done = 3 * RUN + 1
    file = disk.drop(key)
    assert file is not None and file.n == 3 * RUN


def test_what_was_used_longest_ago_makes_room() -> None:
    disk = Disk(quota_bytes=3 * 4 * RUN * 4)
    files = [disk.keep(i, ids(4, first=1000 * i)) for i in range(1, 4)]
    assert disk.found(ids(4, first=1000)) == 4 * RUN, "it is used"
    effects = disk.ledger.drop_kv(disk.said(4, ids(4, first=4000)))
    assert effects[0] == ForgetKept((files[1].name,)) and kept_of(effects) is not None
    assert disk.kept.n_bytes <= disk.quota_bytes
    assert [disk.found(ids(4, first=1000 * i)) for i in (1, 2, 3)] == [4 * RUN, 0, 4 * RUN]


def test_the_number_of_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEPT_FILES", 3)
    disk = Disk()
    for i in range(1, 6):
        file = disk.drop(disk.said(i, ids(2, first=1000 * i)))
        assert file is not None
        disk.kept.written(file.name)
    assert len(disk.kept.files) == 3


def test_what_a_file_has_already_is_not_written_again() -> None:
    disk = Disk()
    disk.keep(1, ids(8))
    assert disk.drop(disk.said(2, ids(8))) is None
    assert disk.drop(disk.said(3, ids(5))) is None, "a beginning of it"
    assert disk.drop(disk.said(4, [*ids(8), 3, 4, 5])) is None, "little has come"
    assert disk.drop(disk.said(5, ids(8), owner=b"somebody else")) is not None
    assert disk.drop(disk.said(6, ids(8), place(2, 4))) is not None


def test_a_longer_file_takes_the_place_of_what_it_goes_on_with() -> None:
    disk = Disk()
    before = disk.keep(1, ids(4))
    other = disk.keep(2, ids(4, first=5000))
    longer = disk.drop(disk.said(3, ids(8)))
    assert longer is not None
    assert disk.found(ids(8)) == 4 * RUN, "until the longer one is there"
    assert disk.kept.written(longer.name) == [ForgetKept((before.name,))]
    assert disk.found(ids(8)) == 8 * RUN and set(disk.kept.files) == {longer.name, other.name}


def test_what_earlier_runs_left_is_found_within_the_quota() -> None:
    disk = Disk()
    files = [disk.keep(i, ids(4, first=1000 * i)) for i in range(1, 4)]
    later = Disk()
    assert later.kept.found(files, 2 * 4 * RUN * 4) == [ForgetKept((files[0].name,))]
    assert [later.found(ids(4, first=1000 * i)) for i in (1, 2, 3)] == [0, 4 * RUN, 4 * RUN]
    assert later.drop(later.said(9, ids(4, first=3000))) is None


def resting(effects: list[Effect]) -> KeptKv | None:
    """What is to be written while it stays in memory."""
    found = [effect.kept for effect in effects if isinstance(effect, KeepKv)]
    assert len(found) <= 1
    return found[0] if found else None


def test_what_rests_for_long_is_written_and_stays() -> None:
    disk = Disk()
    first, second = disk.said(1, ids(4)), disk.said(2, ids(4, first=5000))
    assert disk.kept.timer() == 1.0 + limits.KEPT_REST_S
    assert disk.kept.tick(disk.kept.timer() - 0.01) == []
    file = resting(disk.kept.tick(1000.0))
    assert file is not None and file.n == 4 * RUN and first in disk.ledger.kv
    assert disk.kept.tick(1000.0) == [] and disk.kept.timer() == NEVER, "one after the other"
    disk.kept.written(file.name)
    assert disk.found(ids(4)) == 4 * RUN
    other = resting(disk.kept.tick(1000.0))
    assert other is not None
    disk.kept.lost(other.name)
    assert disk.kept.tick(2000.0) == [] and disk.kept.timer() == NEVER, "a full disk is not asked again and again"
    assert disk.drop(first) is None, "there is a file of it"
    assert disk.drop(second) is not None


def test_what_rests_is_written_when_nobody_is_answered_only() -> None:
    disk = Disk()
    disk.said(1, ids(4))
    busy = disk.said(2, ids(4, first=5000))
    disk.ledger.wake(busy, 900.0)
    assert disk.kept.tick(1000.0) == [] and disk.kept.timer() == NEVER
    disk.ledger.rest(busy, 1000.0)
    assert resting(disk.kept.tick(1000.0)) is not None
    off = Disk(quota_bytes=0)
    off.said(1, ids(4))
    assert off.kept.tick(1000.0) == [] and off.kept.timer() == NEVER


def test_a_chat_that_grows_is_written_anew_when_it_is_twice_as_long() -> None:
    disk = Disk()
    file = resting(disk.kept.tick(1000.0)) if disk.said(1, ids(4)) else None
    assert file is not None
    disk.kept.written(file.name)
    disk.now = 2000.0
    disk.said(1, ids(7))
    assert resting(disk.kept.tick(3000.0)) is None and disk.kept.timer() == NEVER
    disk.said(1, ids(9))
    longer = resting(disk.kept.tick(3000.0))
    assert longer is not None and disk.kept.written(longer.name) == [ForgetKept((file.name,))]


def test_what_leaves_memory_while_it_is_written_gets_a_file_of_its_own() -> None:
    disk = Disk()
    key = disk.said(1, ids(4))
    begun = resting(disk.kept.tick(1000.0))
    file = disk.drop(key)
    assert begun is not None and file is not None and file.name != begun.name
    disk.kept.lost(begun.name)  # as its writer says
    assert disk.kept.written(file.name) == [] and disk.found(ids(4)) == 4 * RUN
    assert disk.kept.written(begun.name) == [ForgetKept((begun.name,))], "or it was whole just then"
    disk.said(2, ids(4, first=5000))
    assert resting(disk.kept.tick(2000.0)) is not None, "the next one is not held up"
    assert len([effect for effect in disk.kept.keep_all() if isinstance(effect, DropKv) and effect.kept]) == 1


def begun(disk: Disk, n: int = 4, epoch: int = 1) -> StageSession:
    """A session that begins with a file."""
    message = opening(7, ids(n), epoch=epoch)
    beginning = disk.kept.begin_of(message, place(), 0)
    assert beginning is not None
    session = StageSession(message, place(), 0, 0, [], COST, beginning=beginning)
    disk.sessions[message.session] = session
    disk.ledger.kv[message.session] = KvEntry((ENTRY, MODEL), 0, 2, 10, True, 0.0)
    disk.kept.begins(session, 1.0)
    return session


def replies(effects: list[Effect]) -> list[SessionReply]:
    return [cast("SessionReply", effect.message) for effect in effects if isinstance(effect, Send)]


def test_the_entry_node_hears_how_much_could_be_read() -> None:
    disk = Disk()
    disk.keep(1, ids(4))
    session = begun(disk)
    (reply,) = replies(disk.kept.read(session.open.session, 1, 3 * RUN))
    assert (reply.accepted, reply.have, session.done, session.ids) == (True, 3 * RUN, 3 * RUN, ids(3))
    assert disk.kept.read(session.open.session, 1, 4 * RUN) == [], "it was told once"
    assert disk.kept.timer() == NEVER and disk.kept.tick(100.0) == []


def test_what_is_read_for_an_older_opening_does_not_count() -> None:
    disk = Disk()
    disk.keep(1, ids(4))
    session = begun(disk, epoch=5)
    assert disk.kept.read(session.open.session, 4, 4 * RUN) == [] and session.done == 0
    assert disk.kept.read(SessionId("9" * 32), 5, 4 * RUN) == []


def test_a_slow_disk_is_not_waited_for() -> None:
    disk = Disk()
    disk.keep(1, ids(4))
    session = begun(disk)
    assert disk.kept.timer() == 1.0 + limits.KEPT_PATIENCE_S
    assert disk.kept.tick(disk.kept.timer() - 0.01) == []
    effects = disk.kept.tick(disk.kept.timer())
    assert [effect.keep for effect in effects if isinstance(effect, OpenKv)] == [0]
    assert [reply.have for reply in replies(effects)] == [0] and session.answered is not None
    assert disk.kept.read(session.open.session, 1, 4 * RUN) == [], "too late"
    gone = begun(disk)
    disk.ledger.kv.clear()
    effects = disk.kept.tick(disk.kept.timer())
    assert not [effect for effect in effects if isinstance(effect, OpenKv)], "its memory was given to others"
    assert gone.answered is not None
