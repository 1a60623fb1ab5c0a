"""What a shard needs of a model."""

from __future__ import annotations

from swarm.models import Role, tensors_needed
from swarm.models.spec import OUTSIDE_LAYERS
from swarm.parts import EMBED, LM_HEAD, Part
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_shard_of_middle_layers_needs_only_those() -> None:
    needs = tensors_needed(declared(TINY["air"]), [Part(1)])
    assert {need.layer for need in needs} == {1}
    assert next(n for n in needs if n.role is Role.EXPERT_DOWN)[3:] == (64, 32, 8)
    assert next(n for n in needs if n.role is Role.Q_BIAS)[3:] == (128, 1, 1)


def test_shard_with_both_ends_of_a_tied_model_lists_the_embedding_twice() -> None:
    needs = tensors_needed(declared(TINY["llama-tied"]), [EMBED, LM_HEAD])
    assert [(n.role, n.layer, n.ref.name) for n in needs] == [
        (Role.EMBED, OUTSIDE_LAYERS, "token_embd.weight"),
        (Role.OUTPUT_NORM, OUTSIDE_LAYERS, "output_norm.weight"),
        (Role.LM_HEAD, OUTSIDE_LAYERS, "token_embd.weight"),
    ]


def test_any_shard_with_layers_needs_the_rope_divisors() -> None:
    spec = declared(TINY["llama"])
    assert Role.ROPE_FREQS in {n.role for n in tensors_needed(spec, [Part(2)])}
    assert Role.ROPE_FREQS not in {n.role for n in tensors_needed(spec, [EMBED, LM_HEAD])}
