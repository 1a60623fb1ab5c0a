#!/usr/bin/env python3
"""A mixture in less memory than it needs: speed, hits and bytes read under a cap, beside all of it in memory.

    tools/bench/experts.py                                4 layers of GLM-4.5-Air (scripted.py): flat, uniform routing
    tools/bench/experts.py --shares 0.25 --peer           beside llama.cpp, which maps the file (pip: llama-cpp-python)
    tools/bench/experts.py --disks 0.45e9 0.085e9 --json  with slower disks; a line of JSON for each run
    tools/bench/experts.py --model FILE --memory          another file, whatever it routes; as fast as in memory first

Each line is a process of its own (capped.py: memory, page cache included, and disk limited). It starts with nothing in
its cache, feeds the trace's first tokens with all that the disk can give, then measures with the limit. What must be so
is checked: the logits of all lines of a trace are equal, hits are those of the replay, and bytes read are misses times
an expert. What was predicted is what `swarm plan` would say of such a device.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

from capped import Group  # noqa: E402

from swarm.answers import ExpertUse  # noqa: E402

if TYPE_CHECKING:
    from swarm.engine.decoder import Decoder
    from swarm.engine.expert_cache import CachedExperts

FOLDER = Path("~/.cache/swarm/bench").expanduser()
CONTEXT = 128  # of all that is fed: what is not needed for past tokens holds experts
MIN_TOKENS = 8  # that are measured, however long they take
PEER_WARM, PEER_TOKENS = 2, 3  # of llama.cpp at least: under a cap each may take many seconds
CHECKED = 12  # tokens whose logits are compared
SLOTS_FOR_ALL = 1_000_000
# Tokens a second that are reached on a machine that does nothing else, with a disk of 1.4 GB/s: by cap and trace.
BARS = {(0.25, "flat"): 8.0, (0.25, "uniform"): 5.5, (0.5, "uniform"): 8.5}
BARS_OF_ALL = {(0.5, "flat"): 0.6, (1.3, "flat"): 0.97}  # and as shares of all in memory, without a cache
BAR_PEER = 5.0  # times llama.cpp, at 25 %
BAR_PREDICTED = 0.2
BAR_DISK = 1.4e9


@dataclass(frozen=True)
class Run:
    """One line: a process that is measured."""

    engine: str
    trace: str
    share: float = 0.0  # of the file, that it may use; 0: no cap
    disk: float = 0.0  # bytes a second; 0: all it can


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="another file; then routing is as it comes")
    parser.add_argument("--traces", nargs="*", default=["flat", "uniform"])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.5, 1.3], help="caps, as shares of the file")
    parser.add_argument("--disks", type=float, nargs="*", default=[BAR_DISK], help="bytes/s to read; 0: all it can")
    parser.add_argument("--peer", action="store_true", help="llama.cpp as well, where a cap is below all of the file")
    parser.add_argument("--no-memory", action="store_true", help="leave the runs without a cap out")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--warm", type=int, default=40, help="tokens before those that are measured")
    parser.add_argument("--seconds", type=float, default=25.0, help="end after so long, with the tokens there are")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each run")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    from predicted import Machine, predicted_rates  # not in the child: it is to be no larger than `swarm run`
    from scripted import scripted_model, traces

    is_scripted = args.model is None
    args.model = args.model or scripted_model(FOLDER)
    size = args.model.stat().st_size
    played = traces() if is_scripted else {}
    measure(args, Run("swarm", "none"), 0, tokens=1, warm=0, memory="40%")  # the experts are written to their files
    machine = Machine.measured(args.threads)
    learnt = {name: each.ranks() for name, each in played.items()}
    rows: list[dict[str, Any]] = []
    for run in runs(args, args.traces if is_scripted else ["none"]):
        row = measure(args, run, played[run.trace].first if is_scripted else 0)
        if run.engine == "swarm":
            if is_scripted and row["slots"]:
                row["replay"] = played[run.trace].replay(row["slots"], args.warm, args.warm + row["tokens"])
            share, ranks = row["slots"] / max(row["experts"], 1), learnt.get(run.trace, [])
            row |= predicted_rates(args.model, machine, share, run.disk, ranks)
        rows.append(row)
        print(json.dumps(row) if args.json else text(row, size), flush=True)
    for line in (found := faults(rows)) + verdicts(rows):
        print(line, file=sys.stderr if args.json else sys.stdout)
    sys.exit(bool(found))


def runs(args: argparse.Namespace, names: list[str]) -> Iterator[Run]:
    """The lines, in order."""
    for trace in names:
        if not args.no_memory:
            yield Run("swarm", trace)
        for disk in args.disks:
            for share in args.shares:
                yield Run("swarm", trace, share, disk)
                if args.peer and share < 1:
                    yield Run("llama.cpp", trace, share, disk)


def measure(args: argparse.Namespace, run: Run, first: int, **other: Any) -> dict[str, Any]:
    """Measure one line in a process of its own, which feeds ids from `first` on; 0: some that are no trace."""
    options = {name: getattr(args, name) for name in ("model", "tokens", "warm", "seconds", "threads")} | other
    memory = options.pop("memory", "")
    cap = int(run.share * args.model.stat().st_size)
    command = [sys.executable, "-W", "ignore", __file__, *(f"--{name}={value}" for name, value in options.items())]
    with Group(cap) as group:
        slots = SLOTS_FOR_ALL if run.share > 1 else 0
        setting = memory or str(cap or "")
        command += ["--child", run.engine, str(first), f"{slots}:{setting}", f"{run.disk}:{group.name}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, preexec_fn=group.enter)
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**asdict(run), "cap_bytes": cap, **row, **group.peak()}


# ---- in the child


def child(args: argparse.Namespace) -> None:
    """Load within the cap, feed tokens, and tell what that took."""
    engine, first, sizes, limit = args.child
    slots, _, memory = sizes.partition(":")
    disk, _, name = limit.partition(":")
    is_peer = engine == "llama.cpp"
    args.warm = min(args.warm, PEER_WARM) if is_peer else args.warm
    n = args.warm + args.tokens
    ids = np.arange(int(first), int(first) + n) if int(first) else (np.arange(n) * 37 + 11) % 1000 + 100
    feed = Feed(args, ids, Group(name=name), float(disk), PEER_TOKENS if is_peer else max(MIN_TOKENS, CHECKED))
    row = peer(args, feed) if is_peer else swarm(args, feed, int(slots), memory)
    print(json.dumps(row | {"load": round(os.getloadavg()[0], 1)}))


class Feed:
    """Feeds a model its tokens, one after the other, and measures all but the first."""

    def __init__(self, args: argparse.Namespace, ids: np.ndarray, group: Group, disk: float, least: int) -> None:
        self._args, self._ids, self._group, self._disk, self._least = args, ids, group, disk, least

    def play(self, step: Callable[[int], np.ndarray | None], begin: Callable[[], None]) -> dict[str, Any]:
        """`step` computes a token; `begin` is called before the first that counts."""
        args, digest, took = self._args, blake2b(digest_size=8), []
        for i, token in enumerate(self._ids.tolist()):
            if i == args.warm:
                self._group.read_at_most(self._disk, FOLDER)
                begin()
                busy, read, started = time.process_time(), disk_reads(), time.perf_counter()
            at = time.perf_counter()
            logits = step(token)
            if i >= args.warm:
                took.append(time.perf_counter() - at)
            if logits is not None and i < args.warm + CHECKED:
                digest.update(logits.tobytes())
            if len(took) >= self._least and time.perf_counter() - started > args.seconds:
                break
        took_s, n = time.perf_counter() - started, len(took)
        return {
            "tokens": n,
            "tokens_per_s": round(n / took_s, 3),
            "tokens_per_s_median": round(1 / statistics.median(took), 3),
            "cpu_s_per_token": round((time.process_time() - busy) / n, 4),
            "disk_bytes_per_token": (disk_reads() - read) // n,
            "disk_bytes_per_s": int((disk_reads() - read) / took_s),
            "logits": digest.hexdigest(),
            "took_s": round(took_s, 2),
            **dict(zip(("rss_bytes", "cache_bytes"), self._group.used(), strict=True)),
        }


def disk_reads() -> int:
    """Bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def swarm(args: argparse.Namespace, feed: Feed, slots: int, memory: str) -> dict[str, Any]:
    """Our engine."""
    started = time.perf_counter()
    decoder = load(args, slots, memory)
    load_s, kv, experts = time.perf_counter() - started, decoder.new_kv(CONTEXT), decoder.experts
    before, slots_before = [ExpertUse()], experts.n_slots if experts else 0

    def begin() -> None:
        before[0] = experts.use() if experts is not None else ExpertUse()

    row = feed.play(lambda token: decoder.forward(np.array([token], np.int32), kv), begin)
    use = experts.use() - before[0] if experts is not None else ExpertUse()
    return row | {
        "slots": slots_before,
        "slots_after": experts.n_slots if experts else 0,
        "experts": experts.n_all if experts else 0,
        "expert_bytes": experts.slot_bytes if experts else 0,
        "hit_rate": round(use.hit_rate, 4),
        "read_bytes_per_token": use.read_bytes // row["tokens"],
        "waits": round(use.wait_s / row["took_s"], 3),
        "use": asdict(use),
        "load_s": round(load_s, 2),
    }


