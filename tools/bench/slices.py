#!/usr/bin/env python3
"""Layers shared by two processes with one thread each, over loopback, beside one process with two threads.

    tools/bench/slices.py glm4-9b:Q4_0 glm4.5-air:Q4_K_M qwen3-30b-a3b:Q4_0 --pairs 9 --json
    tools/bench/slices.py --exchange --members 2 3 4        the exchange alone, members in processes of their own
    ... --lan 1gbit,0.15                                    members in namespaces: rate, delay each way in ms (root)

Turns alternate; the figure that counts is the median of the ratios within pairs (above 1 the two processes are faster).
Decode ends each token as a stage does: what is best of each slice of the vocabulary is gathered. `waited` is the share
of that time in which the first member waited for the second one, or for the network.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from compare import CONTEXT, PROMPT, Worker, machine, resolve  # noqa: E402

from tests.helpers.lan import Lan  # noqa: E402

CASES = (("decode", 24), ("prefill", 256))
MODELS = ("glm4-9b:Q4_0", "glm4-9b:Q4_K_M", "glm4.5-air:Q4_K_M", "qwen3-30b-a3b:Q4_0")
Places = list[tuple[str, int]]  # host and port of each member
KEY = bytes(32)
CANDIDATES = bytes(320)  # the 40 best of a slice of the vocabulary
EXCHANGE_STEPS = 2000


class Member:
    """A slice of a model, in a stage with the other processes."""

    def __init__(self, path: str, threads: int, places: Places, me: int, spin_us: int) -> None:
        from swarm.engine.decoder import Decoder
        from swarm.engine.weights import load_weights
        from swarm.models import spec_from_gguf
        from swarm.models.slices import cut_model, narrow
        from swarm.parts import all_parts
        from swarm.store.gguf import open_gguf

        self.link = open_link(places, me, spin_us)
        with open_gguf(path) as model:
            spec = spec_from_gguf(model.metadata, model.tensors)
            self.n_vocab = spec.vocab
            narrowed = narrow(spec, model.tensors, cut_model(spec, model.tensors, [1.0] * len(places))[me])
            weights = load_weights(model, narrowed, all_parts(spec.n_layers), threads=threads)
        self.decoder = Decoder(narrowed, weights, context=CONTEXT, threads=threads)
        self.kv = self.decoder.new_kv()
        self.sequence = 0
        self.link.wait_ready(120)

    def clear(self) -> None:
        self.kv.truncate(0)

    def eval(self, ids: list[int]) -> None:
        from swarm.engine.decoder import Rows

        self.sequence += 1
        self.decoder.meet(self.link.native, self.sequence)
        self.decoder.step_logits([Rows(np.asarray(ids, np.int32), self.kv)])
        self.link.gather(CANDIDATES)


def open_link(places: Places, me: int, spin_us: int) -> Any:
    from swarm.net.slices import StageLink, StageListener

    listener = StageListener(*places[me])
    members = [(f"member {j}", host, port) for j, (host, port) in enumerate(places)]
    return StageLink(listener, KEY, me, members, connect_s=120, spin_us=spin_us)


def work(path: str, threads: int, places: Places, me: int, spin_us: int) -> None:
    """A member: one JSON line per measurement."""
    model = Member(path, threads, places, me, spin_us)
    rng = np.random.default_rng(1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        kind, n = line.split()[0], int(line.split()[1])
        ids = rng.integers(10, model.n_vocab, n).tolist()
        model.clear()
        model.eval(ids[:1] * PROMPT)  # also before a prefill: so that all members begin together
        if kind == "prefill":
            model.clear()
        before, start = model.link.native.counters(), time.perf_counter()
        for piece in [[token] for token in ids] if kind == "decode" else [ids]:
            model.eval(piece)
        seconds, after = time.perf_counter() - start, model.link.native.counters()
        waited, sent = after[1] - before[1], after[2] - before[2]
        n_exchanges = after[0] - before[0]
        print(json.dumps({"rate": n / seconds, "waited": waited / seconds, "bytes": sent / n_exchanges}), flush=True)


def measure_together(members: list[Worker], kind: str, n: int) -> dict[str, float]:
    """What the first member saw, while all of them ran."""
    for member in members:
        assert member.process.stdin
        member.process.stdin.write(f"{kind} {n}\n")
        member.process.stdin.flush()
    answers = [member.answer() for member in members]
    return answers[0]


def start_members(path: str, threads: int, n: int, spin_us: int, lan: Lan | None) -> list[Worker]:
    places = json.dumps(places_of(n, lan))
    command = [sys.executable, "-W", "ignore", __file__, "--work", path, str(threads), places, str(spin_us)]
    started = [_Started(start(command, j, lan, stdin=-1)) for j in range(n)]
    for member in started:
        member.answer()
    return list(started)


class _Started(Worker):
    """A worker that does not wait for its first answer: members come up together."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.engine, self.path, self.process = "a member", "", process


