"""A node in the test's own process, on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from swarm import config
from swarm.net.transport import Transport
from swarm.node.home import Home, write_json
from swarm.node.node import Node, Options
from swarm.wire.proof import Credentials
from tests.helpers.nodes import SPEED


@contextlib.asynccontextmanager
async def one_node(folder: Path, **settings: object) -> AsyncIterator[Node]:
    """`async with one_node(folder) as node:` in a swarm of its own; `settings` beside memory and threads."""
    home = Home(folder / "home")
    home.make()
    write_json(home.measured_file, asdict(SPEED))
    credentials = Credentials(bytes(32), bytes(range(32)))
    values = {
        "home": str(home.root),
        "memory": "1MB",
        "threads": 1,
        "models_dir": str(folder / "no-models"),  # what lies in the user's own is offered
        **settings,
    }
    options = Options(home, config.load(values), "one", (), False)
    node = await Node.start(
        options, lambda inbox: Transport.start(credentials, name="one", inbox=inbox, port=0, host="127.0.0.1")
    )
    try:
        yield node
    finally:
        await node.stop()
