"""Reports of what was brought for another device; tests/swarm has the whole exchange."""

from __future__ import annotations

from swarm.node.helping import _RECORD, _short, records_of


def test_a_report_tells_chunks_and_hashes_and_a_torn_record_does_not_count() -> None:
    frame = _RECORD.pack(7, b"a" * 32) + _RECORD.pack(9, b"b" * 32)
    assert records_of(memoryview(frame)) == [(7, b"a" * 32), (9, b"b" * 32)]
    assert records_of(memoryview(frame[:-1])) == [(7, b"a" * 32)]
    assert records_of(memoryview(b"")) == []


def test_a_reason_travels_as_one_short_line() -> None:
    assert _short("the disk\nis  full\x1b[2J") == "the disk is full[2J"
    assert len(_short("ä" * 1000).encode()) <= 512
