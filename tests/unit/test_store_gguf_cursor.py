"""Reading a header that may lie about its lengths."""

from __future__ import annotations

import struct

import pytest

from swarm.errors import BadModelFile
from swarm.store import gguf_cursor
from swarm.store.gguf_cursor import Cursor


def cursor(data: bytes) -> Cursor:
    return Cursor(data, "m.gguf")


def text(value: bytes, n_bytes: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if n_bytes is None else n_bytes) + value


def test_values_are_read_one_after_the_other() -> None:
    reader = cursor(struct.pack("<IQ", 7, 2**40) + text(b"name") + text(b"a") + text(b"bc"))
    assert (reader.u32("a"), reader.u64("b"), reader.name("c")) == (7, 2**40, "name")
    start = reader.skip_strings(2, "d")
    assert reader.position - start == 8 + 1 + 8 + 2 and reader.position == len(reader.data)


def test_what_is_cut_off_is_named_with_the_file() -> None:
    with pytest.raises(BadModelFile, match=r"m.gguf: version: the file ends here \(it has 3 bytes\)"):
        cursor(b"abc").u32("version")


def test_a_header_longer_than_allowed_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_cursor, "MAX_GGUF_HEADER_BYTES", 10)
    with pytest.raises(BadModelFile, match="the header is longer than 10 bytes"):
        cursor(bytes(100)).skip(11, "metadata")


@pytest.mark.parametrize(("count", "says"), [(101, "more than the 100"), (100, "100 do not fit"), (2**63, "more than")])
def test_a_count_that_the_file_cannot_hold_is_refused(count: int, says: str) -> None:
    with pytest.raises(BadModelFile, match=says):
        cursor(struct.pack("<Q", count) + bytes(64)).count("tensors", 100, item_bytes=8)


@pytest.mark.parametrize("lengths", [[5, 2**63], [2**64 - 8], [1, 1, 100]])
def test_texts_that_reach_past_the_end_are_refused(lengths: list[int]) -> None:
    data = b"".join(text(b"x", length) for length in lengths)
    with pytest.raises(BadModelFile, match="texts do not fit"):
        cursor(data).skip_strings(len(lengths), "tokens")


def test_a_name_that_is_no_text_or_too_long_is_refused() -> None:
    with pytest.raises(BadModelFile, match="not UTF-8 text"):
        cursor(text(b"\xff")).name("key")
    with pytest.raises(BadModelFile, match="length of key: 5000 is more than"):
        cursor(text(b"x", 5000)).name("key")
