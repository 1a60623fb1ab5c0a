"""Every kind of broken model file gives one line that names what is wrong."""

from __future__ import annotations

import pytest

from swarm.store.gguf_header import parse_header
from tests.helpers.broken_files import BROKEN, Broken, line_about
from tests.helpers.gguf_bytes import File


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.kind for broken in BROKEN])
def test_a_broken_file_gives_one_line_that_says_so(broken: Broken, tmp_path) -> None:
    line = line_about(broken.make(tmp_path))
    assert broken.says in line
    assert len(line.splitlines()) == 1 and len(line) < 400 + len(str(tmp_path))


def test_the_file_they_are_made_from_is_a_good_one() -> None:
    assert [tensor.name for tensor in parse_header(File().build(), "good").tensors] == ["a", "b"]
