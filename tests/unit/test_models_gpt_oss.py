"""gpt-oss: windows in every other layer, sinks, biases of everything, and a blend of yarn between pairs."""

from __future__ import annotations

import pytest

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models.spec import Role, Swiglu
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_every_other_layer_sees_a_window_beginning_with_the_first() -> None:
    assert [layer.window for layer in declared(TINY["gpt-oss"]).layers] == [20, 0, 20, 0]


def test_experts_have_biases_a_row_for_each_and_a_clamped_gate() -> None:
    layer = declared(TINY["gpt-oss"]).layers[0]
    assert layer.moe is not None and layer.moe.swiglu == Swiglu(1.702, 7.0)
    gate, down = layer.tensors[Role.EXPERT_GATE_BIAS], layer.tensors[Role.EXPERT_DOWN_BIAS]
    assert (gate.n_rows, len(gate.columns), len(down.columns)) == (8, 32, 64)
    assert layer.tensors[Role.SINKS].n_rows == 4


def test_the_blend_of_yarn_begins_between_pairs() -> None:
    scaling = declared(TINY["gpt-oss"]).rope.scaling
    assert scaling is not None and not scaling.whole_pairs and scaling.factor == 32


def test_a_file_without_a_window_is_not_complete() -> None:
    with pytest.raises(BadModelFile, match=r"gpt-oss\.attention\.sliding_window is missing"):
        declared(TINY["gpt-oss"], without=("attention.sliding_window",))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.freq_base_swa", 10000.0),
        ("attention.key_length_swa", 64),
        ("attention.sliding_window_pattern", [True, True, False]),
        ("expert_gating_func", 2),
    ],
)
def test_other_windows_and_gates_are_refused(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModel, match=f"gpt-oss.{key}"):
        declared(TINY["gpt-oss"], **{key.replace(".", "__"): value})


def test_what_llama_cpp_takes_for_granted_may_be_said() -> None:
    said = {"rope__freq_base_swa": 150000.0, "attention__key_length_swa": 32, "expert_gating_func": 3}
    assert declared(TINY["gpt-oss"], **said) == declared(TINY["gpt-oss"])
