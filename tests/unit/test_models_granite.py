"""granite: four scales, of which a file may leave out any; a switch for rope; keys of states that no layer has."""

from __future__ import annotations

from swarm.models.spec import Scales
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_logits_are_divided_and_the_rest_is_multiplied() -> None:
    spec = declared(TINY["granite"])
    assert spec.scales == Scales(embedding=12.0, residual=0.22, logits=1 / 8)
    assert spec.attention_scale == 0.05


def test_a_scale_that_is_absent_or_zero_is_one() -> None:
    names = ("embedding_scale", "residual_scale", "logit_scale")
    plain = declared(TINY["granite"], without=(*names, "attention.scale"))
    assert plain.scales == Scales() and plain.attention_scale == 32**-0.5
    assert declared(TINY["granite"], **dict.fromkeys(names, 0.0), attention__scale=0.0) == plain


def test_a_file_may_say_that_no_layer_is_rotated() -> None:
    spec = declared(TINY["granite"], rope__scaling__finetuned=False)
    assert not any(layer.rotated for layer in spec.layers)
    assert declared(TINY["granite"], rope__scaling__finetuned=True) == declared(TINY["granite"])


def test_widths_of_states_that_no_layer_has_change_nothing() -> None:
    assert declared(TINY["granite"], ssm__conv_kernel=4, ssm__state_size=128) == declared(TINY["granite"])


def test_the_shared_expert_is_known_by_its_width() -> None:
    assert [declared(TINY[name]).layers[0].moe.shared_ffn for name in ("granitemoe", "granitemoe-shared")] == [0, 32]  # type: ignore[union-attr]
