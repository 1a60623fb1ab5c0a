"""What a model's own block says on the device of its last stage: it changes no answer, whatever became of it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm.cluster.effects import Compute, DropKv, OpenKv, SessionRows, StepOutput, Unload
from swarm.engine.sampling import SamplingParams
from swarm.engine.weights import load_weights
from swarm.errors import ConfigError
from swarm.models.registry import mtp_from_gguf, spec_from_gguf
from swarm.node.answer import Question
from swarm.node.compute import ComputeWorker, Done
from swarm.node.node import Node
from swarm.parts import EMBED, MTP, Part, all_parts
from swarm.store.gguf import open_gguf
from swarm.wire.ids import ModelId, SessionId
from swarm.wire.records import Sampling
from tests.helpers.counting import after, make_counting
from tests.helpers.one_node import one_node
from tests.helpers.tiny import make_tiny

MODEL = ModelId("1" * 64)
A, B = (SessionId(c * 32) for c in "ab")
CONTEXT = 96
PROMPT = tuple(int(i) for i in np.random.default_rng(1).integers(4, 250, 20))
WAYS = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(temperature=0.9, seed=4, presence_penalty=0.5)}


class Worker:
    """A worker with all layers of a model and its block."""

    def __init__(self, path: Path) -> None:
        self.done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self.worker = ComputeWorker(lambda function, *args: function(*args), self.done.put, threads=1)
        with open_gguf(path) as file:
            spec, mtp = spec_from_gguf(file.metadata, file.tensors), mtp_from_gguf(file.metadata, file.tensors)
            assert mtp is not None
            self.n_layers = spec.n_layers
            for part in all_parts(spec.n_layers):
                self.worker.install(MODEL, spec, part, load_weights(file, spec, [part]))
            self.worker.install(MODEL, mtp.spec, MTP, load_weights(file, mtp.spec, [Part(0)]))

    def open(self, session: SessionId = A, keep: int = 0, *, mtp: bool = True, **more: object) -> None:
        opened = OpenKv(session, MODEL, 0, self.n_layers, CONTEXT, keep, mtp=mtp, **more)  # type: ignore[arg-type]
        self.worker.put(opened)

    def step(self, position: int, *ids: int, session: SessionId = A, **more: object) -> StepOutput:
        rows = SessionRows(session, position, ids, more.pop("sample", True), **more)  # type: ignore[arg-type]
        self.worker.put(Compute(1, MODEL, 0, self.n_layers, (rows,)))
        (output,) = self.done.get(timeout=30).outputs
        assert not output.error
        return output

    def answer(self, sampling: Sampling, n: int, session: SessionId = A, start: int = 0) -> tuple[list[int], int]:
        """Tokens of an answer whose guesses are what the block says, and how many of them came."""
        ids, n_came = list(PROMPT), 0
        self.step(start, *ids[start:7], session=session, sample=False, sampling=sampling)
        start, more = 7, {"sampling": sampling, "asks": True, "session": session}
        output = self.step(start, *ids[start:], recent=tuple(ids), **more)
        while len(ids) < len(PROMPT) + n:
            assert output.token is not None
            n_came += len(output.more)
            ids += [output.token, *output.more]
            guesses, recent = output.own, tuple(ids)
            output = self.step(len(ids) - 1, ids[-1], *guesses, n_guesses=len(guesses), recent=recent, **more)
        return ids[len(PROMPT) :][:n], n_came


@pytest.fixture(params=["air", "counting"])
def worker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Worker]:
    path = tmp_path / "model.gguf"
    made = Worker(make_counting(path) if request.param == "counting" else make_tiny(path, "air"))
    yield made
    made.worker.stop()


@pytest.mark.parametrize("way", WAYS)
def test_the_tokens_are_those_without_the_block(worker: Worker, way: str) -> None:
    worker.open(B, mtp=False)
    plain, n_came = worker.answer(WAYS[way], 40, B)
    assert n_came == 0
    worker.open()
    assert worker.answer(WAYS[way], 40)[0] == plain
    worker.open(keep=3)  # and again, of which it has the beginning
    assert worker.answer(WAYS[way], 40, start=3)[0] == plain
    worker.open(B, keep=7, source=A)
    worker.open(B, keep=5)
    assert worker.answer(WAYS[way], 40, B, start=5)[0] == plain


def test_what_it_knows_comes(tmp_path: Path) -> None:
    worker = Worker(make_counting(tmp_path / "model.gguf"))
    worker.open()
    tokens, n_came = worker.answer(WAYS["greedy"], 40)
    assert all(b == after(a) for a, b in zip((PROMPT[-1], *tokens), tokens, strict=False))
    assert n_came >= 19, "one of two tokens was guessed"
    worker.worker.stop()


def test_it_says_nothing_that_nobody_asks_for_and_nothing_where_it_is_gone(tmp_path: Path) -> None:
    worker = Worker(make_counting(tmp_path / "model.gguf"))
    worker.open()
    assert worker.step(0, *PROMPT, asks=True).own and not worker.step(len(PROMPT), 9).own
    worker.worker.put(Unload(MODEL, frozenset({MTP})))
    said = worker.step(len(PROMPT) + 1, 10, asks=True)
    assert said.token == 11 and not said.own
    worker.open(keep=len(PROMPT))
    said = worker.step(len(PROMPT), 9, asks=True)
    assert said.token == 10 and not said.own
    worker.worker.put(DropKv(A))
    worker.worker.stop()


def test_a_block_that_fails_costs_its_guesses_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(make_counting(tmp_path / "model.gguf"))
    worker.open()

    def fails(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("swarm.engine.mtp_follower.MtpFollower.logits", fails)
    said = worker.step(0, *PROMPT, asks=True)
    assert said.token == after(PROMPT[-1]) and not said.own
    assert worker.step(len(PROMPT), 9, asks=True).token == 10
    worker.worker.stop()


# --- on a node


async def answered(node: Node, model: str, *, guess: bool = True) -> tuple[list[int], int]:
    """The ids of an answer, and how many of them were guessed."""
    params = SamplingParams(temperature=0.0)
    answer = await node.ask(Question(model, prompt=PROMPT, params=params, max_tokens=200, guess=guess))
    async for _ in answer.events():
        pass
    assert answer.stats.guessed_tokens <= answer.stats.guesses
    return answer.tokens, answer.stats.guessed_tokens


def test_a_node_alone_guesses_with_the_block_once_that_was_asked_for(tmp_path: Path) -> None:
    path = make_counting(tmp_path / "counting.gguf")

    async def story() -> None:
        async with one_node(tmp_path, memory="100MB") as node:
            model = await node.add_file(path)

            def held() -> set[Part]:
                return node._driver.read(lambda core: {part for _, part in core.ledger.parts})

            plain, n = await answered(node, model)
            assert n == 0 and MTP not in held(), "the text repeats nothing"
            assert await node.draft(Path("mtp"), model) == "mtp"
            ids, n = await answered(node, model)
            assert ids == plain and n > 0 and {MTP, EMBED} <= held()
            assert await answered(node, model, guess=False) == (plain, 0)

    asyncio.run(story())


def test_without_room_for_the_block_it_is_not_held(tmp_path: Path) -> None:
    path = make_counting(tmp_path / "counting.gguf")

    async def story() -> None:
        async with one_node(tmp_path, memory="100MB") as node:
            model = await node.add_file(path)
            plain, _ = await answered(node, model)
            await node.draft(Path("mtp"), model)

            def fill(core: object) -> None:
                cost = core.shards.models[model]  # type: ignore[attr-defined]
                needed = cost.weight_bytes + cost.stage_kv_bytes(0, cost.n_layers, 512)
                core.set_aside(core.ledger.total_bytes - needed - cost.mtp.weight_bytes // 2, 0.0)  # type: ignore[attr-defined]

            node._driver.read(fill)
            assert (await answered(node, model)) == (plain, 0)
            assert node._driver.read(lambda core: MTP not in {part for _, part in core.ledger.parts})

    asyncio.run(story())


def test_a_model_without_one_is_told_so(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "llama.gguf", "llama")

    async def story() -> None:
        async with one_node(tmp_path, memory="100MB") as node:
            with pytest.raises(ConfigError, match="no block that predicts further tokens"):
                await node.draft(Path("mtp"), await node.add_file(path))

    asyncio.run(story())
