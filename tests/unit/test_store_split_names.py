"""Names of split models."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import BadModelFile
from swarm.store.split_names import is_split, split_paths


def test_any_file_of_a_split_model_leads_to_all_of_them() -> None:
    names = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert [path.name for path in split_paths(Path("/models/m-00002-of-00003.gguf"))] == names


def test_another_name_is_that_of_a_whole_model() -> None:
    path = Path("/models/m-2-of-3.gguf")
    assert split_paths(path) == [path] and not is_split(path)


@pytest.mark.parametrize("name", ["m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-00001-of-99999.gguf"])
def test_a_number_that_no_file_of_a_model_has_is_refused(name: str) -> None:
    with pytest.raises(BadModelFile, match="the name says file"):
        split_paths(Path(name))