def load(args: argparse.Namespace, slots: int, memory: str) -> Decoder:
    """As `swarm run` loads it, but without what runs before have learnt; with `slots`, from disk whatever fits."""
    from swarm import config, kernels
    from swarm.engine.decoder import Decoder
    from swarm.engine.expert_cache import CachedExperts
    from swarm.engine.expert_folder import ExpertFolder
    from swarm.engine.weights import load_weights
    from swarm.local.model import load_decoder, packed_dir, packed_key
    from swarm.models.registry import spec_from_gguf
    from swarm.parts import all_parts
    from swarm.store.gguf import open_gguf

    packed = "auto" if memory else "never"  # all in memory means so: not in a file that is mapped
    settings = config.load({"context": CONTEXT, "memory": memory or None, "threads": args.threads or None})
    settings = replace(settings, packed=packed)
    threads = settings.threads or kernels.threads()
    with open_gguf(args.model) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        folder = ExpertFolder(packed_dir() / packed_key(file))
        folder.hot_list.unlink(missing_ok=True)
        if not slots:
            return load_decoder(file, spec, settings)
        weights = load_weights(file, spec, all_parts(spec.n_layers), threads=threads, experts=folder)
    experts = CachedExperts(weights.expert_files, slots, threads=threads)
    fill(experts)
    return Decoder(spec, weights, context=CONTEXT, threads=threads, experts=experts)


