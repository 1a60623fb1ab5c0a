"""The small parts of a node: names of models, what travels of parameters, its directory, the short way of messages."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from swarm import config, kernels
from swarm.cluster.cost import LayerCost
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError
from swarm.models import spec_from_gguf
from swarm.models.spec import tensors_needed
from swarm.net.events import PeerDown, Received
from swarm.net.transport import Transport
from swarm.node import measure
from swarm.node import node as nodes
from swarm.node.background import Background
from swarm.node.compute import ComputeWorker, params_of, sampling_of
from swarm.node.fast_path import FastPath
from swarm.node.home import Home, Running, write_json
from swarm.node.library import Library
from swarm.node.meters import Meters
from swarm.node.model_cost import model_cost
from swarm.node.questions import going_on
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from swarm.text.model_text import common_prefix
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import Goodbye, Token
from swarm.wire.proof import Credentials
from swarm.wire.records import ModelHolding
from tests.helpers.nodes import SPEED
from tests.helpers.tiny import TINY, make_weights, write_tiny


@pytest.mark.parametrize("name", TINY)
def test_a_models_cost_counts_every_tensor_once_where_it_lies(tmp_path: Path, name: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", TINY[name], make_weights(TINY[name]), "Q8_0")
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        cost = model_cost("tiny", spec, file.tensors)
        used = {need.ref.name for need in tensors_needed(spec, all_parts(spec.n_layers))}
        assert used <= file.tensors.keys()
        packed = sum(file.tensors[tensor].n_bytes for tensor in used)
    assert cost.n_layers == spec.n_layers and all(layer.kv_bytes > 0 and layer.macs > 0 for layer in cost.layers)
    assert cost.weight_bytes >= 0.9 * packed
    moe = [layer for layer in cost.layers if layer.expert_bytes]
    assert len(moe) == sum(layer.moe is not None for layer in spec.layers)
    assert all(isinstance(layer, LayerCost) and 0 < layer.expert_share < 1 for layer in moe)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(0.3, 5, 0.8, 0.1, 1.2, 30, 0.5, -0.5, 2**62),
        SamplingParams(repetition_penalty=1.5, repeat_last_n=-1, seed=0),
    ],
)
def test_parameters_arrive_as_they_were_sent(params: SamplingParams) -> None:
    assert params_of(sampling_of(params)) == params


def test_a_window_of_no_tokens_means_no_penalties() -> None:
    params = params_of(sampling_of(SamplingParams(repetition_penalty=1.5, repeat_last_n=0, seed=4)))
    assert (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) == (1.0, 0.0, 0.0)


def holding(name: str, digit: str, have: int = 4) -> ModelHolding:
    return ModelHolding(ModelId(digit * 64), name, 4, have, 1000)


def library(*holdings: ModelHolding) -> Library:
    around: Any = SimpleNamespace(store=SimpleNamespace(holdings=lambda: list(holdings)), run_io=None)
    return Library(around, None)  # type: ignore[arg-type]


def test_a_model_is_found_by_its_name_or_a_beginning_of_it() -> None:
    books = library(holding("SmolLM2 135M Instruct", "a"), holding("GLM 4 9B", "b"), holding("GLM 4 32B", "c"))
    for text in ("smollm2-135m-instruct", "SmolLM2 135M", "smollm2", "a" * 64, "aaaaaaaa"):
        assert books.find(text) == "a" * 64, text
    assert books.find("glm-4-9b") == "b" * 64
    assert books.find("glm") is None, "several"
    assert books.find("llama") is None and books.find("") is None and books.find("aaa") is None
    assert "did you mean glm-4-9b?" in str(books.not_found("glm-4-9"))
    assert "there is glm-4-32b, glm-4-9b, smollm2-135m-instruct" in str(books.not_found("xxxxxx"))


def test_a_whole_copy_is_meant_before_a_broken_one_of_the_same_name() -> None:
    books = library(holding("M", "a", 2), holding("M", "b", 4), holding("M", "c", 0))
    assert books.find("m") == "b" * 64
    assert [entry.n_whole for entry in books.entries()] == [0, 1]


def test_the_quiet_line_names_who_is_gone_and_how_many_go_on() -> None:
    assert going_on(["pi-kitchen"], 2) == "pi-kitchen is gone; going on with 2 devices"
    assert going_on(["a", "b", "c"], 1) == "a, b and c are gone; going on with one device"


def test_what_two_prompts_have_in_common() -> None:
    assert [common_prefix([1, 2, 3], other) for other in ([1, 2, 4], [1, 2], [9], [1, 2, 3, 4])] == [2, 2, 0, 3]


def test_a_nodes_file_is_its_users_alone_and_goes_with_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    running = Running(7, "ab", "attic", 7417, 8642, "secret")
    home.say_running(running)
    assert home.running() == running
    assert stat.S_IMODE(home.running_file.stat().st_mode) == 0o600
    home.say_stopped(8)
    assert home.running() == running, "another process's word does not count"
    home.say_stopped(7)
    assert home.running() is None
    for text in ("", "[]", '{"pid": 1}', "{" * 5000):
        home.running_file.write_text(text)
        assert home.running() is None


def test_what_was_measured_is_remembered_for_the_same_kernels_and_threads(tmp_path: Path) -> None:
    home = Home(tmp_path)
    isa = kernels.isa()
    assert measure.remembered(home, isa, 1) is None
    speeds = measure.measure(home, isa, 1)
    assert speeds.read_bytes_per_s > 1e6 and speeds.macs_per_s > 1e6 and speeds.layer_s >= 0 < speeds.step_s
    assert measure.remembered(home, isa, 1) == speeds
    assert measure.remembered(home, isa, 2) is measure.remembered(home, "other", 1) is None
    home.measured_file.write_text(home.measured_file.read_text().replace('"layer_s"', '"layers"'))
    assert measure.remembered(home, isa, 1) is None


def test_a_node_whose_connections_ended_by_a_bug_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "RESTART_S", 0.0)

    def tick() -> None:
        raise RuntimeError("oops")

    async def story() -> str:
        home = Home(tmp_path)
        home.make()
        write_json(home.measured_file, asdict(SPEED))
        credentials = Credentials(bytes(32), bytes(range(32)))
        options = nodes.Options(
            home, config.load({"home": str(tmp_path), "memory": "1MB", "threads": 1}), "one", (), False
        )
        node = await nodes.Node.start(
            options, lambda inbox: Transport.start(credentials, name="one", inbox=inbox, port=0, host="127.0.0.1")
        )
        assert not node.starts_anew
        node.transport._reactor._tick = tick  # type: ignore[method-assign]
        await asyncio.wait_for(node.stopping.wait(), 10)
        await node.stop()
        return node.starts_anew

    assert asyncio.run(story()) == "a bug ended its connections (RuntimeError: oops)"


def test_a_bug_does_not_end_the_ticks_or_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("oops")

    async def no_time(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) > 4:
            raise asyncio.CancelledError

    async def play() -> None:
        background = Background(lambda error: bugs.append(str(error)))
        monkeypatch.setattr(asyncio, "sleep", no_time)
        await background._again_and_again(lambda: 0.3, fail)

    sleeps: list[float] = []
    bugs: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(play())
    assert bugs == ["oops"] * 3 and sleeps == [1.0, 0.3] * 2 + [1.0]
    worker = ComputeWorker(lambda function, *_: function(), fail, threads=1)
    called = threading.Event()
    worker.call_after(fail)
    worker.call_after(called.set)
    assert called.wait(5)
    worker.stop()


def test_of_two_measurements_the_better_counts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    slow = measure.Speeds(measure.conditions(kernels.isa(), 1), 1.0, 1e15, 9.0, 1e-9, 1.0, 0.5)
    now = measure.measure(home, kernels.isa(), 1, slow)
    assert now == measure.remembered(home, kernels.isa(), 1)
    assert now.read_bytes_per_s > 1e6 and now.layer_s < 1 and now.disk_bytes_per_s > 1
    assert (now.macs_per_s, now.step_s) == (1e15, 1e-9) and now.others <= 0.5


@pytest.mark.parametrize("others", [0.0, 0.05, 0.5])
def test_a_measurement_beside_busy_programs_is_repeated_in_a_quiet_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float
) -> None:
    """It waits while an answer runs (twice) and while others are busy (twice); the first one is disturbed, too."""
    home = Home(tmp_path)
    monkeypatch.setattr(measure, "AGAIN_FIRST_S", 1e-3)
    busy, idle, measured = iter([0.9, 0.2, 0.0, 0.0]), iter([False, False]), iter([0.3, 0.02])
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def repeat(home: Home, isa: str, threads: int, before: measure.Speeds) -> measure.Speeds:
        return replace(before, read_bytes_per_s=before.read_bytes_per_s + 1, others=next(measured))

    speeds = measure.Speeds(measure.conditions(kernels.isa(), 1), 1.0, 1.0, 1.0, 1.0, 1.0, others)
    monkeypatch.setattr(measure, "remembered", lambda *_: speeds)
    monkeypatch.setattr(measure, "measure", repeat)
    monkeypatch.setattr(measure, "others_now", lambda _: next(busy))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    again = asyncio.run(measure.again_when_quiet(home, kernels.isa(), 1, lambda: next(idle, True)))
    assert again == (others > measure.QUIET)
    if again:
        assert next(busy, None) is next(measured, None) is None
        assert waits == [1e-3 * 2**n for n in range(6)]


def test_others_are_told_from_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores for ten seconds: 12 s of work, of which 3 s were ours."""
    cpu = psutil.cpu_times()._replace(user=100.0, system=50.0, idle=0.0)
    times = iter([(cpu, 7.0, 1000.0), (cpu._replace(user=108.0, system=54.0, idle=8.0), 10.0, 1010.0)])
    now = next(times)
    monkeypatch.setattr(psutil, "cpu_times", lambda: now[0])
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(time, "process_time", lambda: now[1])
    monkeypatch.setattr(time, "monotonic", lambda: now[2])
    watch = measure._Others()
    now = next(times)
    assert watch.share() == pytest.approx(9 / 20)


