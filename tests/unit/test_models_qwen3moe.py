"""qwen3moe: the width of an expert, also where a file gives only that of all of a token."""

from __future__ import annotations

from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_qwen3moe_takes_the_width_of_all_experts_of_a_token_where_that_of_one_is_missing() -> None:
    tiny = TINY["qwen3moe"]
    spec = declared(tiny, without=("expert_feed_forward_length",), feed_forward_length=3 * 32)
    assert spec.layers[0].moe == declared(tiny).layers[0].moe
