"""Three devices on this machine, none of which could hold the model alone; one is killed in the middle of an answer.

    make demo

Starts three nodes with keys, chunks and memory limits of their own, lets two of them in by an invitation, asks a
question, kills a device that takes part after some words, and shows that the text is what it would have been anyway.
Ends cleanly, also on Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from swarm import config
from swarm.cli.local import LocalNode
from swarm.cli.progress import ProgressBar
from swarm.cli.remote import RemoteAnswer, RemoteModel
from swarm.cli.terminal import BOLD, DIM, paint
from swarm.engine.sampling import SamplingParams
from swarm.node.home import Home
from swarm.store.naming import resolve

NAMES = ("pi-attic", "pi-kitchen", "pi-shed")
MEMORY = "88MB"  # of each: the model takes 127 MB with both ends and a conversation, so two hold it and one does not
QUESTION = "Why is the sky blue? Explain it to a child, step by step."
KILL_AFTER = 40  # tokens
MAX_TOKENS = 120
PATIENCE_S = 60.0


class Device:
    """A node with a home of its own."""

    def __init__(self, folder: Path, name: str, models: Path) -> None:
        self.name = name
        self.home = Home(folder / name)
        self.env = {**os.environ, "SWARM_HOME": str(self.home.root), "SWARM_MODELS_DIR": str(models)}
        self.process: subprocess.Popen[bytes] | None = None

    def join(self, *arguments: str) -> None:
        """Start it, and wait until it answers."""
        self.home.make()
        command = [sys.executable, "-m", "swarm", "join", "--name", self.name, "--memory", MEMORY, "--threads", "1"]
        with self.home.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--no-discovery", *arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this program, which ends them
            )
        deadline = time.monotonic() + PATIENCE_S
        while self.home.running() is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} did not start:\n{self.home.log_file.read_text()}")
            time.sleep(0.05)

    @property
    def node(self) -> LocalNode:
        running = self.home.running()
        assert running is not None
        return LocalNode(running.pid, running.peer, running.name, running.api_port, running.token)

    @property
    def port(self) -> int:
        running = self.home.running()
        assert running is not None
        return running.port

    def end(self) -> None:
        """Ask it to leave; insist after a while."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


def say(text: str) -> None:
    """A line of the demo itself."""
    print(paint(f"== {text}", BOLD), flush=True)


def note(text: str, begun: bool) -> None:
    """A quiet line of the swarm."""
    if text and begun:
        print(paint(f"\n[{text}]\n", DIM), end="", flush=True)


def answer(model: RemoteModel, at_word: int = 0, action: object = None) -> str:
    """Show an answer; do something after so many pieces."""
    params = SamplingParams(temperature=0.7, seed=12)
    stream: RemoteAnswer = model.chat([{"role": "user", "content": QUESTION}], max_tokens=MAX_TOKENS, params=params)
    text, last, longest = "", time.monotonic(), 0.0
    for number, piece in enumerate(stream):
        if number:
            longest = max(longest, time.monotonic() - last)
        last = time.monotonic()
        print(piece.text, end="", flush=True)
        text += piece.text
        if number == at_word and callable(action):
            action()
    print(flush=True)
    stats = stream.stats
    speed = (stats.generated_tokens - 1) / stats.decode_s if stats.decode_s else 0.0
    figures = f"{stats.generated_tokens} tokens, {speed:.1f} tok/s, longest wait for a word {longest:.2f} s"
    print(paint(f"[{figures}]", DIM))
    return text


def layers(devices: Sequence[Device]) -> dict[str, str]:
    """What each device holds."""
    status = devices[0].node.get("/swarm/status", PATIENCE_S)
    rows = status["devices"]
    assert isinstance(rows, list)
    return {row["name"]: ", ".join(f"{s['first']}-{s['end'] - 1}" for s in row["shards"]) for row in rows}


def play(devices: Sequence[Device], path: Path) -> int:
    """The whole demo; 0 when all went as promised."""
    attic, *others = devices
    say(f"{attic.name} begins a swarm; it has the model file ({path.stat().st_size / 1e6:.0f} MB), and {MEMORY} to use")
    attic.join()
    for device in others:
        invitation = attic.node.post("/swarm/invite", {}, PATIENCE_S)
        say(f"{attic.name} invites: swarm join {invitation['code']}")
        device.join(str(invitation["code"]), "--peer", f"127.0.0.1:{invitation['port']}")
        say(f"{device.name} is in, with {MEMORY}")
    added = attic.node.post("/swarm/models", {"path": str(path)}, PATIENCE_S)
    plan = attic.node.post("/swarm/plan", {"model": str(added["id"]), "context": 512}, PATIENCE_S)
    print(paint("\n".join(str(line) for line in plan["lines"]), DIM))  # type: ignore[attr-defined]
    model = RemoteModel(attic.node, str(added["id"]), note)
    say(f"> {QUESTION}")
    calm = answer(model)
    held = layers(devices)
    say("layers: " + "; ".join(f"{name} {what or 'none'}" for name, what in held.items()))
    victim = next(device for device in others if held.get(device.name))

    def kill() -> None:
        print(paint(f"\n== kill -9 {victim.name}", BOLD), flush=True)
        assert victim.process is not None
        os.kill(victim.process.pid, signal.SIGKILL)
        victim.process.wait()

    say(f"> {QUESTION}  (the same again; {victim.name} is about to be killed)")
    struck = answer(model, KILL_AFTER, kill)
    say("layers: " + "; ".join(f"{name} {what or 'none'}" for name, what in layers(devices).items()))
    same = struck == calm
    say("the text is the same, word for word" if same else "THE TEXT DIFFERS")
    return 0 if same else 1


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    with ProgressBar() as bar:
        path = resolve(None, settings=config.load(), progress=bar)
    folder = Path(tempfile.mkdtemp(prefix="swarm-demo-"))
    devices = [Device(folder, name, folder / "models") for name in NAMES]
    try:
        return play(devices, path)
    except KeyboardInterrupt:
        return 130
    finally:
        for device in devices:
            device.end()
        shutil.rmtree(folder, ignore_errors=True)
        say("all devices have ended, and nothing is left of them")


if __name__ == "__main__":
    sys.exit(main())
