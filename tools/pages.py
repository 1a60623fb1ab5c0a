"""Tables in pages, between two comments: made by a tool, put in their place."""

from __future__ import annotations

import re
from pathlib import Path


def put_table(page: Path, name: str, table: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text, n = mark.subn(lambda found: f"{found[1]}{table}\n{found[2]}", page.read_text(encoding="utf-8"))
    assert n == 1, f"{page.name} has {n} places for {name}"
    page.write_text(text, encoding="utf-8")
