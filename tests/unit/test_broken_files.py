"""Every kind of broken model file gives one line that names what is wrong."""

from __future__ import annotations

import pytest

from swarm.errors import ModelError
from swarm.store.gguf import open_gguf
from swarm.store.gguf_header import parse_header
from tests.helpers.broken_files import BROKEN, Broken
from tests.helpers.gguf_bytes import File


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.kind for broken in BROKEN])
def test_a_broken_file_gives_one_line_that_says_so(broken: Broken, tmp_path) -> None:
    path = broken.make(tmp_path)
    with pytest.raises(ModelError) as caught:
        open_gguf(path)
    line = str(caught.value)
    assert broken.says in line and str(tmp_path) in line
    assert len(line.splitlines()) == 1 and len(line) < 400 + len(str(tmp_path))


def test_the_file_they_are_made_from_is_a_good_one() -> None:
    assert [tensor.name for tensor in parse_header(File().build(), "good").tensors] == ["a", "b"]
