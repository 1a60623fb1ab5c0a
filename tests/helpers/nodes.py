"""Swarms of real nodes on this machine: processes of `python -m swarm join`, each with a home of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from swarm import kernels
from swarm.cli.local import LocalNode
from swarm.cluster.cost import ModelCost
from swarm.models.registry import mtp_from_gguf, spec_from_gguf
from swarm.net.keys import new_swarm_key, written
from swarm.node.home import Home
from swarm.node.measure import Speeds, conditions
from swarm.node.model_cost import model_cost
from swarm.store.gguf import open_gguf
from tests.helpers.lan import Lan, enter

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90.0  # for anything that takes a second on an idle machine
MOST_GAP_S = 15.0  # of an answer that survives a fault: three are usual, more is a patience of minutes that runs out
THREADS = 1
SPEED = Speeds(conditions(kernels.isa(), THREADS), 4e9, 20e9, 20e-6, 20e-6, 1e9)


@dataclass
class Heard:
    """One answer as its reader got it; `at` are the times of the pieces."""

    text: str = ""
    thinking: str = ""
    tokens: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    finish: str = ""
    error: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    n_prompt: int = 0
    experts: dict[str, float] = field(default_factory=dict)  # that the node has on disk: how they were found

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a new piece of text, after the first."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)


@dataclass(frozen=True)
class ThereNode(LocalNode):
    """A node inside a network namespace: connections to it are made from in there."""

    namespace: str = ""

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        connection = super().connect(timeout_s)
        if self.namespace:
            connection._create_connection = self._create  # type: ignore[attr-defined]
        return connection

    def _create(self, *arguments: object, **options: object) -> socket.socket:
        """A thread that enters a namespace stays in it, and so do the sockets that it makes."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._create_there, *arguments, **options).result()

    def _create_there(self, *arguments: Any, **options: Any) -> socket.socket:
        enter(self.namespace)
        return socket.create_connection(*arguments, **options)


