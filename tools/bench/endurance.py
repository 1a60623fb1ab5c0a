#!/usr/bin/env python3
"""Many requests of many readers at one node: does its memory stay flat, and does it answer /health meanwhile?

    python tools/bench/endurance.py [--requests 10000] [--readers 64] [--tokens 4] [--model FILE] [--json]

A node of its own, with a tiny checkpoint where no file is given; each reader has a key and a connection of its own,
asks in all dialects, streamed and whole, for one to --tokens tokens, and comes again when it is told to. The exit code
is 1 when a request failed, when memory grew by more than --growth MiB after the first fifth, or when the slowest
hundredth of /health took over --health ms. Requests for four tokens of a tiny model are the worst that can be asked of
a node: nearly all of its time goes into requests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.helpers.nodes import PATIENCE_S, Swarm
from tests.helpers.tiny import TINY, make_weights, write_tiny

CONTEXT = 512
MEMORY = 1 << 30
WARM_SHARE = 0.2  # of the requests: until then caches fill
HEALTH_EVERY_S = 0.02
WORDS = ("the sea", "an old clock", "bread", "a lost dog", "the moon", "a bridge", "in winter", "two brothers")


def asked(rng: random.Random, model: str, most: int) -> tuple[str, dict[str, object]]:
    """A request in one of the dialects."""
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
    messages = [{"role": "user", "content": text}]
    n, stream = rng.randint(1, most), rng.random() < 0.5
    chat = {"model": model, "messages": messages, "stream": stream}
    return rng.choice(
        [
            ("/v1/chat/completions", {**chat, "max_tokens": n}),
            ("/v1/messages", {**chat, "max_tokens": n}),
            ("/v1/responses", {"model": model, "input": text, "max_output_tokens": n, "stream": stream}),
            ("/api/chat", {**chat, "options": {"num_predict": n}}),
            ("/completion", {"model": model, "prompt": text, "n_predict": n, "stream": stream}),
        ]
    )


@dataclass(frozen=True)
class Load:
    """What all readers together ask."""

    port: int
    model: str
    n_readers: int
    n_requests: int
    tokens: int


def read(load: Load, reader: int, counts: Counter[str]) -> None:
    """One reader."""
    quota = load.n_requests // load.n_readers
    rng = random.Random(reader)
    headers = {"content-type": "application/json", "authorization": f"Bearer {reader}"}
    connection = http.client.HTTPConnection("127.0.0.1", load.port, timeout=PATIENCE_S)
    while quota:
        path, body = asked(rng, load.model, load.tokens)
        connection.request("POST", path, json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read()
        if reply.status == 429:
            counts["told to come again"] += 1
            time.sleep(min(float(reply.headers["retry-after"]), 1.0) * rng.random())
            continue
        quota -= 1
        counts["answered" if reply.status == 200 and b'"error":{' not in text else "failed"] += 1
        if counts["failed"] == 1 and reply.status != 200:
            print(path, reply.status, text[:200], file=sys.stderr)
    connection.close()


def read_all(load: Load, answered: object) -> None:
    """All readers, in a process of their own: what measures is not slowed by them."""
    counts: Counter[str] = Counter()
    threads = [threading.Thread(target=read, args=(load, i, counts)) for i in range(load.n_readers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.05)
        answered.value = counts["answered"] + counts["failed"]  # type: ignore[attr-defined]
    answered.value = -1 - counts["failed"]  # type: ignore[attr-defined]


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def health_ms(port: int) -> Iterator[float]:
    """How long /health takes, again and again, over a connection that stays."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    while True:
        started = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        yield 1000 * (time.perf_counter() - started)


def measure(n_requests: int, n_readers: int, tokens: int, model: Path | None) -> dict[str, object]:
    """Run it; times in ms, memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        path = model or write_tiny(Path(folder) / "tiny.gguf", TINY["qwen3"], make_weights(TINY["qwen3"]), "Q8_0")
        with Swarm(Path(folder) / "swarm", [MEMORY], model=path, context=CONTEXT) as swarm:
            node = swarm.nodes[0]
            assert node.local is not None and node.process is not None
            answered = multiprocessing.Value("q", 0)
            load = Load(node.local.api_port, swarm.model, n_readers, n_requests, tokens)
            readers = multiprocessing.Process(target=read_all, args=(load, answered))
            readers.start()
            started = time.perf_counter()
            times: list[float] = []
            memory: list[tuple[int, float]] = []  # after so many requests
            for took_ms in health_ms(node.local.api_port):
                times.append(took_ms)
                done = answered.value  # type: ignore[attr-defined]
                if done < 0:
                    break
                if not memory or done >= memory[-1][0] + n_requests / 50:
                    memory.append((done, resident_mib(node.process.pid)))
                time.sleep(HEALTH_EVERY_S)
            took_s = time.perf_counter() - started
            memory.append((n_requests, resident_mib(node.process.pid)))
            readers.join()
    warm = next(mib for done, mib in memory if done >= WARM_SHARE * n_requests)
    times.sort()
    return {
        "requests": n_requests,
        "readers": n_readers,
        "failed": -1 - done,
        "requests_per_s": n_requests / took_s,
        "health_ms": {"median": times[len(times) // 2], "p99": times[int(0.99 * len(times))], "most": times[-1]},
        "memory_mib": {"warm": warm, "end": memory[-1][1], "growth": memory[-1][1] - warm},
        "course_mib": [[n, round(mib, 1)] for n, mib in memory],
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=4, help="of an answer, at most")
    parser.add_argument("--growth", type=float, default=8.0, help="MiB")
    parser.add_argument("--health", type=float, default=50.0, help="ms; 0: any")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    seen = measure(args.requests, args.readers, args.tokens, args.model)
    print(json.dumps(seen) if args.json else json.dumps(seen, indent=1))
    health, memory = seen["health_ms"], seen["memory_mib"]
    assert isinstance(health, dict) and isinstance(memory, dict)
    slow = bool(args.health) and health["p99"] > args.health
    return int(bool(seen["failed"]) or memory["growth"] > args.growth or slow)


if __name__ == "__main__":
    sys.exit(main())
