"""Tables in pages are put where their comments say, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.pages import put_table


def test_a_table_replaces_what_stands_between_its_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\n<!-- /x -->\nb\n<!-- y -->\nold\n<!-- /y -->\n")
    for table in ("| 1 |\n| 2 |", r"| \1 |"):
        put_table(page, "x", table)
        assert page.read_text() == f"a\n<!-- x -->\n{table}\n<!-- /x -->\nb\n<!-- y -->\nold\n<!-- /y -->\n"


def test_a_page_without_a_place_is_not_touched(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n")
    with pytest.raises(AssertionError, match=r"page.md has 0 places for x"):
        put_table(page, "x", "| 1 |")
    assert page.read_text() == "a\n"
