"""What a person is told of what happened."""

from __future__ import annotations

from swarm import limits
from swarm.cluster.effects import Log
from swarm.node.event_log import EventLog


def test_events_come_with_their_fields_and_wake_who_shows_them() -> None:
    events, told = EventLog(), []
    events.on_entry = lambda: told.append(len(events.entries))
    events.note("joined", name="attic")
    events.bug(RuntimeError("oops"))
    assert [(event, fields) for _, event, fields in events.entries] == [
        ("joined", {"name": "attic"}),
        ("bug", {"why": "RuntimeError: oops"}),
    ]
    assert told == [1, 2]


def test_the_core_tells_what_nobody_else_tells() -> None:
    events = EventLog()
    for event in ("joined", "placement_ready", "suspected", "lost", "reachchanged"):
        events.core_said(Log(event, (("peer", "a"),)))
    assert [(event, fields) for _, event, fields in events.entries] == [
        ("placement_ready", {"peer": "a"}),
        ("lost", {"peer": "a"}),
    ]


def test_only_the_last_events_are_remembered() -> None:
    events = EventLog()
    for number in range(2 * limits.MAX_SHOWN_EVENTS):
        events.note("n", number=number)
    assert len(events.entries) == limits.MAX_SHOWN_EVENTS and events.entries[-1][2] == {"number": 399}


def test_a_flood_of_one_kind_is_counted_and_hides_no_other() -> None:
    now = [0.0]
    events = EventLog(lambda: now[0])
    for _ in range(12_000):
        events.note("placement_refused")
    events.note("left", name="attic")
    assert len([event for _, event, _ in events.entries]) == limits.MAX_SHOWN_EVENTS
    assert events.entries[-1][1] == "left"
    now[0] = 10.0
    events.note("placement_refused")
    assert events.entries[-1][2] == {"not_told_before": 12_000 - int(limits.MAX_EVENTS_AT_ONCE)}


def test_what_others_said_cannot_move_the_cursor() -> None:
    events = EventLog()
    events.note("garbage", why="\x1b]0;PWNED\x07 two\nlines")
    assert events.entries[-1][2] == {"why": "]0;PWNED two lines"}
