"""What a file is, told by its metadata: kinds that are no model are called by their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swarm.architectures import ARCHITECTURES, architecture, nearest
from swarm.errors import UnsupportedModel, UnsupportedQuant
from swarm.store.gguf import open_gguf
from tests.helpers.gguf_bytes import STRING, File, pair, string, tensor

KINDS: list[tuple[dict[str, Any], str]] = [
    ({"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}, "merge it into its base"),
    ({"general.type": "mmproj", "general.architecture": "clip"}, "sees or hears; give the model itself"),
    ({"general.architecture": "clip", "clip.has_vision_encoder": True}, "sees or hears; give the model itself"),
    ({"general.type": "imatrix", "imatrix.chunk_count": 7}, "importance matrix"),
    ({"imatrix.chunk_count": 7}, "importance matrix"),
    ({"general.type": "vocab", "general.architecture": "llama"}, "a vocabulary without a model"),
    ({"general.architecture": "controlvector"}, "a control vector"),
]


@pytest.mark.parametrize(("metadata", "message"), KINDS)
def test_a_file_that_is_no_model_is_called_by_its_name(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"^it is ") as error:
        architecture(metadata)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["model", "", None])
def test_a_model_of_each_architecture_is_one(arch: str, kind: str | None) -> None:
    metadata: dict[str, Any] = {"general.architecture": arch}
    assert architecture(metadata if kind is None else {**metadata, "general.type": kind}) == arch


@pytest.mark.parametrize(("arch", "error"), [("gemma4", UnsupportedModel), ("llama", UnsupportedQuant)])
def test_the_architecture_is_looked_at_before_the_types_of_tensors(arch: str, error: type, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    of_tomorrow = tensor("blk.0.ffn_down_exps.weight", (32, 2), 1000, 0)
    path.write_bytes(File([pair("general.architecture", STRING, string(arch))], [of_tomorrow]).build())
    with pytest.raises(error, match=arch if error is UnsupportedModel else "unknown type 1000"):
        open_gguf(path)


@pytest.mark.parametrize(
    ("arch", "near"),
    [
        ("qwen35moe", ("qwen2", "qwen3", "qwen3moe")),
        ("glm-dsa", ("chatglm", "glm4", "glm4moe")),
        ("granitehybrid", ("granite", "granitemoe")),
        ("llama4", ("llama",)),
        ("gemma4", ()),
    ],
)
def test_a_refusal_says_what_of_the_same_makers_runs(arch: str, near: tuple[str, ...]) -> None:
    assert nearest(arch) == near
    with pytest.raises(UnsupportedModel) as error:
        architecture({"general.architecture": arch})
    hint = "; nearest to it, " + " and ".join(near)
    assert str(error.value).endswith(hint if near else ARCHITECTURES[-1])
