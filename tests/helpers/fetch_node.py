"""A node that fetches a whole model, or has it: what `Load` does, without answering. Run by tests of the exchange.

    python -m tests.helpers.fetch_node < setup

`setup` is one line of JSON: home, name, key (hex), and `file` (a GGUF to offer) or `sources` (how many devices must
have all of the model before the fetch begins); with `lies` it sends wrong bytes, and with `loses` the first message
of each of these kinds that it sends gets lost. Prints JSON lines: {"ready": port} and {"bytes", "seconds", ...}. Ends
when its input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swarm import config
from swarm.errors import ModelNotFound
from swarm.net.keys import KeyStore, SwarmKey
from swarm.net.transport import Transport
from swarm.node.home import Home
from swarm.node.node import Node, Options
from swarm.wire.codec import Buffer
from swarm.wire.ids import PeerId
from swarm.wire.messages import Message
from tests.helpers.nodes import PATIENCE_S, ROOT, SPEED


class FetchNode:
    """One such process, as the tests hold it."""

    def __init__(self, command: list[str], home: Path, key: bytes, name: str, **setup: object) -> None:
        home.mkdir(parents=True, exist_ok=True)
        Home(home).measured_file.write_text(json.dumps(asdict(SPEED)))
        self.home = home
        # What the person who runs the tests has in a models folder would be offered, and nothing fetched.
        env = {**os.environ, "SWARM_MODELS_DIR": str(home / "models"), "HOME": str(home)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"home": str(home), "key": key.hex(), "name": name, **setup}) + "\n")
        self.process.stdin.flush()
        self.port = int(str(self.says()["ready"]))

    def says(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.home.name} has ended"
        value: dict[str, Any] = json.loads(line)
        return value

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


COMMAND = [sys.executable, "-m", "tests.helpers.fetch_node"]


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def fetch(node: Node, sources: int) -> None:
    """Fetch all chunks of the one model there is, when enough devices have all of it."""
    while True:
        whole = [entry.id for entry in node.library.entries() if entry.n_whole >= sources]
        if whole:
            with contextlib.suppress(ModelNotFound):  # the request may be what got lost: whoever asks asks again
                await node.holdings.know(whole[0])
                break
        await asyncio.sleep(0.02)
    model = whole[0]
    known = node.library.known[model]
    before, started = node.library.fetcher.bytes_fetched, time.monotonic()
    try:
        await node.library.fetcher.fetch(model, range(known.manifest.n_chunks))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return
    seconds = time.monotonic() - started
    liars = [fields["why"] for _, event, fields in node.events.entries if event == "bad_peer"]
    here = node.store.model(model)
    say(
        bytes=node.library.fetcher.bytes_fetched - before,
        seconds=seconds,
        total=known.manifest.total_bytes,
        whole=bool(here is not None and here.held.all()),
        liars=liars,
    )


def lose_first(transport: Transport, kinds: list[str]) -> Transport:
    """The first message of each kind is lost, as on a link that ends just then beside another one."""
    send, to_lose = transport.send, set(kinds)

    def lossy(peer: PeerId, message: Message, frame: Buffer | None = None) -> None:
        if type(message).__name__ in to_lose:
            to_lose.remove(type(message).__name__)
        else:
            send(peer, message, frame)

    transport.send = lossy  # type: ignore[method-assign]
    return transport


async def main() -> None:
    setup = json.loads(sys.stdin.readline())
    home = Home(Path(setup["home"]))
    home.make()
    keys = KeyStore(home.root / "keys")
    keys.keep_swarm_key(SwarmKey(bytes.fromhex(setup["key"])))
    credentials = keys.credentials()
    settings = config.load({"home": str(home.root), "memory": "1MB", "threads": 1, "disk": setup.get("disk")})
    options = Options(home, settings, setup["name"], tuple(setup.get("calls", ())), setup.get("discover", True))
    node = await Node.start(
        options,
        lambda inbox: lose_first(
            Transport.start(credentials, name=setup["name"], inbox=inbox, port=setup.get("port")),
            setup.get("loses", []),
        ),
    )
    try:
        if setup.get("lies"):
            honest = node.store.read
            node.store.read = lambda *a: bytes(b ^ 1 for b in honest(*a) or b"")  # type: ignore[method-assign]
        if "file" in setup:
            await node.add_file(Path(setup["file"]))
        say(ready=node.transport.me.port)
        if "sources" in setup:
            await fetch(node, setup["sources"])
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await node.stop()


if __name__ == "__main__":
    asyncio.run(main())
