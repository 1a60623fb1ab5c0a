"""Many readers at once: tokens a second of all together, time to the first token, and the same texts as alone.

    python tools/bench/readers.py [--model FILE] [--nodes 1] [--layout pipeline] [--readers 1 2 4 8 16] [--tokens 64]
        [--tree OTHER] [--llama]

Each reader asks something of his own at the same moment. All nodes are on this machine; each computes with one
thread: layers of its own or, with `--layout slices`, all layers together with the others. `--tree` measures another
checkout, with its extensions built. `--llama` asks the server of llama-cpp-python the same, in turns with ours: the
same file, one thread, requests not interrupted by others (pip install 'llama-cpp-python[server]').
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

sys.path.insert(
    0, sys.argv[sys.argv.index("--tree") + 1] if "--tree" in sys.argv else str(Path(__file__).resolve().parents[2])
)

from swarm import kernels
from swarm.node import measure
from swarm.node.home import Home
from swarm.store.naming import resolve
from tests.helpers import nodes
from tests.helpers.nodes import Heard, Swarm, cost_of, memories_for

os.environ.setdefault("SWARM_GUESS", "never")  # what steps cost is measured, not what the text repeats

Ask = Callable[[int], Heard]
CONTEXT = 512
KV_TOKENS = 18 * CONTEXT
SUBJECTS = ("the sea", "an old clock", "bread", "a lost dog", "the moon", "a bridge", "winter", "two brothers")


def body(model: str, reader: int, tokens: int) -> dict[str, object]:
    prompt = f"A long story about {SUBJECTS[reader % len(SUBJECTS)]}, told {reader + 1} times: once upon a time"
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 1.0, "seed": 100 + reader}


class LlamaServer(contextlib.AbstractContextManager["LlamaServer"]):
    """llama-cpp-python's server in a process of its own; it answers one request after the other."""

    def __init__(self, path: Path) -> None:
        self.port = nodes.free_port()
        options = {"model": path, "port": self.port, "n_ctx": CONTEXT, "n_threads": 1, "n_threads_batch": 1}
        command = [sys.executable, "-m", "llama_cpp.server", "--interrupt_requests", "false"]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        nodes.wait_for(self._answers, "llama-cpp-python's server to start")

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, asked: dict[str, object]) -> Heard:
        """What it says, token by token; a token is a piece here."""
        heard = Heard()
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        body = json.dumps({**asked, "stream": True})
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        for raw in connection.getresponse():
            line = raw.decode().strip()
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                heard.error = str(event.get("error", ""))
                nodes.take_piece(heard, event["choices"][0], None)
                heard.tokens += [len(heard.text)]
        connection.close()
        return heard

    def _answers(self) -> bool:
        assert self.process.poll() is None, "llama-cpp-python's server has ended"
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            connection.request("GET", "/v1/models")
            return connection.getresponse().status == 200
        return False


def together(ask_one: Ask, n_readers: int) -> tuple[float, float, int, list[str]]:
    """Tokens a second of all, median seconds to the first token, all tokens, and what each got."""
    heard: list[Heard | None] = [None] * n_readers

    def ask(reader: int) -> None:
        heard[reader] = ask_one(reader)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(n_readers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [h for h in heard if h is not None and not h.error]
    assert len(answers) == n_readers, [h and h.error for h in heard]
    last = max(h.at[-1] for h in answers)
    first = statistics.median(h.at[0] - started for h in answers)
    n_tokens = sum(len(h.tokens) for h in answers)
    return n_tokens / (last - started), first, n_tokens, [h.text for h in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--layout", choices=["pipeline", "slices"], default="pipeline")
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tree", type=Path, help="another checkout")
    parser.add_argument("--llama", action="store_true", help="llama-cpp-python's server beside it")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = args.model or resolve(None)
    cost = cost_of(path)
    layers = [cost.n_layers // args.nodes] * args.nodes
    layers[-1] += cost.n_layers - sum(layers)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes.SPEED = measure.measure(Home(folder), kernels.isa(), nodes.THREADS)
        memories = memories_for(cost, layers, KV_TOKENS)
        swarm = stack.enter_context(Swarm(folder / "swarm", memories, model=path, context=CONTEXT, layout=args.layout))
        servers: dict[str, Ask] = {"swarm": lambda i: swarm.nodes[0].ask(body(swarm.model, i, args.tokens))}
        processes = {"swarm": [node.process.pid for node in swarm.nodes if node.process is not None]}
        if args.llama:
            llama = stack.enter_context(LlamaServer(path))
            servers["llama-cpp-python"] = lambda i: llama.ask(body("m", i, args.tokens))
            processes["llama-cpp-python"] = [llama.process.pid]
        spent = {name: (lambda pids=pids: sum(map(cpu_s, pids))) for name, pids in processes.items()}  # type: ignore[misc]
        rows = list(measured(servers, spent, args.readers, args.repeat, quiet=args.json))
    if args.json:
        print(json.dumps(rows))


def cpu_s(pid: int) -> float:
    """Processor time of a process, of all its threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measured(
    servers: dict[str, Ask], spent: dict[str, Callable[[], float]], readers: list[int], repeat: int, *, quiet: bool
) -> Iterator[dict[str, object]]:
    """A row for each server and number of readers; the servers take turns."""
    alone = {name: [ask(i).text for i in range(max(readers))] for name, ask in servers.items()}
    for n_readers in readers:
        runs: dict[str, list[tuple[float, float, int, list[str]]]] = {name: [] for name in servers}
        cpu = dict.fromkeys(servers, 0.0)
        for _ in range(repeat):
            for name, ask in servers.items():
                before = spent[name]()
                runs[name].append(together(ask, n_readers))
                cpu[name] += spent[name]() - before
        for name, made in runs.items():
            same = all(texts == alone[name][:n_readers] for *_, texts in made)
            rate, first = (statistics.median(run[i] for run in made) for i in (0, 1))
            cpu_ms = (
                1000 * cpu[name] / sum(run[2] for run in made)
            )  # of a token, which other programs do not change much
            row = {"server": name, "readers": n_readers, "tokens_per_s": rate, "first_s": first, "same_texts": same}
            row["cpu_ms"] = cpu_ms
            if not quiet:
                texts = "the same texts as alone" if same else "OTHER TEXTS than alone"
                figures = f"{rate:8.1f} tok/s, {cpu_ms:6.2f} ms CPU a token, first token {first:6.2f} s"
                print(f"{name:17} {n_readers:3} readers {figures}, {texts}", flush=True)
            yield row


if __name__ == "__main__":
    main()
