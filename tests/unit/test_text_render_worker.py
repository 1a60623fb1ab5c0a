"""The process that renders, without the process: what it changes in a template, and what it keeps."""

from __future__ import annotations

from datetime import datetime

import pytest

from swarm.text import render_worker
from swarm.text.render_worker import MAX_TEMPLATES, Worker, date, in_minijinja, to_json


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("{% generation %}", "{% if true %}"),
        ("{%- endgeneration -%}", "{%- endif -%}"),
        ("{{ '%s' % x.y[0] }}", "{{ '%s'|format(x.y[0]) }}"),
        ("{{ '%s' % x[0].y ~ z }}", "{{ '%s'|format(x[0].y) ~ z }}"),
        ("{{ '%s %s' % (a, b) }}", "{{ '%s %s'|format(a, b) }}"),
        ("{{ '%d' % 3 }}", "{{ '%d'|format(3) }}"),
        ("{{ 7 % 3 }}", "{{ 7 % 3 }}"),
        ("{{ 'a % (b' }}", "{{ 'a % (b' }}"),
    ],
)
def test_what_minijinja_lacks_is_said_in_its_words(tag: str, expected: str) -> None:
    assert in_minijinja(tag) == expected


def test_text_outside_of_tags_stays_as_it_is() -> None:
    env = render_worker.environment("'%s' % (x) {{ '%s' % (1) }}", 1000)
    assert env.render_template("template") == "'%s' % (x) 1"


def test_json_is_that_of_transformers() -> None:
    assert to_json({"b": "<ä'>", "a": None}) == '{"b": "<ä\'>", "a": null}'


def test_a_date_is_written_and_marks_of_the_conversation_are_left_out() -> None:
    assert date(datetime(2026, 7, 26), "%d\ufdd0 %b") == "26 Jul"
    with pytest.raises(ValueError, match="format"):
        date(datetime(2026, 7, 26), "%1000Y")


def test_few_compiled_templates_are_kept_and_the_last_used_longest() -> None:
    worker = Worker(1000, 5.0, 2**20)
    for i in range(MAX_TEMPLATES + 3):
        worker._answer({"source": f"{i}"})
        worker._answer({"source": "first"})
    assert len(worker._templates) == MAX_TEMPLATES
    assert list(worker._templates)[-1] == "first"
