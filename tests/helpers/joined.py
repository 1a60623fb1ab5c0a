"""A model as slices that meet over real links: members in threads of this process, or each in a process of its own.

python -m tests.helpers.joined MODEL SHARES MEMBER      one member, which `Joined` talks with
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from swarm import kernels
from swarm.engine.decoder import Decoder, Keep, Rows
from swarm.models import spec_from_gguf
from swarm.models.slices import cut_model
from swarm.net.slices import StageLink, StageListener
from swarm.store.gguf import GGUF, open_gguf
from tests.helpers.sliced import slice_decoder
from tests.helpers.stages import links, together

KEY = bytes(32)


def decoders_of(model: GGUF, shares: Sequence[float], isas: Sequence[str] = ()) -> list[Decoder]:
    """One decoder for each share of a model; `isas` are their instruction sets in turn."""
    spec = spec_from_gguf(model.metadata, model.tensors)
    bounds = cut_model(spec, model.tensors, shares)
    names = [isas[j % len(isas)] if isas else "" for j in range(len(bounds))]
    return [slice_decoder(model, spec, each, kv="f32", isa=isa) for each, isa in zip(bounds, names, strict=True)]


def joined_logits(decoders: Sequence[Decoder], ids: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Logits (len(ids), vocab) of a sequence appended in steps of these lengths, of members that run side by side."""
    pieces = np.split(np.asarray(ids, np.int32), np.cumsum(steps)[:-1])
    with links(len(decoders)) as stage:

        def run(j: int) -> np.ndarray:
            return run_steps(decoders[j], stage[j], pieces)

        found = together(run, len(decoders))
    return np.concatenate([one(each) for each in found], axis=1)


def run_steps(decoder: Decoder, link: StageLink, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """One member's logits (tokens, its rows of the vocabulary)."""
    kv = decoder.new_kv()
    logits = []
    for sequence, piece in enumerate(pieces, start=1):
        decoder.meet(link.native, sequence)
        logits.append(decoder.step_logits([Rows(piece, kv, Keep.ALL)]))
    return np.concatenate(logits)


def one(found: np.ndarray | BaseException) -> np.ndarray:
    """What a member found; raise what it raised."""
    if isinstance(found, BaseException):
        raise found
    return found


class Joined:
    """The members of a stage, each in a process of its own."""

    def __init__(self, path: Path, shares: Sequence[float], isas: Sequence[str]) -> None:
        command = [sys.executable, "-m", "tests.helpers.joined", str(path), json.dumps(list(shares))]
        self.members = [
            subprocess.Popen([*command, str(j)], stdin=-1, stdout=-1, env={**os.environ, "SWARM_CPU": isa}, text=True)
            for j, isa in enumerate(isas)
        ]
        ports = [int(_line(member.stdout)) for member in self.members]
        for member in self.members:
            self._say(member, ports)

    def logits(self, ids: Sequence[int], steps: Sequence[int], folder: Path) -> np.ndarray:
        """As joined_logits."""
        for j, member in enumerate(self.members):
            self._say(member, {"ids": list(ids), "steps": list(steps), "out": str(folder / f"{j}.npy")})
        for member in self.members:
            assert _line(member.stdout) == "done"
        return np.concatenate([np.load(folder / f"{j}.npy") for j in range(len(self.members))], axis=1)

    def close(self) -> None:
        for member in self.members:
            assert member.stdin and member.stdout
            member.stdin.close()
            member.wait(20)
            member.stdout.close()

    def _say(self, member: subprocess.Popen[str], value: object) -> None:
        assert member.stdin
        member.stdin.write(json.dumps(value) + "\n")
        member.stdin.flush()


def _line(stream: IO[str] | None) -> str:
    assert stream
    line = stream.readline()
    assert line, "a member has ended"
    return line.strip()


def main(path: str, shares: str, number: str) -> None:
    """A member."""
    me, isa = int(number), kernels.isa(os.environ.get("SWARM_CPU", ""))
    listener = StageListener("127.0.0.1", 0)
    print(listener.port, flush=True)
    members = [(f"member {j}", "127.0.0.1", port) for j, port in enumerate(json.loads(sys.stdin.readline()))]
    link = StageLink(listener, KEY, me, members)
    with open_gguf(Path(path)) as model:
        decoder = decoders_of(model, json.loads(shares), [isa])[me]
        link.wait_ready(30)
        for line in sys.stdin:
            task = json.loads(line)
            pieces = np.split(np.asarray(task["ids"], np.int32), np.cumsum(task["steps"])[:-1])
            np.save(task["out"], run_steps(decoder, link, pieces))
            print("done", flush=True)
    link.close()
    listener.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