def fill(experts: CachedExperts) -> None:
    """Read all experts, or as many as there are slots for."""
    for layer in range(len(experts.layers)):
        for expert in range(experts.n_experts):
            experts.native.fetch(layer, expert)
    while experts.native.n_filling:
        time.sleep(0.01)


def peer(args: argparse.Namespace, feed: Feed) -> dict[str, Any]:
    """llama.cpp, as pip builds it: the file is mapped, and not packed into memory once more, which no cap allows."""
    import llama_cpp
    from llama_cpp import llama_cpp as native

    from swarm import kernels

    usual = native.llama_model_default_params

    def mapped() -> Any:
        params = usual()
        params.use_extra_bufts = False
        return params

    native.llama_model_default_params = mapped

    threads, started = args.threads or kernels.threads(), time.perf_counter()
    model = llama_cpp.Llama(str(args.model), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False)
    load_s = time.perf_counter() - started
    return feed.play(lambda token: model.eval([token]), lambda: None) | {"load_s": round(load_s, 2)}


# ---- what must be so, and what is to be reached


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong whatever the machine does."""
    found = []
    ours = [row for row in rows if row["engine"] == "swarm"]
    for trace in {row["trace"] for row in ours}:
        if len({row["logits"] for row in ours if row["trace"] == trace}) > 1:
            found.append(f"BUG: {trace}: the runs do not have the same logits")
    for row in ours:
        use = row["use"]
        if row.get("replay") and row["share"] < 1 and [use["hits"], use["misses"]] != list(row["replay"]):
            found.append(
                f"BUG: {name(row)}: {use['hits']} hits, {use['misses']} misses; the replay has {row['replay']}"
            )
        if use["read_bytes"] != use["misses"] * row["expert_bytes"]:
            found.append(f"BUG: {name(row)}: {use['read_bytes']} bytes for {use['misses']} misses")
        if row["slots_after"] != row["slots"]:
            found.append(f"BUG: {name(row)}: {row['slots_after']} slots in the end, {row['slots']} in the beginning")
        if row["cap_bytes"] and row.get("peak_bytes", 0) > row["cap_bytes"]:
            found.append(f"BUG: {name(row)}: {row['peak_bytes']} bytes under a cap of {row['cap_bytes']}")
    return found


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Each bar, and whether it is reached."""
    lines = []
    whole = {row["trace"]: row["tokens_per_s"] for row in rows if row["engine"] == "swarm" and not row["share"]}
    peers = {(r["trace"], r["share"], r["disk"]): r["tokens_per_s"] for r in rows if r["engine"] == "llama.cpp"}
    for row in rows:
        if row["engine"] != "swarm" or not row["share"]:
            continue
        rate, key = row["tokens_per_s"], (row["share"], row["trace"])
        if row["disk"] == BAR_DISK and key in BARS:
            lines.append(judged(f"{name(row)}: {rate:.2f} tok/s", rate, BARS[key]))
        if key in BARS_OF_ALL and row["trace"] in whole and row["disk"] == BAR_DISK:
            ratio = rate / whole[row["trace"]]
            lines.append(judged(f"{name(row)}: {ratio:.2f} of all in memory", ratio, BARS_OF_ALL[key]))
        if theirs := peers.get((row["trace"], row["share"], row["disk"])):
            what = f"{name(row)}: {rate / theirs:.1f} times llama.cpp ({theirs:.2f} tok/s)"
            lines.append(judged(what, rate / theirs, BAR_PEER) if row["share"] <= 0.25 else what)
        if row["share"] < 1:
            off = row["predicted_own"] / rate - 1
            lines.append(judged(f"{name(row)}: predicted {100 * off:+.0f} %", -abs(off), -BAR_PREDICTED))
    return lines


