"""The process that renders chat templates: nothing of Swarm is in it, and it may be killed at any moment.

Started by path (sandbox.py), so that it begins in milliseconds: it imports minijinja and little else. A request is a
line of JSON, and so is the reply. The kernel holds it to its limits: memory beyond what the conversation justifies ends
it, and so does a timer.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn

from minijinja import Environment, TemplateError

MAX_TEMPLATES = 4  # kept compiled
MAX_DATE_FORMAT_CHARS = 64
BYTES_A_REQUEST_BYTE = 24  # a conversation lies here as JSON, as Python's text, as minijinja's, and in the prompt
FLAGGED = re.compile("[\ufdd0-\ufdef]")  # sandbox.py's callers mark characters of what people wrote

_TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_GENERATION = re.compile(r"^\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}$")
_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_PERCENT = re.compile(rf"({_TEXT})\s*%\s*(?:\(|([A-Za-z_]\w*(?:\.\w+|\[[^\]]*\])*|\d+|{_TEXT}))|{_TEXT}", re.DOTALL)


class Refusal(Exception):
    """The template called raise_exception."""


def environment(source: str, fuel: int) -> Environment:
    """A template as the transformers library would understand it; raises TemplateError when it is none."""
    env = Environment(trim_blocks=True, lstrip_blocks=True, fuel=fuel, auto_escape_callback=lambda _: False)
    env.add_filter("tojson", to_json)
    env.add_test("iterable", lambda value: isinstance(value, str | list | tuple | dict))
    env.add_global("raise_exception", refuse)
    env.add_template("template", _TAG.sub(lambda match: in_minijinja(match[0]), source))
    return env


def in_minijinja(tag: str) -> str:
    """What jinja2 and transformers have and minijinja has not, in minijinja's words."""
    generation = _GENERATION.match(tag)
    if generation:  # marks what training counts as the answer; for rendering it does nothing
        return f"{{%{generation[1]} {'endif' if generation[2] else 'if true'} {generation[3]}%}}"
    return _PERCENT.sub(formatted, tag)


def formatted(match: re.Match[str]) -> str:
    """`text % (a, b)` and `text % a`, where the text is written out."""
    if match[1] is None:
        return match[0]
    return f"{match[1]}|format({match[2]})" if match[2] else f"{match[1]}|format("


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it, where no character is special."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: object = "") -> NoReturn:
    raise Refusal(message)


def date(now: datetime, date_format: str) -> str:
    """The date as a template wants it written."""
    date_format = FLAGGED.sub("", date_format)
    if len(date_format) > MAX_DATE_FORMAT_CHARS or re.search(r"%[^A-Za-z%-]|%-?\d", date_format):
        raise ValueError("it asks for the date in a format that is not supported")
    return now.strftime(date_format)


def one_line(error: BaseException) -> str:
    """The error's own text, short enough for one line."""
    text = str(error).partition("\n----")[0]  # below that line minijinja shows the template
    return " ".join(text.split())[:200] or type(error).__name__


def used_bytes() -> int:
    """The address space that this process takes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


class Worker:
    """Answers requests until its input ends."""

    def __init__(self, fuel: int, seconds: float, memory_bytes: int) -> None:
        self._fuel, self._seconds, self._memory_bytes = fuel, seconds, memory_bytes
        self._templates: dict[str, Environment] = {}

    def answer(self, line: bytes) -> dict[str, str]:
        """Compile a template, and render it where values are given, within the limits."""
        unlimited, hard = resource.getrlimit(resource.RLIMIT_AS)
        room = used_bytes() + self._memory_bytes + BYTES_A_REQUEST_BYTE * len(line)
        resource.setrlimit(resource.RLIMIT_AS, (room if hard == resource.RLIM_INFINITY else min(room, hard), hard))
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        reply = self._answer(json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (unlimited, hard))  # the next request may be larger
        return reply

    def _answer(self, request: dict[str, Any]) -> dict[str, str]:
        try:
            env = self._compiled(request["source"])
        except Exception as error:
            return {"broken": one_line(error)}
        if "values" not in request:
            return {"text": ""}
        now = datetime.fromisoformat(request["now"])
        env.add_global("strftime_now", lambda date_format: date(now, date_format))
        try:
            return {"text": env.render_template("template", **request["values"])}
        except Exception as error:
            cause = (error.__cause__ or error) if isinstance(error, TemplateError) else error
            kind = "" if isinstance(cause, TemplateError | Refusal) else f"{type(cause).__name__}: "
            return {"refused" if isinstance(cause, Refusal) else "failed": kind + one_line(cause)}

    def _compiled(self, source: str) -> Environment:
        env = self._templates.pop(source, None) or environment(source, self._fuel)
        self._templates[source] = env  # the one that was used last comes last
        while len(self._templates) > MAX_TEMPLATES:
            del self._templates[next(iter(self._templates))]
        return env


def main() -> None:
    fuel, seconds, memory_bytes = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the chat's
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the timer ends the process, whatever it is doing
    worker = Worker(fuel, seconds, memory_bytes)
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(worker.answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
