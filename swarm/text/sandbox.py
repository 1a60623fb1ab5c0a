"""Runs a chat template from a model file, which nobody has checked.

The template can reach nothing but the values it is given (jinja2's immutable sandbox), and it can neither run for ever
nor fill the memory: every loop turn and call is counted, every operation that makes something larger is measured before
it is done, and filters and methods that could make something huge in one step are not there.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import BuiltinMethodType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from swarm.errors import TextError
from swarm.limits import MAX_PROMPT_CHARS, MAX_TEMPLATE_CHARS, MAX_TEMPLATE_S, MAX_TEMPLATE_STEPS

Clock = Callable[[], float]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _words(
    "abs capitalize count d default dictsort first float int items join last length list lower map max min reject "
    "rejectattr reverse select selectattr sort title trim unique upper"
)
_GLOBALS = _words("range dict namespace cycler joiner")
_METHODS: Mapping[type, frozenset[str]] = {
    str: _words(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
        "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
        "rsplit rstrip split splitlines startswith strip swapcase title upper"
    ),
    dict: _words("copy get items keys values"),
    list: _words("copy count index"),
    tuple: _words("count index"),
}
_MAX_BITS = 4096  # of a whole number
_MAX_INDENT = 64
_MAX_DATE_FORMAT_CHARS = 64
_CLOCK_EVERY_STEPS = 16
_ITEM_CHARS = 64  # what an item of a list, or a value that is no text, counts as: about the memory it takes
_PLAIN_FORMAT = re.compile(r"(?:[^%]|%[%sdifr])*", re.DOTALL)


class Refused(Exception):
    """The template broke a limit; the text says which."""


class TemplateError(Exception):
    """The template itself refused the conversation, through raise_exception."""


class SandboxedTemplate:
    """A compiled template. Rendering is serialised, for the limits are counted per rendering."""

    def __init__(self, source: str, clock: Clock = time.monotonic) -> None:
        """Raise TextError when `source` is no template."""
        if len(source) > MAX_TEMPLATE_CHARS:
            raise TextError(f"the chat template has {len(source)} characters; the most is {MAX_TEMPLATE_CHARS}")
        self._environment = _Environment(clock)
        self._lock = threading.Lock()
        try:
            self._template = self._environment.from_string(source)
        except Exception as error:
            raise TextError(f"the chat template is broken: {_one_line(error)}") from None

    def render(self, values: Mapping[str, object], now: datetime) -> str:
        """The text; TextError when the template fails, refuses the conversation or breaks a limit."""

        def strftime_now(date_format: str) -> str:
            return _date(now, date_format)

        with self._lock:
            self._environment.start()
            try:
                return self._template.render(**values, strftime_now=strftime_now)
            except TemplateError as error:
                raise TextError(f"the model's chat template refused the conversation: {_one_line(error)}") from None
            except Exception as error:  # whatever foreign code raises: TypeError, RecursionError, MemoryError ...
                kind = "" if isinstance(error, Refused) else f"{type(error).__name__}: "
                raise TextError(f"the model's chat template failed: {kind}{_one_line(error)}") from None


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2 as the transformers library sets it up, with every growth measured."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, clock: Clock) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            optimized=False,  # nothing is computed before the limits are in force
            extensions=[LoopControlExtension, _GenerationTag],
            finalize=self._shown,
            cache_size=0,
        )
        self._clock = clock
        self._steps = 0
        self._deadline_s = 0.0
        self.filters = {name: value for name, value in self.filters.items() if name in _FILTERS} | {
            "join": self._join,
            "replace": self._replace,
            "string": self._text,
            "safe": self._text,
            "indent": self._indent,
            "tojson": self._to_json,
            "swarm_steps": self._counted,
            "swarm_concat": self._concat,
            "swarm_sized": self._sized,
        }
        self.globals = {name: value for name, value in self.globals.items() if name in _GLOBALS} | {
            "raise_exception": _raise_exception
        }

    def start(self) -> None:
        """Begin a rendering: all counters anew."""
        self._steps = 0
        self._deadline_s = self._clock() + MAX_TEMPLATE_S

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Instrumented().visit(super()._parse(source, name, filename))
        return tree

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a block wrote."""
        written = []
        room = MAX_PROMPT_CHARS
        for part in parts:
            room -= len(part)
            if room < 0:
                raise Refused(f"it writes more than {MAX_PROMPT_CHARS} characters")
            written.append(part)
        return "".join(written)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, macro or function."""
        __self._step()
        owner = getattr(__obj, "__self__", None)
        if isinstance(__obj, BuiltinMethodType) and owner is not None:
            args = _checked_arguments(owner, __obj.__name__, args)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Check how large the result will be, then compute it."""
        if operator == "+" and _has_length(left) and _has_length(right):
            _check_size(len(left) + len(right))
            return self._sized(left + right)
        if operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%" and isinstance(left, str) and not _PLAIN_FORMAT.fullmatch(left):
            raise Refused("it formats text in a way that is not supported; %s and %d are")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format can write any number of characters: it is not there."""
        if isinstance(value, BuiltinMethodType) and value.__name__ in ("format", "format_map"):
            return _refuse_format
        return None

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_TEMPLATE_STEPS:
            raise Refused(f"it takes more than {MAX_TEMPLATE_STEPS} steps")
        if self._steps % _CLOCK_EVERY_STEPS == 0 and self._clock() > self._deadline_s:
            raise Refused(f"it takes longer than {MAX_TEMPLATE_S:g} s")

    def _counted(self, values: Iterable[Any]) -> Iterator[Any] | Iterable[Any]:
        return values if isinstance(values, jinja2.Undefined) else self._count(values)

    def _count(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step()
            yield value

    def _shown(self, value: Any) -> Any:
        """A value that is about to be written."""
        return value if isinstance(value, str) else self._text(value)

    def _text(self, value: Any) -> str:
        return str(self._sized(value))

    def _sized(self, value: Any) -> Any:
        """`value`, or Refused when writing it out could take more than the limit."""
        _spend(value, MAX_PROMPT_CHARS)
        return value

    def _concat(self, values: list[Any]) -> str:
        return self.concat(map(self._text, values))

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        return d.join(_bounded_parts(map(self._text, values), len(d)))

    def _replace(self, text: Any, old: str, new: str) -> str:
        text = self._text(text)
        _check_replacement(text, old, new)
        return str(text).replace(old, new)

    def _indent(self, text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
        if not 0 <= width <= _MAX_INDENT:
            raise Refused(f"it indents by {width}")
        lines = text.splitlines(keepends=True)
        _check_size(len(text) + width * len(lines))
        pad = " " * width
        return "".join(pad + line if (i or first) and (blank or line.strip()) else line for i, line in enumerate(lines))

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        self._sized(value)
        if isinstance(indent, int) and not 0 <= indent <= _MAX_INDENT:
            raise Refused(f"it indents by {indent}")
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Instrumented(NodeTransformer):
    """Puts a counter around every loop, and a measure around every literal and concatenation."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "swarm_steps")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "swarm_concat")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "swarm_sized")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "swarm_sized")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "swarm_sized") if node.ctx == "load" else node


