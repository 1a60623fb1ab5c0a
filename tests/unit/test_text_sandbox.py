"""Hostile templates: each ends in one clear error, soon, and without filling the memory."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from datetime import datetime

import psutil
import pytest

from swarm.errors import ResourceError, TextError
from swarm.limits import MAX_TEMPLATE_CHARS
from swarm.text import sandbox
from swarm.text.sandbox import Renderer, SandboxedTemplate
from tests.helpers.nodes import wait_for

THE_DAY = datetime(2026, 7, 26)
VALUES = {"messages": [{"role": "user", "content": "Hi"}], "word": "abc" * 1000}


def render(source: str, **values: object) -> str:
    return SandboxedTemplate(source).render({**VALUES, **values}, THE_DAY)


HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop that writes": "{% for a in range(99999) %}{{ word }}{% endfor %}",
    "a block that writes": "{% set x %}{% for a in range(99999) %}{{ word }}{% endfor %}{% endset %}",
    "a macro that writes": "{% macro m() %}{% for a in range(99999) %}{{ word }}{% endfor %}{% endmacro %}{{ m() }}",
    "doubling by ~": "{% set n = namespace(x=word) %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by +": "{% set n = namespace(x=word) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling a list": "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "nesting a list": (
        "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
    ),
    "nesting a dict": (
        "{% set n = namespace(x=1) %}{% for a in range(99) %}{% set n.x = {1: n.x, 2: n.x}%}{% endfor %}{{ n.x }}"
    ),
    "nesting a tuple": (
        "{% set n = namespace(x=1) %}{% for a in range(99) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ n.x }}"
    ),
    "a long text by *": "{{ 'a' * 10000000000 }}",
    "a long list by *": "{{ [1] * 10000000000 }}",
    "a list of long texts by *": "{{ [word] * 1000000 }}",
    "a number by **": "{{ 10 ** 9999999999 }}",
    "a number by *": "{% set n = namespace(x=9) %}{% for a in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "a text to a power": "{{ 'a' ** 2 }}",
    "a wide format by %": "{{ '%10000000000d' % 1 }}",
    "a format with *": "{{ '%*d' % (10000000000, 1) }}",
    "str.format": "{{ '{:10000000000}'.format(1) }}",
    "str.format as item": "{{ 'a'['format'](1) }}",
    "str.ljust": "{{ 'a'.ljust(10000000000) }}",
    "str.zfill": "{{ 'a'.zfill(10000000000) }}",
    "str.expandtabs": "{{ '\t'.expandtabs(10000000000) }}",
    "str.translate": "{{ 'aa'.translate({97: word}) }}",
    "str.replace": "{{ (word * 1000).replace('a', word) }}",
    "str.join": "{{ (word * 100).join(word) }}",
    "int.to_bytes": "{{ (1).to_bytes(10000000000, 'big') }}",
    "filter center": "{{ 'a' | center(10000000000) }}",
    "filter indent": "{{ word | indent(10000000000) }}",
    "filter replace": "{{ (word * 1000) | replace('a', word) }}",
    "filter join": "{{ (word * 100) | list | join(word * 100) }}",
    "filter batch": "{{ [1] | batch(10000000000, 1) | list }}",
    "filter random": "{{ [1, 2] | random }}",
    "filter tojson": "{{ [1] | tojson(indent=10000000000) }}",
    "a huge range": "{{ range(10000000000) }}",
    "lipsum": "{{ lipsum(1000000) }}",
    "recursion": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
    "recursion that branches": (
        "{% macro m(x) %}{% if x %}{{ m(x - 1) }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "the sandbox's edge": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a mapped attribute": "{{ [''] | map(attribute='__class__') | list }}{{ 1 / 0 }}",
    "the globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__globals__.x }}",
    "an include": "{% include 'x' %}",
    "an import": "{% import 'x' as y %}",
    "a wide date": "{{ strftime_now('%1000000000Y') }}",
    "a long date": "{{ strftime_now('%Y' * 100) }}",
    "division by zero": "{{ 1 / 0 }}",
    "a wrong type": "{{ 1 + 'a' }}",
    "something undefined": "{{ nothing.at.all }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_ends_in_one_line_and_soon(source: str) -> None:
    start = time.perf_counter()
    with pytest.raises(TextError) as caught:
        render(source)
    assert time.perf_counter() - start < 15
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_nothing_of_python_is_within_reach_and_the_conversation_is_a_copy() -> None:
    assert render("{{ '' | attr('__class__') }}{{ ''.__class__ }}{{ messages.__class__ }}") == ""
    messages = [{"role": "user", "content": "Hi"}]
    render("{{ messages.append(1) }}{{ messages[0].update({'content': 'x'}) }}", messages=messages)
    assert messages == [{"role": "user", "content": "Hi"}]


BROKEN = {
    "an open tag": "{% if",
    "an unknown tag": "{% frobnicate %}",
    "an unknown filter": "{{ 1 | frobnicate }}",
    "deep brackets": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "deep lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "too long": "a" * (MAX_TEMPLATE_CHARS + 1),
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_template_is_refused_in_one_line(source: str) -> None:
    with pytest.raises(TextError, match="chat template") as caught:
        render(source)
    assert "\n" not in str(caught.value)


COSTLY = {
    "comparing dicts that share": (
        "{% set n = namespace(d={}, e={}) %}{% for i in range(60) %}{% set n.d = dict(a=n.d, b=n.d) %}"
        "{% set n.e = dict(a=n.e, b=n.e) %}{% endfor %}{{ n.d == n.e }}"
    ),
    "hashing lists that share": (
        "{% set n = namespace(d=[1]) %}{% for i in range(60) %}"
        "{% set n.d = [n.d, n.d] %}{% endfor %}{{ [n.d] | unique | list }}"
    ),
    "membership of lists that share": (
        "{% set n = namespace(d=[1], e=[1]) %}{% for i in range(60) %}{% set n.d = [n.d, n.d] %}"
        "{% set n.e = [n.e, n.e] %}{% endfor %}{{ n.d in [n.e] }}"
    ),
    "sorting lists that share": (
        "{% set n = namespace(d=[1], e=[1]) %}{% for i in range(60) %}{% set n.d = [n.d, n.d] %}"
        "{% set n.e = [n.e, n.e] %}{% endfor %}{{ [n.d, n.e] | sort | length }}"
    ),
    "JSON of dicts that share": (
        "{% set n = namespace(d={}) %}{% for i in range(60) %}"
        "{% set n.d = dict(a=n.d, b=n.d) %}{% endfor %}{{ n.d | tojson }}"
    ),
    "titles of a long text": (
        "{% set s = 'a ' * 4000000 %}{% for i in range(9999) %}{% set t = s | title %}{% endfor %}"
    ),
    "splits of a long text": (
        "{% set s = 'a ' * 4000000 %}{% for i in range(9999) %}{% set t = s.split() %}{% endfor %}"
    ),
    "a list of a long text": "{% set s = 'a' * 8000000 %}{% for i in range(9999) %}{% set t = s | list %}{% endfor %}",
    "lists that are kept": (
        "{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l, range(99999) | list] %}{% endfor %}"
    ),
    "texts that are kept": (
        "{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l, 'x' * 8000000 ~ i] %}{% endfor %}"
    ),
    "searching a long text": (
        "{% set s = 'a' * 8000000 %}{% set t = 'a' * 3999999 ~ 'b' %}"
        "{% for i in range(99999) %}{{ t in s }}{% endfor %}"
    ),
}


@pytest.mark.parametrize("source", COSTLY.values(), ids=COSTLY.keys())
def test_one_costly_operation_ends_with_the_process_that_renders_and_holds_nobody_up(source: str) -> None:
    renderer = Renderer(seconds=0.5)
    template = SandboxedTemplate(source, renderer)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        with pytest.raises(TextError, match=r"it takes (longer than|more memory)|ran out of fuel|MemoryError"):
            template.render(VALUES, THE_DAY)
    finally:
        done.set()
        thread.join()
        renderer.stop()
    assert max(b - a for a, b in itertools.pairwise(ticks)) < 0.4  # another thread of this process went on all the time


def test_memory_is_bounded_beside_what_the_conversation_takes() -> None:
    renderer = Renderer(memory_bytes=32 * 2**20)
    template = SandboxedTemplate("{% set x = 'a' * n %}{{ messages[0].content | length }}", renderer)
    large = [{"role": "user", "content": "ä" * 4_000_000}]
    assert template.render({"messages": large, "n": 1}, THE_DAY) == "4000000"
    with pytest.raises(TextError, match="more memory"):
        template.render({"messages": [], "n": 64 * 2**20}, THE_DAY)
    assert template.render({"messages": large, "n": 1}, THE_DAY) == "4000000"
    renderer.stop()


def test_a_renderer_that_is_frozen_or_killed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_GRACE_S", 0.2)
    renderer = Renderer(seconds=0.3)
    template = SandboxedTemplate("{{ word | length }}", renderer)
    frozen = renderer._process
    assert frozen is not None
    frozen.send_signal(signal.SIGSTOP)
    with pytest.raises(TextError, match="longer than"):
        template.render({"word": "abc" * 1_000_000}, THE_DAY)
    assert template.render(VALUES, THE_DAY) == "3000"
    again = renderer._process
    assert again is not None and again.pid != frozen.pid
    again.kill()
    again.wait()
    assert template.render(VALUES, THE_DAY) == "3000"
    renderer.stop()


def test_what_is_rendered_and_what_waits_ends_at_once_when_the_program_does() -> None:
    """SIGTERM is not heard later for the sake of a template that would be ended after minutes."""
    renderer = Renderer(seconds=600.0)
    template = SandboxedTemplate(next(iter(COSTLY.values())), renderer)
    found: list[str] = []

    def render() -> None:
        with pytest.raises(ResourceError) as failed:
            template.render(VALUES, THE_DAY)
        found.append(str(failed.value))

    threads = [threading.Thread(target=render) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert renderer._process is not None
    worker = psutil.Process(renderer._process.pid)
    wait_for(lambda: worker.cpu_times().user > 0.1, "the template to be rendered")
    renderer.interrupt()
    for thread in threads:
        thread.join(60)
    assert found == ["this device is leaving the swarm: nothing is read any more; ask again later"] * 3
    assert SandboxedTemplate("{{ 1 + 1 }}", renderer).render(VALUES, THE_DAY) == "2", "a node that starts anew goes on"
    renderer.stop()


def test_values_that_have_no_json_form_are_refused_in_one_line() -> None:
    with pytest.raises(TextError, match="JSON"):
        render("x", extra=object())


def test_a_template_that_failed_renders_the_next_conversation() -> None:
    template = SandboxedTemplate("{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}done")
    with pytest.raises(TextError, match=r"fuel|longer"):
        template.render({"n": 9999}, THE_DAY)
    assert template.render({"n": 9}, THE_DAY) == "done"


def test_what_a_template_refuses_reaches_the_reader() -> None:
    with pytest.raises(TextError, match="refused the conversation: roles must alternate"):
        render("{{ raise_exception('roles must\nalternate') }}")


ORDINARY = {
    "{% generation %}{{ word | length }}{% endgeneration %}": "3000",
    "{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}": "13",
    "{% for a in [1, 2] %}{% break %}{% endfor %}x": "x",
    "{% for a in [1, 2] %}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.length }}{% endfor %}": (
        "False22True12"
    ),
    "{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% endfor %}": "a1",
    "{% for a in [] %}{% else %}none{% endfor %}": "none",
    "{% for a in nothing %}{% endfor %}x": "x",
    "{{ {'ä': [1, 'b']} | tojson }}": '{"ä": [1, "b"]}',
    "{{ [1] | tojson(indent=2) }}": "[\n  1\n]",
    "{{ strftime_now('%d %b %Y') }}": "26 Jul 2026",
    "{{ 'a-b'.split('-')[::-1] | join('+') }}": "b+a",
    "{{ ' x ' | trim }}{{ 'x'.startswith('x') }}": "xTrue",
    "{{ 'a\nb' | indent(2) }}": "a\n  b",
    "{{ 'a\n\nb' | indent(2, true) }}": "  a\n\n  b",
    "{{ 'abc' | replace('b', 'x') }}{{ 'abc'.replace('b', 'x') }}": "axcaxc",
    "{{ '%s is %d' % ('x', 1) }}": "x is 1",
    "{{ 'a' ~ '%s' % messages[0].role }}{{ '%s' % 'b' }} 'a' % (1)": "auserb 'a' % (1)",
    "{{ none is iterable }}{{ [] is iterable }}{{ 'a' is iterable }}": "FalseTrueTrue",
    "{{ messages | map(attribute='role') | list }}": "['user']",
    "{{ none }}{{ true }}{{ [1, 'a'] }}": "NoneTrue[1, 'a']",
    "{% set a, b = 1, 2 %}{{ a + b }}": "3",
    "    {% if true %}\nx\n    {% endif %}\n": "x\n",
}


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_templates_do_what_jinja_says(source: str) -> None:
    assert render(source) == ORDINARY[source]
