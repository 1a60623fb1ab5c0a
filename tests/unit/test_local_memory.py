"""What of a mixture lies in memory: everything where it fits, else experts in what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import OutOfMemory
from swarm.local import memory
from swarm.local.memory import MemoryPlan, memory_plan
from swarm.models import spec_from_gguf
from swarm.models.sizes import kv_bytes_per_token, model_sizes
from swarm.models.spec import ModelSpec
from swarm.store.gguf import open_gguf
from tests.helpers import mixtures


@pytest.fixture(autouse=True)
def no_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of a model of a test are larger than the model."""
    monkeypatch.setattr(memory, "SPARE_BYTES", 0)
    monkeypatch.setattr(memory, "buffer_bytes", lambda spec, n_tokens=0: 1000)


def plan(path: Path, free_bytes: int, context: int = 0) -> MemoryPlan:
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        return memory_plan(spec, model.tensors, wanted_context=context, kv="f16", free_bytes=free_bytes)


def sizes(path: Path) -> tuple[int, int, ModelSpec]:
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        return model_sizes(spec, model.tensors).total, kv_bytes_per_token(spec), spec


def test_a_model_that_fits_is_in_memory(tmp_path: Path) -> None:
    made = plan(mixtures.write_mixture(tmp_path), 10**9)
    assert (made.n_slots, made.resident_share) == (0, 1.0)


def test_experts_get_what_the_rest_leaves(tmp_path: Path) -> None:
    path = mixtures.write_mixture(tmp_path)
    total, kv_token, spec = sizes(path)
    made = plan(path, total, context=64)
    assert 0 < made.n_slots < made.n_experts == 2 * mixtures.N_EXPERTS
    used = made.fixed_bytes + 64 * kv_token + 1000 + made.n_slots * made.slot_bytes
    assert total - made.slot_bytes < used <= total
    assert made.fixed_bytes < total - made.n_experts * made.slot_bytes * 0.9
    assert made.resident_share == made.n_slots / made.n_experts
    assert spec.n_layers == 3


def test_with_less_than_the_least_it_says_what_that_is(tmp_path: Path) -> None:
    path = mixtures.write_mixture(tmp_path)
    total, _, _ = sizes(path)
    least = plan(path, total, context=64).min_bytes
    assert plan(path, least, context=64).n_slots == mixtures.MIN_SLOTS
    with pytest.raises(OutOfMemory, match=r"with its experts on disk the model runs, slowly, from .* on"):
        plan(path, least - 1, context=64)


def test_a_context_that_nobody_asked_for_leaves_room_for_experts(tmp_path: Path) -> None:
    path = mixtures.write_mixture(tmp_path)
    total, _, spec = sizes(path)
    made = plan(path, total)
    assert made.context <= spec.context_length
    assert made.min_bytes <= total


def test_a_long_prompt_has_room_for_its_hidden_states_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mixtures.write_mixture(tmp_path)
    total, kv_token, spec = sizes(path)
    short = plan(path, total, context=32)
    monkeypatch.setattr(memory, "PREFILL_BATCH", 8)
    made = plan(path, total, context=32)
    assert short.held_tokens == 0, "one batch holds all of it"
    assert 8 < made.held_tokens <= 32 and made.n_slots <= short.n_slots
    held = made.held_tokens * 4 * spec.hidden
    assert made.fixed_bytes + 32 * kv_token + 1000 + held + made.n_slots * made.slot_bytes <= total
    least = made.min_bytes
    assert plan(path, least, context=32).held_tokens == 0, "where there is no room it goes batch by batch"
    monkeypatch.setattr(memory, "HELD_TOKENS", 10)
    assert plan(path, total, context=32).held_tokens == 10
