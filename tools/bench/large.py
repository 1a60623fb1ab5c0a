#!/usr/bin/env python3
"""A large mixture in one process that may use 6 GiB, page cache included: does it load, answer, and keep its cap?

    tools/bench/large.py --layers 16 --picture docs/experts.svg

The file has the shapes of INTELLECT-3 (GLM-4.5-Air) and random weights. First its experts are written to their own
files, and each layer's part of the model file is given back to the disk, for there is room for one of both; then `swarm
run` answers a question twice. The picture is of the group's memory from the beginning to the end. Needs root.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

import shapes  # noqa: E402
from capped import Group  # noqa: E402
from picture import Mark, Series, picture  # noqa: E402

from swarm.kernels.quants import Quant  # noqa: E402

GIB = 1 << 30
LOOK_S = 0.1
PUNCH_HOLE, KEEP_SIZE = 2, 1  # of fallocate
QUESTION = "Why is the sky blue?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--gib", type=float, default=6.0, help="that the process may use")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/swarm/large").expanduser())
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--keep", action="store_true", help="do not delete the folder in the end")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = args.folder / "intellect.gguf"
    if args.child:
        return write_experts(model)
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        shape = replace(shapes.SHAPES["glm4.5-air"], n_layers=args.layers)
        shapes.write_model(model, shape, "Q4_0", Speaking(shape.vocab))
        print(f"{model.stat().st_size / 1e9:.1f} GB, {args.layers} layers", flush=True)
        print(json.dumps(measure(args, model), indent=1))
    finally:
        if not args.keep:
            shutil.rmtree(args.folder)


def measure(args: argparse.Namespace, model: Path) -> dict[str, object]:
    """Everything that happens under the cap."""
    cap = int(args.gib * GIB)
    environment = {**os.environ, "XDG_CACHE_HOME": str(args.folder), "PYTHONPATH": str(ROOT)}
    write = [sys.executable, __file__, "--child", "--folder", str(args.folder)]
    run = [sys.executable, "-m", "swarm", "run", "--alone", str(model), QUESTION, "--memory", f"{args.gib:g}GiB"]
    run += ["--max-tokens", str(args.tokens), "--temp", "0", "--json"]
    told: dict[str, object] = {"cap_bytes": cap}
    marks = []
    with Group(cap) as group, watched(group) as seen:
        for name, command in (("experts are written", write), ("first answer", run), ("second answer", run)):
            marks.append(Mark(seen.seconds, name))
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=group.enter, check=True
            )
            told[name] = {"s": round(seen.seconds - marks[-1].at, 1)} | (json.loads(done.stdout or "{}"))
        told |= group.peak()
    if args.picture:
        args.picture.write_text(drawn(args, cap, seen, marks))
    return told


class Seen:
    """Looks at the memory of a group, from the beginning on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.looks: list[tuple[float, int, int]] = []  # seconds, bytes of processes, of page cache

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


@contextmanager
def watched(group: Group) -> Iterator[Seen]:
    """Look ten times a second, as long as it lasts."""
    seen, over = Seen(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            seen.looks.append((seen.seconds, *group.used()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def drawn(args: argparse.Namespace, cap: int, seen: Seen, marks: list[Mark]) -> str:
    at = [look[0] for look in seen.looks]
    own, cache = ([look[i] / GIB for look in seen.looks] for i in (1, 2))
    together = [a + b for a, b in zip(own, cache, strict=True)]
    title = f"Memory of one process that may use {args.gib:g} GiB: {args.layers} of INTELLECT-3's 46 layers"
    lines = [Series("with page cache", at, together), Series("the process", at, own)]
    return picture(title, lines, marks, units=("seconds", "GiB"), bar=cap / GIB)


class Speaking:
    """Noise with a tokenizer: every byte is a token, and the others are words without meaning."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab

    def metadata(self, w: GGUFWriter) -> bool:
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [byte for byte in range(256) if byte not in visible]
        letters = {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
        tokens = (
            [letters[byte] for byte in range(256)]
            + ["wo"]
            + [f"word{i}" for i in range(257, self._vocab - 1)]
            + ["<|end|>"]
        )
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("gpt-2")
        w.add_token_list(tokens)
        w.add_token_types([1] * (self._vocab - 1) + [3])
        w.add_token_merges(["w o"])
        w.add_eos_token_id(self._vocab - 1)
        w.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
        return True

    def matrix(self, name: str, quant: Quant, rows: shapes.U8) -> None:
        """Noise."""

    def vectors(self, layer: int, found: dict[str, tuple[np.ndarray, str]]) -> None:
        """Noise."""


def write_experts(model: Path) -> None:
    """In the child: each layer's experts into their file, and their part of the model file back to the disk."""
    from swarm import kernels
    from swarm.engine.expert_folder import ExpertFolder, experts_by_layer
    from swarm.local.model import packed_dir, packed_key
    from swarm.models.registry import spec_from_gguf
    from swarm.models.spec import tensors_needed
    from swarm.parts import all_parts
    from swarm.store.gguf import open_gguf

    stamp = model.stat()
    with open_gguf(model) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        folder = ExpertFolder(packed_dir() / packed_key(file))
        for needed in experts_by_layer(tensors_needed(spec, all_parts(spec.n_layers))).values():
            folder.write(file, needed, threads=kernels.threads(), written=lambda n: None)
            for need in needed:
                punch(model, file.tensors[need.ref.name].offset, file.tensors[need.ref.name].n_bytes)
            os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # it is the same model


def punch(path: Path, start: int, n_bytes: int) -> None:
    """Give the blocks of these bytes back: they read as zeros from now on."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDWR)
    try:
        arguments = descriptor, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(n_bytes)
        if library.fallocate(*arguments):
            raise OSError(ctypes.get_errno(), "holes cannot be made here")
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