def test_another_program_is_noticed() -> None:
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        assert measure.others_now(0.5) > 0.3 / (psutil.cpu_count() or 1)
    finally:
        program.kill()
        program.wait()


def test_memory_is_what_was_asked_for_or_leaves_the_machine_usable() -> None:
    assert measure.usable_memory("1.5GiB") == 3 * 2**29
    total = measure.usable_memory("100%")
    assert measure.usable_memory("50%") == pytest.approx(total / 2, abs=1)
    assert 0 <= measure.usable_memory("") <= 0.8 * total


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("6GiB", 6 * 2**30), ("800MB", 800_000_000), ("64", 64), ("2 kib", 2048), ("75%", 750)]
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert config.parse_bytes("memory", text, of=1000) == n_bytes


@pytest.mark.parametrize("text", ["much", "-1GB", "101%", "1 GG", "1e9", "١GB", "9" * 40])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="memory is"):
        config.parse_bytes("memory", text, of=1000)


def test_meters_tell_the_last_seconds() -> None:
    meters = Meters()
    for tenth in range(100):
        meters.tick(tenth * 0.05, tenth * 3, tenth * 0.1)
    assert meters.busy == pytest.approx(0.5, abs=0.01) and meters.tokens_per_s == pytest.approx(30, abs=0.5)


def test_messages_of_an_answer_never_overtake_what_waits_for_the_loop() -> None:
    token = Received(PeerId("a"), Token(SessionId("b"), 1, 2, 3))
    other = Received(PeerId("a"), Goodbye("x"))
    order: list[str] = []

    def quick(event: Received) -> bool:
        order.append("quick")
        return not busy

    async def play() -> None:
        inbox = FastPath(asyncio.get_running_loop(), lambda event: order.append(type(event).__name__), quick).inbox()
        inbox.deliver(token)  # nothing waits: at once
        inbox.deliver(other)
        inbox.deliver(token)  # behind the other one
        assert order == ["quick"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["quick", "Received", "Received"]
        inbox.deliver(token)
        inbox.deliver(PeerDown(PeerId("a"), "a", "gone"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order[3:] == ["quick", "PeerDown"]

    busy = False
    asyncio.run(play())
    busy = True  # the core is: then it goes by the loop, too
    order.clear()

    async def play_busy() -> None:
        inbox = FastPath(asyncio.get_running_loop(), lambda event: order.append(type(event).__name__), quick).inbox()
        inbox.deliver(token)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(play_busy())
    assert order == ["quick", "Received"]
