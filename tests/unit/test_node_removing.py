"""Deleting a model from a node; tests/swarm deletes it from several."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm.errors import ModelNotFound
from tests.helpers.one_node import one_node
from tests.helpers.tiny import make_tiny


def test_a_model_is_gone_from_the_store_and_the_list_but_its_file_stays(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "llama", "Q8_0")

    async def scenario() -> None:
        async with one_node(tmp_path) as node:
            model = await node.add_file(path)
            assert node.files()["files"] == {model: str(path)}
            assert (await node.verify(""))["models"][0]["wrong"] == 0  # type: ignore[index]
            assert await node.remove("", str(path), everywhere=False) == {"bytes": 0, "devices": [], "refused": {}}
            assert node.library.entries() == [] and node.store.model(model) is None
            assert not (node.store.root / "models" / model).exists()
            with pytest.raises(ModelNotFound, match="no device here has a model called 'tiny-llama'"):
                await node.remove("tiny-llama", "", everywhere=False)
            assert await node.add_file(path) == model, "it may be offered again"

    asyncio.run(scenario())
    assert path.exists()
