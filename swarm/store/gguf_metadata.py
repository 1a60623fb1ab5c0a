"""The key-value pairs of a GGUF header: measured when the file is opened, decoded when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swarm.kernels import _native
from swarm.limits import MAX_GGUF_ARRAY_ITEMS, MAX_GGUF_STRING_BYTES
from swarm.store.gguf_cursor import Cursor, FileBytes, decode_text, no_text

Value = bool | int | float | str | list[str] | npt.NDArray[Any]

_BOOL, _STRING, _ARRAY = 7, 8, 9
_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _BOOL: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}


# Texts that are only shown: bytes of them that are no text do no harm. Nor do those of a token, which no text spells.
_SHOWN = frozenset(f"general.{key}" for key in ("name", "author", "description", "organization", "basename"))
_TOKENS = "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class _Field:
    """Where a metadata value lies; of an array the items, of a string the text."""

    value_type: int
    item_type: int
    count: int
    offset: int
    n_bytes: int


class Metadata(Mapping[str, Value]):
    """The key-value pairs of a file, decoded at each access: keep a large array instead of asking twice.

    Arrays of strings come as lists, arrays of numbers as NumPy arrays.
    """

    def __init__(self, data: FileBytes, fields: dict[str, _Field], where: str) -> None:
        self._data = data
        self._fields = fields
        self._where = where

    def __getitem__(self, key: str) -> Value:
        field = self._fields[key]
        raw = self._data[field.offset : field.offset + field.n_bytes]
        if field.value_type == _STRING:
            return _shown(raw) if key in _SHOWN else decode_text(raw, f"{self._where}: {key}")
        if field.value_type != _ARRAY:
            return _numbers(raw, field.value_type)[0].item()  # type: ignore[no-any-return]
        if field.item_type != _STRING:
            return _numbers(raw, field.item_type)
        if key == _TOKENS:
            return _tokens(raw, field.count)
        return _strings(raw, field.count, f"{self._where}: {key}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def read_metadata(cursor: Cursor, n_keys: int) -> Metadata:
    """Step over n_keys pairs, remembering where each value lies."""
    return Metadata(cursor.data, _read_fields(cursor, n_keys), cursor.where)


def _read_fields(cursor: Cursor, n_keys: int) -> dict[str, _Field]:
    fields: dict[str, _Field] = {}
    for number in range(n_keys):
        key = cursor.name(f"metadata key {number}")
        if key in fields:
            cursor.fail(key, "the key occurs twice")
        fields[key] = _read_field(cursor, key)
    return fields


def _read_field(cursor: Cursor, key: str) -> _Field:
    value_type = cursor.u32(f"type of {key}")
    if value_type == _STRING:
        n_bytes = cursor.u64(f"length of {key}")
        if n_bytes > MAX_GGUF_STRING_BYTES:
            cursor.fail(f"length of {key}", f"{n_bytes} is more than {MAX_GGUF_STRING_BYTES} bytes")
        return _Field(_STRING, 0, 1, cursor.skip(n_bytes, key), n_bytes)
    if value_type == _ARRAY:
        return _read_array(cursor, key)
    if value_type not in _DTYPES:
        cursor.fail(f"type of {key}", f"{value_type} is no type of a metadata value")
    n_bytes = _DTYPES[value_type].itemsize
    return _Field(value_type, 0, 1, cursor.skip(n_bytes, key), n_bytes)


def _read_array(cursor: Cursor, key: str) -> _Field:
    item_type = cursor.u32(f"item type of {key}")
    if item_type == _ARRAY:
        cursor.fail(f"item type of {key}", "an array of arrays is not supported")
    if item_type != _STRING and item_type not in _DTYPES:
        cursor.fail(f"item type of {key}", f"{item_type} is no type of a metadata value")
    item_bytes = 8 if item_type == _STRING else _DTYPES[item_type].itemsize
    count = cursor.count(f"length of {key}", MAX_GGUF_ARRAY_ITEMS, item_bytes)
    start = cursor.skip_strings(count, key) if item_type == _STRING else cursor.skip(count * item_bytes, key)
    return _Field(_ARRAY, item_type, count, start, cursor.position - start)


def _numbers(raw: bytes, value_type: int) -> npt.NDArray[Any]:
    values = np.frombuffer(raw, _DTYPES[value_type])
    return values != 0 if value_type == _BOOL else values


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _tokens(raw: bytes, count: int) -> list[str]:
    """The tokens; bytes that are no text are written out, so that each token keeps its number."""
    try:
        return _native.texts(raw, count)
    except UnicodeDecodeError:
        texts, at = [], 0
        for _ in range(count):
            end = at + 8 + int.from_bytes(raw[at : at + 8], "little")
            texts.append(_shown(raw[at + 8 : end]))
            at = end
        return texts


def _strings(raw: bytes, count: int, where: str) -> list[str]:
    """The texts of an array whose lengths were checked when the header was read."""
    try:
        return _native.texts(raw, count)
    except UnicodeDecodeError as error:
        raise no_text(where, error) from None
