"""Who brings what of a model; tests/swarm has devices that do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm.config import HubSettings
from swarm.errors import DownloadError
from swarm.models.registry import spec_from_gguf
from swarm.node.house import _before, shares_of
from swarm.parts import parts_of
from swarm.store.gguf import open_gguf
from swarm.wire.ids import PeerId
from tests.helpers.one_node import one_node
from tests.helpers.pulls import plan_of
from tests.helpers.tiny import make_tiny

A, B, ME = PeerId("a" * 32), PeerId("b" * 32), PeerId("c" * 32)


def test_every_unit_has_one_device_and_what_is_of_no_part_is_ours(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "air.gguf", "air-wide", "Q8_0")  # with a block that predicts a further token
    plan = plan_of(path)
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
    half = spec.n_layers // 2
    holders = {A: list(parts_of(0, half, spec.n_layers)), B: list(parts_of(half, spec.n_layers, spec.n_layers))}
    shares = shares_of(plan, spec, holders, ME)
    everything = sorted(unit for units in shares.values() for unit in units)
    assert everything == list(range(len(plan.units)))
    assert all(shares.values())
    layer_of = {unit: plan.manifest.tensor_of(plan.units[unit].chunks.start) for unit in everything}
    assert {layer_of[unit].name.split(".")[1] for unit in shares[ME]} == {str(spec.n_layers)}  # type: ignore[union-attr]
    assert "token_embd.weight" in {layer_of[unit].name for unit in shares[A]}  # type: ignore[union-attr]


def test_a_head_that_is_the_embedding_is_brought_by_one_of_the_two_that_need_it(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tied.gguf", "llama-tied", "Q8_0")
    plan = plan_of(path)
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
    holders = {A: list(parts_of(0, 1, spec.n_layers)), B: list(parts_of(1, spec.n_layers, spec.n_layers))}
    shares = shares_of(plan, spec, holders, A)
    assert sorted(shares[A] + shares[B]) == list(range(len(plan.units)))


def test_what_lies_before_a_tensor_is_the_header_then_zeros() -> None:
    assert _before(b"header", 0, 8) == b"header\0\0"
    assert _before(b"header", 0, 4) == b"head"
    assert _before(b"header", 10, 12) == b"\0\0"
    assert _before(b"header", 12, 12) == b""


def test_one_device_alone_is_enough_for_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as node:
            assert await node.house.start("u/r", HubSettings()) == {"alone": True}
            assert await node.house.start("https://example.org/x.gguf", HubSettings()) == {"alone": True}
            with pytest.raises(DownloadError, match="pull again, it goes on"):
                node.house.progress("0" * 64)

    asyncio.run(scenario())
