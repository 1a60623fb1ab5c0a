"""qwen3: each head of queries and keys is normed."""

from __future__ import annotations

import pytest

from swarm.errors import BadModelFile
from swarm.models import Role, spec_from_gguf
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY, gguf_metadata, tensor_table


def test_norms_of_query_and_key_are_as_wide_as_a_head() -> None:
    spec = declared(TINY["qwen3"])
    assert spec.qk_norm and not spec.qkv_bias
    for role in (Role.Q_NORM, Role.K_NORM):
        assert spec.layers[0].tensors[role].n_rows == spec.head_dim


@pytest.mark.parametrize("name", ["attn_q_norm", "attn_k_norm"])
def test_a_file_without_one_of_them_is_not_complete(name: str) -> None:
    tiny = TINY["qwen3"]
    table = {key: entry for key, entry in tensor_table(tiny).items() if key != f"blk.1.{name}.weight"}
    with pytest.raises(BadModelFile, match=rf"blk\.1\.{name}\.weight is missing"):
        spec_from_gguf(gguf_metadata(tiny), table)
