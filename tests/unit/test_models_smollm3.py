"""smollm3: every fourth layer does without rope."""

from __future__ import annotations

from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_the_fourth_layer_and_each_fourth_after_it_are_not_rotated() -> None:
    assert [layer.rotated for layer in declared(TINY["smollm3"]).layers] == [True, True, True, False, True]
    assert all(layer.rotated for layer in declared(TINY["llama"]).layers)
