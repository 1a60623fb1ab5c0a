"""glm4: what its files leave out, and what its norms are."""

from __future__ import annotations

from swarm.models import Role
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_post_attention_norm_means_another_norm_in_glm4_than_in_glm4moe() -> None:
    glm4, air = declared(TINY["glm4"]).layers[0].tensors, declared(TINY["air"]).layers[0].tensors
    assert glm4[Role.ATTN_POST_NORM].name == air[Role.FFN_NORM].name == "blk.0.post_attention_norm.weight"
    assert glm4[Role.FFN_NORM].name == "blk.0.ffn_norm.weight"


def test_glm_rotates_half_of_a_head_when_the_file_does_not_say() -> None:
    assert declared(TINY["glm4"], without=("rope.dimension_count",)).rope.dims == 16
    assert declared(TINY["llama"], without=("rope.dimension_count",)).rope.dims == 32


def test_a_model_that_sees_has_its_rows_in_the_order_of_halves() -> None:
    assert declared(TINY["glm4v"]).rope.style == "half"
    assert declared(TINY["glm4"], rope__dimension_sections=[0, 0, 0, 0]).rope.style == "pair"
