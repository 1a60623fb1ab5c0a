"""GGUF files put together byte by byte, without a single check: for files that are wrong on purpose."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

U8, U16, I32, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 5, 4, 6, 7, 8, 9, 10


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def pair(key: str | bytes, value_type: int, value: bytes) -> bytes:
    return string(key) + u32(value_type) + value


def array(item_type: int, count: int, items: bytes) -> bytes:
    return u32(item_type) + u64(count) + items


def tensor(name: str | bytes, dims: Sequence[int], type_id: int, offset: int) -> bytes:
    """An entry of the tensor table; dims as in the file, columns first."""
    return string(name) + u32(len(dims)) + b"".join(u64(size) for size in dims) + u32(type_id) + u64(offset)


ARCHITECTURE = pair("general.architecture", STRING, string("llama"))


@dataclass(frozen=True)
class File:
    """A file of two F32 tensors, `a` (2, 8) and `b` (8,), unless told otherwise."""

    pairs: Sequence[bytes] = (ARCHITECTURE,)
    tensors: Sequence[bytes] = (tensor("a", (8, 2), 0, 0), tensor("b", (8,), 0, 64))
    data: bytes = field(default=bytes(96))
    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    n_tensors: int | None = None
    n_pairs: int | None = None
    alignment: int = 32

    def build(self) -> bytes:
        head = self.magic + self.version
        head += u64(len(self.tensors) if self.n_tensors is None else self.n_tensors)
        head += u64(len(self.pairs) if self.n_pairs is None else self.n_pairs)
        head += b"".join(self.pairs) + b"".join(self.tensors)
        return head + bytes(-len(head) % self.alignment) + self.data