class _GenerationTag(Extension):
    """{% generation %} marks what training counts as the answer; for rendering it does nothing."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _checked_arguments(owner: object, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments for a method of `owner`; Refused when the method is not there or its result would be too large."""
    if name not in _METHODS.get(type(owner), ()):
        raise Refused(f"it calls .{name}() of a {type(owner).__name__}, which is not supported")
    if isinstance(owner, str) and name == "join":
        return tuple(_bounded_parts(parts, len(owner)) for parts in args)
    if isinstance(owner, str) and name == "replace":
        _check_replacement(owner, *args[:2])
    return args


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _spend(value: Any, room: int) -> int:
    """`room` less what `value` takes when it is written out; Refused when that is more than `room`."""
    if isinstance(value, str):
        room -= len(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            room = _spend(item, _spend(key, room)) - _ITEM_CHARS
    elif isinstance(value, list | tuple):
        for item in value:
            room = _spend(item, room) - _ITEM_CHARS
    else:
        room -= _ITEM_CHARS
    _check_size(MAX_PROMPT_CHARS - room)
    return room


def _bounded_parts(parts: Iterable[Any], glue_chars: int) -> list[Any]:
    kept, chars = [], 0
    for part in parts:
        chars += glue_chars + (len(part) if isinstance(part, str) else _ITEM_CHARS)
        _check_size(chars)
        kept.append(part)
    return kept


def _check_size(chars: int) -> None:
    if chars > MAX_PROMPT_CHARS:
        raise Refused(f"it makes something of more than {MAX_PROMPT_CHARS} characters")


def _check_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if _has_length(value) and isinstance(times, int):
            _check_size(max(len(value), 1) * times)
            if not isinstance(value, str):
                _check_size((MAX_PROMPT_CHARS - _spend(value, MAX_PROMPT_CHARS)) * times)
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MAX_BITS:
        raise Refused("it computes with numbers that are too large")


def _check_power(left: Any, right: Any) -> None:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise Refused("it takes a power of something that is not a number")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_BITS:
        raise Refused("it computes with numbers that are too large")


def _check_replacement(text: str, old: object = None, new: object = None) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _check_size(len(text) + text.count(old) * max(len(new) - len(old), 0))


def _has_length(value: object) -> bool:
    return isinstance(value, str | list | tuple)


def _raise_exception(message: object = "") -> NoReturn:
    raise TemplateError(message)


def _refuse_format(*_args: object, **_kwargs: object) -> NoReturn:
    raise Refused("it calls .format() of a text, which is not supported")


def _date(now: datetime, date_format: str) -> str:
    if len(date_format) > _MAX_DATE_FORMAT_CHARS or re.search(r"%[^A-Za-z%-]|%-?\d", date_format):
        raise Refused("it asks for the date in a format that is not supported")
    return now.strftime(date_format)


def _one_line(error: BaseException) -> str:
    """The error's own text, short enough for one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
