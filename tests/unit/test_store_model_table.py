"""The table of models and what its names mean."""

from __future__ import annotations

import re

import pytest

from swarm.errors import ModelNotFound, UnsupportedModel
from swarm.store import model_table
from swarm.store.hub_names import HubName
from swarm.store.model_table import NAMES, TABLE, NamedModel, TableModel, named_model, refuse_unless_run


def meaning(text: str) -> str:
    found = named_model(text)
    return str(found) if found else ""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_its_makers_repository_mean_the_row(name: str) -> None:
    row = next(row for row in TABLE if row.name == name)
    for text in (name, name.upper(), row.original, f"{name}:Q4_K_M"):
        found = named_model(text)
        assert found is not None and found.row is row, text


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_is_complete(row: TableModel) -> None:
    assert row.repositories and row.checked and row.licence and row.q4_bytes > 10**7 and row.context >= 4096
    for repository in (row.original, *row.repositories):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)


def test_names_are_said_once() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    "text", ["qwen3:8b", "Qwen3-8B", "qwen3_8b", "Qwen/Qwen3-8B", "Qwen3-8B-GGUF", "qwen 3 8b", "qwen-3-8b", "qwen3"]
)
def test_habits_of_other_programs_meet_in_one_row(text: str) -> None:
    assert meaning(text) == "qwen3-8b"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("qwen3_8b_q40", "qwen3-8b:Q40"),
        ("llama3.1:8b-instruct-q4_K_M", "llama-3.1-8b:Q4_K_M"),
        ("Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("glm-z1-9b:iq4_xs", "glm-z1-9b:IQ4_XS"),
        ("glm-4-9b@q8_0", "glm-4-9b:Q8_0"),
        ("THUDM_GLM-4-9B-0414-Q4_K_M", "glm-4-9b:Q4_K_M"),
        ("GLM-4-9B-0414", "glm-4-9b"),
        ("qwen3-4b-instruct-2507", "qwen3-4b-2507"),
        ("deepseek-r1:7b", "r1-distill-qwen-7b"),
        ("SmolLM2-135M-Instruct.Q4_1", "smollm2-135m:Q4_1"),
    ],
)
def test_versions_quants_and_publishers_are_told_apart(text: str, name: str) -> None:
    assert meaning(text) == name


@pytest.mark.parametrize("text", ["", "gpt2", "qwen3-8b-something", "8b", "q4_0"])
def test_other_names_mean_nothing(text: str) -> None:
    assert named_model(text) is None


def test_a_name_that_several_have_says_which_with_their_sizes() -> None:
    with pytest.raises(ModelNotFound) as caught:
        named_model("glm4:9b")
    text = str(caught.value)
    assert "glm-4-9b (5.74 GiB as Q4_K_M)" in text and "glm-4-9b-chat (5.82 GiB" in text and "say which one" in text
    with pytest.raises(ModelNotFound, match="glm-4-32b"):
        named_model("glm-4")
    with pytest.raises(ModelNotFound, match=r"qwen3-30b-a3b \(.* qwen3-30b-a3b-2507 .* or qwen3-30b-a3b-thinking-2507"):
        named_model("qwen3:30b")


def test_a_model_of_a_kind_that_does_not_run_is_refused_with_the_nearest_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_table, "ARCHITECTURES", ("llama", "glm4"))
    named = named_model("glm-4.7-flash")
    assert named is not None
    with pytest.raises(
        UnsupportedModel, match=r"glm-4.7-flash is a deepseek2 model.* the nearest that runs is glm-4-32b"
    ):
        refuse_unless_run(named)
    monkeypatch.setattr(model_table, "ARCHITECTURES", ("deepseek2",))
    refuse_unless_run(named)


def test_a_quant_is_asked_of_each_repository() -> None:
    named = named_model("qwen3-1.7b:Q6_K")
    assert isinstance(named, NamedModel)
    assert named.repositories[0] == HubName("unsloth", "Qwen3-1.7B-GGUF", "Q6_K")
