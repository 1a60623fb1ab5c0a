"""Every kind of message ends in one place, and there it is known."""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from pathlib import Path
from random import Random

from swarm.cluster.core import Core, Identity
from swarm.net.link_policy import LinkPolicy
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import MESSAGES, Hello, Message, Welcome
from swarm.wire.records import Capabilities
from swarm.wire.routing import CORE, NODE, TRANSPORT
from tests.helpers.one_node import one_node


def test_no_message_ends_in_two_places() -> None:
    assert len(TRANSPORT) + len(NODE) + len(CORE) == len(TRANSPORT | NODE | CORE) == len(MESSAGES)


def test_each_message_of_the_transport_is_obeyed_on_a_link_that_is_up() -> None:
    """All but the greetings, which break the protocol there."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(LinkPolicy.received)))
    cases = {ast.unparse(node.cls) for node in ast.walk(tree) if isinstance(node, ast.MatchClass)}
    assert cases == {kind.__name__ for kind in TRANSPORT - {Hello, Welcome}}


def test_the_core_knows_what_ends_in_it_and_nothing_else() -> None:
    capabilities = Capabilities("x86_64", "avx2", 4, 2**30, 2**40, 1e9, 1e9)
    core = Core(Identity(PeerId("00" * 16), BootId("00" * 8), "one"), capabilities, Random(0))
    assert core._handlers.keys() == CORE


def test_the_node_knows_what_ends_in_it_and_nothing_else(tmp_path: Path) -> None:
    async def kinds() -> set[type[Message]]:
        async with one_node(tmp_path) as node:
            return set(node._routes.handlers)

    assert asyncio.run(kinds()) == NODE
