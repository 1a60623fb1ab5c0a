"""Where a text says that a model lies."""

from __future__ import annotations

import pytest

from swarm.errors import ModelNotFound
from swarm.store.hub_names import HubName, WebAddress, hub_or_web, is_quant


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("u/Repo-GGUF", HubName("u", "Repo-GGUF")),
        ("u/Repo-GGUF:Q4_K_M", HubName("u", "Repo-GGUF", "Q4_K_M")),
        ("u/Repo-GGUF@q4_k_m", HubName("u", "Repo-GGUF", "q4_k_m")),
        ("u/Repo-GGUF:latest", HubName("u", "Repo-GGUF")),
        ("u/Repo-GGUF:Some-Name.gguf", HubName("u", "Repo-GGUF", file="Some-Name.gguf")),
        ("hf.co/u/r", HubName("u", "r")),
        ("HF.co/u/r:Q8_0", HubName("u", "r", "Q8_0")),
        ("huggingface.co/u/r:UD-Q4_K_XL", HubName("u", "r", "UD-Q4_K_XL")),
        ("hf://u/r", HubName("u", "r")),
        ("https://huggingface.co/u/r", HubName("u", "r")),
        ("https://huggingface.co/u/r/", HubName("u", "r")),
        ("https://huggingface.co/u/r/tree/main", HubName("u", "r", revision="main")),
        ("https://huggingface.co/u/r/tree/main/Q4_K_M", HubName("u", "r", "Q4_K_M", revision="main")),
        ("https://huggingface.co/u/r/blob/main/a%20b.gguf", HubName("u", "r", file="a b.gguf", revision="main")),
        (
            "https://hf.co/u/r/resolve/abc/BF16/x-00001-of-00002.gguf?download=true",
            HubName("u", "r", file="BF16/x-00001-of-00002.gguf", revision="abc"),
        ),
        ("hf.co/u/r/x.gguf", HubName("u", "r", file="x.gguf")),
        ("http://mirror.home/hf/u/r:Q4_0", HubName("u", "r", "Q4_0")),
    ],
)
def test_all_the_ways_to_write_a_repository_are_one(text: str, name: HubName) -> None:
    assert hub_or_web(text, "http://mirror.home/hf") == name


def test_an_address_of_a_gguf_file_is_one() -> None:
    found = hub_or_web("https://example.org/a/My%20Model.gguf?x=1")
    assert found == WebAddress("https://example.org/a/My%20Model.gguf?x=1")
    assert isinstance(found, WebAddress) and found.file_name == "My Model.gguf"


@pytest.mark.parametrize(
    "text", ["glm-4-9b", "qwen3:8b", "a/b/c", "models/x.gguf", "/a/b", "./a/b", "~/a", "a b/c", ""]
)
def test_other_texts_are_neither(text: str) -> None:
    assert hub_or_web(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://example.org/page.html", "is not the address of a GGUF file"),
        ("hf.co/only-one", "is no repository of the hub; write hf.co/USER/REPO"),
        ("https://huggingface.co/u/r/tree/main/some/folder", "names no GGUF file of u/r"),
        ("ftp://example.org/x.gguf", "an address of a kind that Swarm does not know"),
    ],
)
def test_an_address_that_can_be_no_model_says_so(text: str, says: str) -> None:
    with pytest.raises(ModelNotFound, match=says):
        hub_or_web(text)


def test_words_that_are_quants_are_told_from_others() -> None:
    yes = ("Q4_K_M", "q8_0", "IQ3_XXS", "UD-Q4_K_XL", "bf16", "F16", "MXFP4", "TQ1_0", "Q6_K_L")
    assert all(map(is_quant, yes))
    assert not any(map(is_quant, ("8b", "latest", "30b-a3b", "q", "instruct", "")))