def start(command: list[str], member: int, lan: Lan | None, stdin: int | None = None) -> subprocess.Popen[str]:
    """A member's process, on its host."""
    whole = [*command, str(member)]
    return subprocess.Popen(lan.command(member + 1, whole) if lan else whole, stdin=stdin, stdout=-1, text=True)


def places_of(n: int, lan: Lan | None) -> Places:
    """Where members listen: ports that are free, or any on hosts of their own."""
    if lan:
        return [(lan.address(j + 1), 7420) for j in range(n)]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    places = [("127.0.0.1", int(each.getsockname()[1])) for each in sockets]
    for each in sockets:
        each.close()
    return places


def compare_slices(name: str, path: str, pairs: int, spin_us: int, lan: Lan | None) -> list[dict[str, Any]]:
    """Rates of one process with two threads, and of two with one, in every pair; the first warms up."""
    whole = Worker("swarm", path, 2, str(ROOT / "tools/bench/compare.py"))
    members = start_members(path, 1, 2, spin_us, lan)
    rows = []
    for kind, n in CASES:
        found = []
        for i in range(pairs + 1):
            if i % 2:
                one, both = whole.measure(kind, n), measure_together(members, kind, n)
            else:
                both, one = measure_together(members, kind, n), whole.measure(kind, n)
            if i:
                found.append((one, both))
        rows.append(
            {
                "model": name,
                "case": kind if kind == "decode" else f"{kind} {n}",
                "one": statistics.median(one for one, _ in found),
                "two": statistics.median(both["rate"] for _, both in found),
                "ratio": statistics.median(both["rate"] / one for one, both in found),
                "waited": statistics.median(both["waited"] for _, both in found),
                "bytes": statistics.median(both["bytes"] for _, both in found),
            }
        )
    for worker in (whole, *members):
        worker.stop()
    return rows


def exchange_alone(places: Places, me: int, spin_us: int, hidden: int, n_tokens: int) -> None:
    """A member that only exchanges: microseconds of each."""
    link = open_link(places, me, spin_us)
    link.wait_ready(60)
    link.native.reserve(hidden * n_tokens, 1)
    rng = np.random.default_rng(me)
    sums = (rng.standard_normal((n_tokens, hidden)) * 2000).astype(np.int32)  # about 13 bits, as measured
    far, wide = np.zeros((n_tokens, hidden), np.int64), np.zeros(n_tokens, np.int32)
    times, used = [], time.process_time()
    for sequence in range(1, 1 + EXCHANGE_STEPS // n_tokens):
        given = sums.copy()
        link.native.begin(sequence)
        start = time.perf_counter()
        link.native.exchange(given, far, wide)
        times.append(time.perf_counter() - start)
    sent = link.native.counters()[2] / len(times) / (len(places) - 1)
    p50, p99 = (1e6 * float(np.quantile(times, q)) for q in (0.5, 0.99))
    cpu = 1e6 * (time.process_time() - used) / len(times)
    print(json.dumps({"p50": p50, "p99": p99, "cpu": cpu, "bytes": sent}), flush=True)
    time.sleep(0.2)  # nobody closes while others still read


def alone(n: int, hidden: int, n_tokens: int, spin_us: int, lan: Lan | None) -> dict[str, Any]:
    places = json.dumps(places_of(n, lan))
    command = [sys.executable, __file__, "--exchanging", places, str(spin_us), str(hidden), str(n_tokens)]
    members = [start(command, j, lan) for j in range(n)]
    found = [json.loads(member.communicate()[0]) for member in members]
    return {"members": n, "hidden": hidden, "tokens": n_tokens, **found[0]}


def run(args: argparse.Namespace, lan: Lan | None) -> list[dict[str, Any]]:
    """What was asked for, row by row."""
    if args.exchange:
        return [alone(n, args.hidden, t, args.spin_us, lan) for n in args.members for t in args.tokens]
    found = [(name, resolve(name, args.models_dir)) for name in args.models]
    return [row for name, path in found for row in compare_slices(name, path, args.pairs, args.spin_us, lan)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--spin-us", type=int, default=0, help="how long a member spins before it sleeps")
    parser.add_argument("--exchange", action="store_true", help="the exchange alone")
    parser.add_argument("--members", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--lan", default="", help="RATE,DELAY_MS of the cables between members")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--exchanging", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        path, threads, places, spin_us, me = args.work
        return work(path, int(threads), json.loads(places), int(me), int(spin_us))
    if args.exchanging:
        places, spin_us, hidden, n_tokens, me = args.exchanging
        return exchange_alone(json.loads(places), int(me), int(spin_us), int(hidden), int(n_tokens))
    rate, _, delay = args.lan.partition(",")
    with ExitStack() as stack:
        lan = stack.enter_context(Lan(max(args.members), rate=rate, delay_ms=float(delay or 0))) if rate else None
        rows = run(args, lan)
    if args.json:
        print(json.dumps({"machine": machine(), "cpu": os.environ.get("SWARM_CPU", ""), "rows": rows}, indent=1))
        return None
    print(f"Machine: {machine()}")
    for row in rows:
        print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{value}" for key, value in row.items()))
    return None


if __name__ == "__main__":
    main()
