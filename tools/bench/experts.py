#!/usr/bin/env python3
"""A mixture in less memory than it needs: speed, hits and bytes read under a cap, beside all of it in memory.

    tools/bench/experts.py                               the 4-layer GLM-4.5-Air of tools/bench/shapes.py, 25 and 50 %
    tools/bench/experts.py --disk 1.4e9 --json           with a disk of that speed
    tools/bench/experts.py --model FILE --shares 0.3     another file

Each line is a process in a control group of its own, whose memory (page cache included) and disk are limited; that
needs root and version 1 of control groups, and without them only --memory limits. The logits of all lines are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
GROUPS = Path("/sys/fs/cgroup")
DEFAULT = Path("~/.cache/swarm/bench/glm4.5-air-Q4_K_M.gguf").expanduser()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.5], help="caps, as shares of the file")
    parser.add_argument("--disk", type=float, default=0.0, help="bytes/s that the disk may read; 0: all it can")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--warm", type=int, default=16, help="tokens before the measured ones")
    parser.add_argument("--prompt", type=int, default=0, help="a prompt of so many tokens first, timed on its own")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each run")
    parser.add_argument("--in-memory", type=int, default=1, help="0: leave the run without a cap out")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return measure(args)
    size = args.model.stat().st_size
    caps = [0] * bool(args.in_memory) + [int(share * size) for share in args.shares]
    rows = []
    write_experts_first(args)
    for cap in caps:
        row = run(args, cap)
        rows.append(row)
        print(json.dumps(row) if args.json else text(row, size), flush=True)
    if len({row["logits"] for row in rows}) > 1:
        sys.exit("the runs do not agree: this is a bug")


def write_experts_first(args: argparse.Namespace) -> None:
    """What the first run of a model does for all that follow, outside of what is measured."""
    run(argparse.Namespace(**{**vars(args), "tokens": 1, "warm": 0, "prompt": 0, "disk": 0.0}), 0, memory="40%")


def run(args: argparse.Namespace, cap: int, memory: str = "") -> dict[str, object]:
    """One line, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", memory or str(cap or "all"), "--model", str(args.model)]
    for name in ("tokens", "warm", "prompt", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    with limits(cap, args.disk if cap else 0.0) as group:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, check=True, text=True, preexec_fn=lambda: enter(group), env={**os.environ}
        )
        row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return {"cap_bytes": cap, "disk_bytes_per_s": args.disk if cap else 0.0, **row, **peak(group)}


def measure(args: argparse.Namespace) -> None:
    """In the child: load within its cap, feed tokens, tell what that took."""
    import numpy as np

    from swarm import config
    from swarm.answers import ExpertUse
    from swarm.local.model import load_decoder
    from swarm.models.registry import spec_from_gguf
    from swarm.store.gguf import open_gguf

    memory = None if args.child == "all" else args.child
    settings = config.load({"context": 1024, "memory": memory, "threads": args.threads or None})
    started = time.perf_counter()
    with open_gguf(args.model) as file:
        steps = load_decoder(file, spec_from_gguf(file.metadata, file.tensors), settings)
    load_s = time.perf_counter() - started
    experts = steps.experts

    def used() -> ExpertUse:
        return experts.use() if experts is not None else ExpertUse()

    kv = steps.new_kv(1024)
    digest = blake2b(digest_size=8)
    ids = (np.arange(args.prompt + args.warm + args.tokens, dtype=np.int32) * 37 + 11) % 1000 + 100
    started = time.perf_counter()
    if args.prompt:
        digest.update(steps.forward(ids[: args.prompt], kv).tobytes())
    prompt_s = time.perf_counter() - started
    before, started, busy = used(), time.perf_counter(), time.process_time()
    for i, token in enumerate(ids[args.prompt :]):
        if i == args.warm:
            before, started, busy = used(), time.perf_counter(), time.process_time()
        digest.update(steps.forward(ids[args.prompt + i : args.prompt + i + 1], kv).tobytes())
        assert token >= 0
    took_s = time.perf_counter() - started
    use = used() - before
    row = {
        "slots": experts.n_slots if experts else 0,
        "experts": experts.n_all if experts else 0,
        "tokens_per_s": round(args.tokens / took_s, 2),
        "cpu_s_per_token": round((time.process_time() - busy) / args.tokens, 4),
        "hit_rate": round(use.hit_rate, 4),
        "read_bytes_per_token": use.read_bytes // args.tokens,
        "read_bytes_per_s": int(use.read_bytes / took_s),
        "waits": round(use.wait_s / took_s, 3),
        "prompt_tokens_per_s": round(args.prompt / prompt_s, 1) if args.prompt else 0.0,
        "load_s": round(load_s, 2),
        "use": asdict(use),
        "logits": digest.hexdigest(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(row))


@contextmanager
def limits(cap: int, disk: float) -> Iterator[str]:
    """A control group of this run; "" where there is none to be had."""
    name = f"swarm-bench-{os.getpid()}"
    folders = [GROUPS / "memory" / name, GROUPS / "blkio" / name]
    if not cap or os.geteuid() or not all(folder.parent.is_dir() for folder in folders):
        yield ""
        return
    for folder in folders:
        folder.mkdir(exist_ok=True)
    (folders[0] / "memory.limit_in_bytes").write_text(str(cap))
    if disk:
        device = os.stat(Path("~").expanduser()).st_dev
        rule = f"{os.major(device)}:{os.minor(device)} {int(disk)}"
        (folders[1] / "blkio.throttle.read_bps_device").write_text(rule)
    try:
        yield name
    finally:
        with suppress(OSError):
            (folders[0] / "memory.force_empty").write_text("0")
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()


def enter(group: str) -> None:
    """In the child, before it becomes the measured program."""
    if group:
        for controller in ("memory", "blkio"):
            (GROUPS / controller / group / "cgroup.procs").write_text(str(os.getpid()))


def peak(group: str) -> dict[str, int]:
    """The most memory that the group has had, page cache included, and how often it was at its limit."""
    if not group:
        return {}
    folder = GROUPS / "memory" / group
    return {
        "peak_bytes": int((folder / "memory.max_usage_in_bytes").read_text()),
        "at_limit": int((folder / "memory.failcnt").read_text()),
    }


def text(row: dict[str, object], size: int) -> str:
    """A line for people."""
    cap = int(str(row["cap_bytes"]))
    what = f"{100 * cap / size:3.0f} % ({cap / 1e9:.2f} GB)" if cap else "all in memory   "
    figures = {name: float(str(row[name])) for name in ("hit_rate", "read_bytes_per_token", "read_bytes_per_s")}
    return (
        f"{what}  {row['slots']:>4} slots  {row['tokens_per_s']:>6} tok/s  hits {100 * figures['hit_rate']:5.1f} %  "
        f"{figures['read_bytes_per_token'] / 1e6:6.1f} MB a token  {figures['read_bytes_per_s'] / 1e9:.2f} GB/s  "
        f"logits {row['logits']}  load {row['load']}"
    )


if __name__ == "__main__":
    main()
