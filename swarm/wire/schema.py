"""A record becomes a msgpack array and an array the record, with every value checked.

msgspec does it; the annotation of a field says what is legal: `Annotated[int, Meta(ge=0, le=9)]`, `Literal["a", "b"]`,
`Annotated[tuple[Address, ...], Meta(max_length=16)]`, another record, any of these `| None`. What msgspec has not is
here: ids, texts of so many bytes that can be printed, and errors that name the field. A peer may send more fields than
we know (a newer minor version); those are skipped. A field with a default may be missing (an older one). Everything
else is a Violation.

Other programs find plain msgpack: the tests write and read the same bytes with the msgpack package, which is otherwise
what the store writes its files with (store/manifest.py, store/chunks.py).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from swarm import limits
from swarm.value import Value
from swarm.wire.ids import Id


class Violation(ValueError):
    """A value that may not travel; the text names the field and the rule."""


class Record(Value, array_like=True, gc=False):
    """Base of all that travels: its fields in their order. None can be in a cycle, so no collector looks at them."""


T = TypeVar("T", bound=Record)


class _AnyText(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, str)


class Text(metaclass=_AnyText):
    """UTF-8 of at most MAX_BYTES that can be printed: it reaches terminals and logs, so no escape sequences in it."""

    MAX_BYTES: ClassVar[int]


if TYPE_CHECKING:  # plain texts; msgspec is told their bounds
    Name: TypeAlias = str
    Line: TypeAlias = str
    Host: TypeAlias = str
    Machine: TypeAlias = str
    Software: TypeAlias = str
    Grammar: TypeAlias = str
else:

    class Name(Text):
        """Of a device or a model."""

        MAX_BYTES = limits.MAX_NAME_BYTES

    class Line(Text):
        """A reason or an error."""

        MAX_BYTES = limits.MAX_TEXT_BYTES

    class Host(Text):
        """An address or a host name."""

        MAX_BYTES = limits.MAX_HOST_BYTES

    class Machine(Text):
        """A kind of processor, or an instruction set."""

        MAX_BYTES = limits.MAX_MACHINE_BYTES

    class Software(Text):
        """A version of Swarm."""

        MAX_BYTES = limits.MAX_SOFTWARE_BYTES

    class Grammar(Text):
        """What an answer must spell."""

        MAX_BYTES = limits.MAX_GRAMMAR_BYTES


encode = msgspec.msgpack.Encoder(enc_hook=bytes.fromhex).encode  # ids are the only values that it does not know


def pack(record: Record) -> bytes:
    """Return the bytes of a record; raise Violation when `unpack` would not give the same again."""
    try:
        data = encode(record)
    except (ValueError, TypeError, OverflowError) as error:
        raise Violation(f"{type(record).__name__}: {error}") from error
    if unpack(type(record), data) != record:
        raise Violation(f"{type(record).__name__} would not be read as it is")
    return data


def unpack(kind: type[T], data: bytes | bytearray | memoryview) -> T:
    """Return the record that the bytes stand for; raise Violation."""
    try:
        record: T = decoder_of(kind).decode(data)
        return record
    except msgspec.ValidationError as error:
        raise Violation(_named(kind, str(error))) from error
    except Exception as error:  # DecodeError, RecursionError, ...: whatever it is, no peer may end a thread
        raise Violation(f"not msgpack: {error}") from error


@cache
def decoder_of(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return what makes records of a class, or of a union of classes with tags, out of bytes."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_from_wire)  # type: ignore[arg-type]  # that it is cached


# Ids come again with every message. The cache is C: it spares a call of Python, 10 us with cold caches.
@lru_cache(maxsize=limits.MAX_READ_VALUES)
def _from_wire(kind: type[Id] | type[Text], value: object) -> str:
    """An id or a text out of what came for it."""
    if issubclass(kind, Id):
        if type(value) is not bytes or len(value) != kind.N_BYTES:
            raise ValueError(f"expected {kind.N_BYTES} bytes")
        return kind(value.hex())
    if type(value) is not str:
        raise ValueError("expected text")
    if len(value.encode()) > kind.MAX_BYTES:
        raise ValueError(f"expected text of at most {kind.MAX_BYTES} bytes")
    if not value.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return value


def _named(kind: type[Record], error: str) -> str:
    """What msgspec says about a place like `$[2][0]`, with the name of the field there."""
    rule, _, place = error.rpartition(" - at `$") if " - at `$" in error else (error, "", "")
    name, hint = kind.__name__, kind
    for index in map(int, re.findall(r"\[(\d+)\]", place)):
        if isinstance(hint, type) and issubclass(hint, Record):
            field = hint.__struct_fields__[index - (hint.__struct_config__.tag is not None)]
            name, hint = f"{hint.__name__}.{field}", _bare(get_type_hints(hint, include_extras=True)[field])
        elif get_origin(hint) is tuple:
            hint = _bare(get_args(hint)[0])
        else:  # an array or a map in place of an id or a text, which may have anything in it
            break
    if rule.startswith("unhashable"):  # an array or a map in place of an id or a text: no cache takes it
        rule = f"expected {hint.N_BYTES} bytes" if issubclass(hint, Id) else "expected text"
    if get_origin(hint) is Literal:
        rule = f"expected one of {', '.join(get_args(hint))}"  # msgspec repeats what came, which may be anything
    return f"{name}: {rule[0].lower()}{rule[1:]}"


def _bare(hint: Any) -> Any:
    """A type without its bounds, and without None."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return _bare(next(arg for arg in get_args(hint) if arg is not type(None)))
    return hint
