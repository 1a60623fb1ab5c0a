"""Hostile templates: each ends in one clear error, soon, and without filling the memory."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from swarm.errors import TextError
from swarm.limits import MAX_TEMPLATE_CHARS
from swarm.text.sandbox import SandboxedTemplate

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
    "nesting a list": "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
    "nesting a dict": "{% set n = namespace(x=1) %}{% for a in range(99) %}{% set n.x = {1: n.x, 2: n.x}%}{% endfor %}",
    "nesting a tuple": "{% set n = namespace(x=1) %}{% for a in range(99) %}{% set n.x = (n.x, n.x) %}{% endfor %}",
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
    "an attribute filter": "{{ '' | attr('__class__') }}",
    "a mapped attribute": "{{ [''] | map(attribute='__class__') | list }}{{ 1 / 0 }}",
    "the globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__globals__.x }}",
    "a change of its input": "{{ messages.append(1) }}",
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


def test_a_slow_template_is_stopped_by_the_clock() -> None:
    clock = iter(range(10**9))
    template = SandboxedTemplate("{% for a in range(99999) %}{% endfor %}", clock=lambda: float(next(clock)))
    with pytest.raises(TextError, match="longer than"):
        template.render(VALUES, THE_DAY)


def test_a_template_that_failed_renders_the_next_conversation() -> None:
    template = SandboxedTemplate("{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}done")
    with pytest.raises(TextError, match="steps"):
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
    "{{ messages | map(attribute='role') | list }}": "['user']",
    "{{ none }}{{ true }}{{ [1, 'a'] }}": "NoneTrue[1, 'a']",
    "{% set a, b = 1, 2 %}{{ a + b }}": "3",
    "    {% if true %}\nx\n    {% endif %}\n": "x\n",
}


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_templates_do_what_jinja_says(source: str) -> None:
    assert render(source) == ORDINARY[source]
