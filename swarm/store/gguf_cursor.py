"""A bounded reader of the primitive values in a GGUF header."""

from __future__ import annotations

import mmap
import struct
from typing import NoReturn

from swarm.errors import BadModelFile
from swarm.kernels import _native
from swarm.limits import MAX_GGUF_HEADER_BYTES, MAX_GGUF_NAME_BYTES
from swarm.plain import printable

FileBytes = bytes | mmap.mmap


U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


class HeaderCut(BadModelFile):
    """The header goes on behind the bytes that are at hand; more of the file is needed to read it."""


class Cursor:
    """A position in the header that never passes its end; every read names what it reads.

    `file_bytes` is the length of the file where `data` is only its beginning: then the end of `data` is no fault of the
    file, and raises HeaderCut.
    """

    def __init__(self, data: FileBytes, where: str, file_bytes: int | None = None) -> None:
        self.data = data
        self.where = where
        self.position = 0
        self.file_bytes = len(data) if file_bytes is None else file_bytes
        self.end = min(len(data), MAX_GGUF_HEADER_BYTES)

    def fail(self, field: str, problem: str) -> NoReturn:
        raise BadModelFile(f"{self.where}: {printable(field)}: {problem}; the file is broken, fetch it again")

    def skip(self, n_bytes: int, field: str) -> int:
        """Step over n_bytes and return where they began."""
        start = self.position
        if n_bytes > self.end - start:
            self._ask_for_more(n_bytes)
            if self.end < self.file_bytes:
                self.fail(field, f"the header is longer than {MAX_GGUF_HEADER_BYTES} bytes")
            self.fail(field, f"the file ends here (it has {self.end} bytes)")
        self.position = start + n_bytes
        return start

    def u32(self, field: str) -> int:
        return int(U32.unpack_from(self.data, self.skip(4, field))[0])

    def u64(self, field: str) -> int:
        return int(U64.unpack_from(self.data, self.skip(8, field))[0])

    def count(self, field: str, limit: int, item_bytes: int) -> int:
        """A number of items, of which each takes at least item_bytes of what is left of the header."""
        count = self.u64(field)
        if count > limit:
            self.fail(field, f"{count} is more than the {limit} that a file may have")
        if count * item_bytes > min(self.file_bytes, MAX_GGUF_HEADER_BYTES) - self.position:
            self.fail(field, f"{count} do not fit in the file (it has {self.file_bytes} bytes)")
        return count

    def name(self, field: str) -> str:
        n_bytes = self.u64(f"length of {field}")
        if n_bytes > MAX_GGUF_NAME_BYTES:
            self.fail(f"length of {field}", f"{n_bytes} is more than {MAX_GGUF_NAME_BYTES} bytes")
        start = self.skip(n_bytes, field)
        return decode_text(self.data[start : start + n_bytes], f"{self.where}: {field}")

    def skip_strings(self, count: int, field: str) -> int:
        """Step over `count` strings; return where they began."""
        start = self.position
        position = _native.skip_texts(self.data, start, count, self.end)
        if position >= 0:
            self.position = position
            return start
        self._ask_for_more(0)
        self.fail(field, f"its {count} texts do not fit in the file (it has {len(self.data)} bytes)")

    def _ask_for_more(self, n_bytes: int) -> None:
        """HeaderCut, where the next n_bytes may lie behind the bytes at hand."""
        whole = min(self.file_bytes, MAX_GGUF_HEADER_BYTES)
        if len(self.data) < whole and self.position + n_bytes <= whole:
            raise HeaderCut(f"{self.where}: the first {len(self.data)} bytes are not the whole header")


def decode_text(raw: bytes, where: str) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise no_text(where, error) from None


def no_text(where: str, error: UnicodeDecodeError) -> BadModelFile:
    return BadModelFile(f"{where}: not UTF-8 text ({error.reason}); the file is broken, fetch it again")
