"""The small model of a node: loaded beside what the swarm may use, and it changes no answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError, OutOfMemory
from swarm.node.answer import Question
from swarm.node.node import Node
from tests.helpers.one_node import one_node
from tests.helpers.tiny import make_tiny

PROMPT = tuple(range(4, 30))


async def answered(node: Node, model: str, *, guess: bool = True, **params: object) -> tuple[list[int], int, int]:
    """The ids of an answer, how many of them were guessed, and how many guesses were computed."""
    how = SamplingParams(**{"temperature": 0.8, "seed": 3, **params})  # type: ignore[arg-type]
    answer = await node.ask(Question(model, prompt=PROMPT, params=how, max_tokens=60, guess=guess))
    async for _ in answer.events():
        pass
    return answer.tokens, answer.stats.guessed_tokens, answer.stats.guesses


def test_answers_are_the_same_with_a_small_model_that_guesses(tmp_path: Path) -> None:
    large, other = make_tiny(tmp_path / "large.gguf", "llama"), make_tiny(tmp_path / "small.gguf", "llama", seed=2)

    async def story() -> None:
        async with one_node(tmp_path, memory="100MB") as node:
            model = await node.add_file(large)
            for params in ({}, {"temperature": 0.0}, {"presence_penalty": 0.5}):
                plain, _, n = await answered(node, model, guess=False, **params)
                assert n == 0
                for draft in (large, other):
                    assert await node.draft(draft, model) == draft.name
                    ids, guessed, guesses = await answered(node, model, **params)
                    assert ids == plain and 0 <= guessed <= guesses
                    print(draft.name, params, guessed, guesses)

    asyncio.run(story())


def test_its_memory_is_not_the_swarms_any_more(tmp_path: Path) -> None:
    large = make_tiny(tmp_path / "large.gguf", "llama")

    async def story() -> None:
        async with one_node(tmp_path, memory="100MB") as node:
            model = await node.add_file(large)

            def memory() -> tuple[int, int]:
                return node._driver.read(lambda core: (core.capabilities.memory_bytes, core.ledger.total_bytes))

            whole = memory()
            await node.draft(large, model)
            less = memory()
            assert less[0] == less[1] < whole[0] == whole[1]
            await node.draft(large, model)
            assert memory() == less, "the same one is not loaded again"
            node._driver.act(lambda core, now: core.set_aside(0, now))
            assert memory() == whole

    asyncio.run(story())


def test_what_cannot_guess_is_refused_and_takes_nothing(tmp_path: Path) -> None:
    large = make_tiny(tmp_path / "large.gguf", "llama")
    other = tmp_path / "other.gguf"
    other.write_bytes(large.read_bytes().replace(b"<|user|>", b"<|uber|>"))

    async def story(**settings: object) -> str:
        async with one_node(tmp_path, **settings) as node:
            model = await node.add_file(large)
            before = node._driver.read(lambda core: core.ledger.total_bytes)
            with pytest.raises((ConfigError, OutOfMemory)) as caught:
                await node.draft(other if not settings.get("guess") and settings["memory"] == "100MB" else large, model)
            assert node._driver.read(lambda core: core.ledger.total_bytes) == before
            assert not node.drafts.serves(await node.find(model))
        return str(caught.value)

    assert "another vocabulary" in asyncio.run(story(memory="100MB"))
    assert "guesses are off" in asyncio.run(story(memory="100MB", guess="never"))
    assert "not free on this device" in asyncio.run(story(memory="1kB"))


def test_the_one_of_the_settings_is_there_from_the_start_for_those_that_it_fits(tmp_path: Path) -> None:
    large = make_tiny(tmp_path / "large.gguf", "llama")
    other = tmp_path / "other.gguf"
    other.write_bytes(large.read_bytes().replace(b"<|user|>", b"<|uber|>"))

    async def story() -> list[bool]:
        async with one_node(tmp_path, memory="100MB", draft=str(large)) as node:
            return [node.drafts.serves(await node.find(await node.add_file(path))) for path in (large, other)]

    assert asyncio.run(story()) == [True, False]
