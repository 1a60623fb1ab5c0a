"""Two builds of Swarm beside each other: what a token costs in a pipeline of three, one chat with each in turns.

    python tools/bench/pipeline_pairs.py OLD_TREE [--pairs 40]

OLD_TREE is another checkout with its extensions built. Both swarms run all the time, so that whatever else this machine
and its neighbours do meets both; only differences within a pair say something. Start it more than once:
two starts of one and the same build may differ by 0.1 ms of overhead for as long as they run.

`cpu` is what all nodes together used of the processors for a token, computing included: it says something on a busy
machine, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 96
LONG = (
    64  # tokens of an answer that counts: the first ones take longer, and two builds may end an answer at another word
)
LAYERS = [10, 10, 10]  # of SmolLM2


def serve(root: Path) -> None:
    """Start the swarm of a tree; for every seed that is read, print milliseconds a token: all, computing, and `cpu`."""
    sys.path.insert(0, str(root))
    bench_file = root / "tools/bench/pipeline.py"
    if not bench_file.exists():  # an older tree
        bench_file = root / "tools/bench/swarm.py"
    spec = importlib.util.spec_from_file_location("bench", bench_file)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    nodes, path = bench.nodes, bench.resolve(None)
    nodes.SPEED = nodes.Speeds(nodes.conditions(bench.kernels.isa(), 1), 20e9, 60e9, 5e-6, 20e-6, 1e9)
    memories = bench.memories_for(bench.cost_of(path), LAYERS, bench.KV_TOKENS)
    with (
        tempfile.TemporaryDirectory() as folder,
        bench.Swarm(Path(folder) / "swarm", memories, model=path, context=bench.CONTEXT) as swarm,
    ):
        bench.one_chat(swarm, 16, 0)
        print("ready", flush=True)
        for line in sys.stdin:
            print(*one_chat(swarm, bench.body(swarm.model, TOKENS, int(line))), flush=True)


def one_chat(swarm: Any, body: dict[str, object]) -> tuple[float, float, float, int]:
    """Milliseconds of a token: from one to the next, of these computing, and of the processors; and how many came."""
    pids = [node.process.pid for node in swarm.nodes]
    used: list[float] = []  # when each token came
    heard = swarm.nodes[0].ask(body, on_piece=lambda heard: used.append(cpu_s(pids)))
    assert not heard.error, heard.error
    gaps = [b - a for a, b in pairwise(heard.at)]
    steps = [float(node.status()["computed"]["decode_step_s"]) for node in swarm.nodes]
    cpu = (used[-1] - used[1]) / max(len(used) - 2, 1)
    return 1e3 * statistics.median(gaps), 1e3 * sum(steps), 1e3 * cpu, len(used)


def cpu_s(pids: list[int]) -> float:
    """Seconds that these processes have computed so far, to the nanosecond: /proc tells only hundredths."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)  # as clock_getcpuclockid makes it


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--serve", str(root)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def ask(server: subprocess.Popen[str], seed: int) -> tuple[float, float, float, float, float]:
    """Overhead and computing of a chat's token, both together, the processors' time, in milliseconds; its length."""
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(f"{seed}\n")
    server.stdin.flush()
    token, computing, cpu, n_tokens = map(float, server.stdout.readline().split())
    return token - computing, computing, token, cpu, n_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("old", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    if args.old is None:
        parser.error("which tree to compare with?")
    servers = [start(root) for root in (args.old.resolve(), ROOT)]
    for server in servers:
        assert server.stdout is not None and server.stdout.readline() == "ready\n", "a swarm did not start"
    pairs: list[list[tuple[float, ...]]] = []
    for i in range(4 * args.pairs):
        two = [ask(server, i) for server in (servers if i % 2 else servers[::-1])]
        if min(chat[-1] for chat in two) >= LONG:
            pairs.append(two if i % 2 else two[::-1])
        if len(pairs) == args.pairs:
            break
    for server in servers:
        server.communicate()
    for column, name in enumerate(("overhead", "computing", "token", "cpu")):
        old, new = ([pair[k][column] for pair in pairs] for k in (0, 1))
        differences = [b - a for a, b in zip(old, new, strict=True)]
        lower = sum(d < 0 for d in differences)
        medians = f"old {statistics.median(old):6.2f} ms, new {statistics.median(new):6.2f} ms"
        print(f"{name:10} {medians}, within a pair {statistics.median(differences):+.2f} ms, lower in {lower}")
    return None


if __name__ == "__main__":
    main()