class NodeProcess:
    """One node."""

    def __init__(self, name: str, home: Path, command: list[str], env: dict[str, str], namespace: str = "") -> None:
        self.namespace = namespace
        self.name = name
        self.home = Home(home)
        self.command = command
        self.env = env
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again if it has ended; `wait_ready` tells when it answers."""
        if self.process is not None:
            self.process.wait(PATIENCE_S)
        self.home.running_file.unlink(missing_ok=True)
        with open(self.home.log_file, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.env, cwd=ROOT
            )

    def wait_ready(self) -> None:
        wait_for(lambda: self.local is not None or not self.is_running, f"{self.name} to start")
        assert self.is_running, self.log

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def local(self) -> LocalNode | None:
        running = self.home.running()
        if running is None:
            return None
        return ThereNode(
            running.pid, running.peer, running.name, running.api_port, running.token, namespace=self.namespace
        )

    @property
    def port(self) -> int:
        running = self.home.running()
        assert running is not None, self.log
        return running.port

    @property
    def log(self) -> str:
        return self.home.log_file.read_text(errors="replace")

    def get(self, path: str) -> dict[str, object]:
        assert self.local is not None
        return self.local.get(path, PATIENCE_S)

    def post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        assert self.local is not None
        return self.local.post(path, body, PATIENCE_S)

    def status(self) -> dict[str, object]:
        return self.get("/swarm/status")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def ask(
        self,
        body: dict[str, object],
        heard: Heard | None = None,
        *,
        on_piece: Callable[[Heard], None] | None = None,
        on_reading: Callable[[int, int], None] | None = None,
    ) -> Heard:
        """Ask by a stream that carries the quiet lines, too; the callbacks see each piece of text, and how far the
        prompt is read."""
        heard = heard if heard is not None else Heard()
        for event, value in self.events(body):
            if "error" in value:
                heard.error = str(value["error"])
            elif event == "swarm":
                if "note" in value:
                    heard.notes.append(str(value["note"]))
                elif on_reading is not None:
                    on_reading(*value["reading"])  # type: ignore[misc]
            elif value.get("choices"):
                take_piece(heard, value["choices"][0], on_piece)  # type: ignore[index]
            elif "swarm_tokens" in value:
                heard.tokens = value["swarm_tokens"]  # type: ignore[assignment]
                heard.finish = str(value["swarm_finish"])
                heard.timings = value["timings"]  # type: ignore[assignment]
                heard.n_prompt = value["usage"]["prompt_tokens"]  # type: ignore[index]
                heard.experts = value["usage"].get("experts", {})  # type: ignore[attr-defined]
        return heard

    def events(self, body: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
        """The events of a streamed answer."""
        assert self.local is not None, self.log
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        connection = self.local.connect(PATIENCE_S)
        try:
            headers = {"content-type": "application/json", "x-swarm-events": "1"}
            connection.request("POST", path, json.dumps({**body, "stream": True}), headers)
            response = connection.getresponse()
            if response.status != 200:
                yield "", json.loads(response.read())
                return
            event = ""
            for raw in response:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: ") and line != "data: [DONE]":
                    yield event, json.loads(line[6:])
                    event = ""
        finally:
            connection.close()


def take_piece(heard: Heard, choice: dict[str, object], on_piece: Callable[[Heard], None] | None) -> None:
    delta = choice.get("delta")
    fields = delta if isinstance(delta, dict) else {"content": choice.get("text", "")}
    text, thinking = str(fields.get("content") or ""), str(fields.get("reasoning_content") or "")
    heard.text += text
    heard.thinking += thinking
    if text or thinking:
        heard.at.append(time.monotonic())
        if on_piece is not None:
            on_piece(heard)


class Swarm(AbstractContextManager["Swarm"]):
    """Nodes on loopback that all know each other; the first one may have a model file."""

    def __init__(
        self,
        folder: Path,
        memories: Sequence[int],
        *,
        model: Path | None = None,
        context: int = 0,
        kv: Sequence[str] = (),
        cpus: Sequence[str] = (),
        layout: str = "pipeline",
        settle: bool = True,
        lan: Lan | None = None,
        programs: Mapping[int, str] = MappingProxyType({}),
        paces: Sequence[float] = (),
    ) -> None:
        """`kv` and `cpus`: the settings of each node, where they are not f16 and the best; `layout`: of all.

        `lan`: node i runs on host i + 1 and finds the others by itself; without it all are on loopback.
        `programs`: modules that some nodes run in the place of `swarm`. `paces`: how much faster each says to be.
        """
        self.lan = lan
        self.programs = programs
        self.paces = paces
        self.folder = folder
        self.key = written(new_swarm_key())
        self.context = context
        self.kv = kv
        self.cpus = cpus
        self.layout = layout
        self.nodes: list[NodeProcess] = []
        self.memories = memories
        self.model_file = model
        self.model = ""
        self.settle = settle

    def __enter__(self) -> Swarm:
        try:
            for memory in self.memories:
                self.add(memory, wait=not self.nodes and self.lan is None)
            for node in self.nodes:
                node.wait_ready()
            if self.settle:
                self.wait_mesh()
            if self.model_file is not None:
                self.model = str(self.nodes[0].post("/swarm/models", {"path": str(self.model_file)})["id"])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for node in self.nodes:
                print(f"--- {node.name}\n{node.log[-3000:]}")
        self.close()

    def add(self, memory: int, *, wait: bool = True) -> NodeProcess:
        """One more node."""
        name = f"node{len(self.nodes)}"
        home = self.folder / name
        home.mkdir(parents=True)
        cpu = self.cpus[len(self.nodes)] if len(self.nodes) < len(self.cpus) else ""
        speeds = replace(SPEED, of=conditions(kernels.isa(cpu), THREADS)) if cpu else SPEED
        if len(self.nodes) < len(self.paces):
            pace = self.paces[len(self.nodes)]
            speeds = replace(speeds, read_bytes_per_s=pace * speeds.read_bytes_per_s, layer_s=speeds.layer_s / pace)
        Home(home).measured_file.write_text(json.dumps(asdict(speeds)))
        program = self.programs.get(len(self.nodes), "swarm")
        command = [sys.executable, "-m", program, "join", "--home", str(home), "--name", name, "--key", self.key]
        command += ["--memory", str(memory), "--threads", str(THREADS), "--disk", "1GB"]
        command += ["--context", str(self.context)] if self.context else []
        namespace = ""
        if self.lan is not None:
            host = len(self.nodes) + 1
            command, namespace = self.lan.command(host, command), self.lan.namespace(host)
        else:
            command += ["--no-discovery", "--port", str(free_port()), "--api-port", str(free_port())]
            command += ["--peer", f"127.0.0.1:{self.nodes[0].port}"] if self.nodes else []
        env = {**os.environ, "SWARM_MODELS_DIR": str(self.folder / "models"), "HOME": str(self.folder)}
        env["SWARM_LAYOUT"] = self.layout
        for variable, values in (("SWARM_KV", self.kv), ("SWARM_CPU", self.cpus)):
            env |= {variable: values[len(self.nodes)]} if len(self.nodes) < len(values) else {}
        node = NodeProcess(name, home, command, env, namespace)
        self.nodes.append(node)
        node.start()
        if wait:
            node.wait_ready()
        return node

    def wait_mesh(self) -> None:
        """Every living node sees every other one, and knows what it can."""
        alive = [node for node in self.nodes if node.is_running]

        def complete() -> bool:
            for node in alive:
                others = [d for d in node.status()["devices"] if d["health"] == "alive"]  # type: ignore[index,attr-defined]
                if len(others) != len(alive) - 1 or not all(d["capabilities"] for d in others):
                    return False
            return True

        wait_for(complete, "the nodes to meet")

    def close(self) -> None:
        for node in self.nodes:
            if node.is_running:
                node.signal(signal.SIGCONT)
                node.signal(signal.SIGTERM)
        for node in self.nodes:
            if node.process is not None:
                try:
                    node.process.wait(20)
                except subprocess.TimeoutExpired:
                    node.kill()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll until it is so; fail when that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that was free a moment ago; the next one is too, in all likelihood."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cost_of(path: Path) -> ModelCost:
    """What a model file costs a node."""
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        return model_cost("model", spec, file.tensors, mtp_from_gguf(file.metadata, file.tensors))


def memories_for(cost: ModelCost, layers: Sequence[int], context: int) -> list[int]:
    """Memory for each of several devices that hold so many layers each, one after the other, and no more."""
    assert sum(layers) == cost.n_layers
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    return [
        cost.stage_weight_bytes(end - n, end) + cost.stage_kv_bytes(end - n, end, context)
        for n, end in zip(layers, ends, strict=True)
    ]
