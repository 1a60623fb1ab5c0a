"""What a node costs that has nothing to do: wake-ups a second by thread, CPU, memory, bytes written.

    python tools/bench/idle.py [--nodes 4] [--seconds 120] [--loopback]

Each node is a process on a host of its own in a LAN of network namespaces (that needs root), and the nodes find each
other by multicast; with --loopback they are told of each other. A wake-up is a voluntary context switch of any thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swarm import limits
from tests.helpers.lan import Lan
from tests.helpers.nodes import NodeProcess, Swarm

SETTLE_S = limits.IDLE_AFTER_S + 15.0  # since the last that happened
MEMORY_BYTES = 200_000_000


def wakeups(pid: int) -> Counter[str]:
    """Of each thread, by name and number, since it began."""
    counts: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        counts[f"{fields['Name'].strip()} {int(task.name) - pid}"] = int(fields["voluntary_ctxt_switches"])
    return counts


def cpu_s(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def field_of(path: Path, name: str) -> int:
    """A number of a file of lines like "name: 12 kB"."""
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


class Reading:
    """What one node has used so far."""

    def __init__(self, pid: int) -> None:
        proc = Path(f"/proc/{pid}")
        self.wakeups, self.cpu_s, self.at = wakeups(pid), cpu_s(pid), time.monotonic()
        self.written = field_of(proc / "io", "write_bytes:")
        self.resident_kib = field_of(proc / "status", "VmRSS:")


def pid_of(node: NodeProcess) -> int:
    """A node in a namespace says its own process id; else it is the process that was started."""
    running = node.home.running()
    assert running is not None
    return running.pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--loopback", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lan = None if args.loopback else stack.enter_context(Lan(args.nodes))
        swarm = stack.enter_context(Swarm(folder / "swarm", [MEMORY_BYTES] * args.nodes, lan=lan))
        time.sleep(SETTLE_S)
        pids = [pid_of(node) for node in swarm.nodes]
        before = [Reading(pid) for pid in pids]
        time.sleep(args.seconds)
        after = [Reading(pid) for pid in pids]
    totals = []
    for node, old, new in zip(swarm.nodes, before, after, strict=True):
        seconds = new.at - old.at
        rates = Counter({name: n / seconds for name, n in (new.wakeups - old.wakeups).items()})
        totals.append(sum(rates.values()))
        threads = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.most_common(6))
        used = f"{100 * (new.cpu_s - old.cpu_s) / seconds:.2f} % of a core, {new.written - old.written} bytes written"
        print(f"{node.name}: {totals[-1]:.2f} wake-ups a second, {used}, {new.resident_kib / 1024:.0f} MiB resident")
        print(f"    {threads}")
    print(f"median {statistics.median(totals):.2f} wake-ups a second")


if __name__ == "__main__":
    main()