def judged(what: str, figure: float, bar: float) -> str:
    return f"{'ok  ' if figure >= bar else 'MISS'} {what}, bar {abs(bar):g}"


def name(row: dict[str, Any]) -> str:
    disk = f" at {row['disk'] / 1e9:g} GB/s" if row["disk"] else ""
    return f"{row['trace']}, {100 * row['share']:.0f} %{disk}"


def text(row: dict[str, Any], size: int) -> str:
    """A line for people."""
    cap = f"{100 * row['share']:3.0f} % ({row['share'] * size / 1e9:.2f} GB)" if row["share"] else "no cap         "
    disk = f"{row['disk'] / 1e9:5.3f} GB/s" if row["disk"] else "all it can"
    line = (
        f"{row['engine']:9} {row['trace']:7} {cap} disk {disk}: {row['tokens_per_s']:6.2f} tok/s "
        f"({row['tokens']} tokens, CPU {1e3 * row['cpu_s_per_token']:.0f} ms), "
        f"{row['disk_bytes_per_token'] / 1e6:.0f} MB a token at {row['disk_bytes_per_s'] / 1e9:.2f} GB/s"
    )
    if row["engine"] == "swarm" and row["slots"]:
        line += f"; {row['slots']} of {row['experts']} slots, hits {100 * row['hit_rate']:.2f} %"
        line += f", predicted {row['predicted_own']:.2f} (default curve {row['predicted']:.2f})"
    if "peak_bytes" in row and row["share"]:
        line += f"; peak {row['peak_bytes'] / 1e9:.2f} GB"
        line += f" (in memory {row['rss_bytes'] / 1e9:.2f}, page cache {row['cache_bytes'] / 1e9:.2f})"
    return f"{line}; logits {row['logits']}, load {row['load']}"


if __name__ == "__main__":
    main()
