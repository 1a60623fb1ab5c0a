"""Messages go to the part of the node that takes them, and else to the core."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swarm.net.events import Received
from swarm.node.routes import Routes
from swarm.wire.ids import PeerId
from swarm.wire.messages import Goodbye, LinkProbe, LinkProbed

PEER = PeerId("a" * 32)


def test_messages_go_to_the_part_that_takes_them_and_else_to_the_core() -> None:
    taken: list[tuple[str, object]] = []
    driver: Any = SimpleNamespace(act=lambda decide: taken.append(("core", None)))
    routes = Routes(driver)
    routes.take(LinkProbed, lambda peer, message: taken.append(("plain", message)))
    routes.take_framed(LinkProbe, lambda peer, message, frame: taken.append(("framed", bytes(frame))))
    probed, probe = LinkProbed(1, 2), LinkProbe(1)
    for message, frame in ((probed, None), (probe, memoryview(b"x")), (probe, None), (Goodbye("x"), None)):
        routes.deliver(Received(PEER, message, frame))
    assert taken == [("plain", probed), ("framed", b"x"), ("framed", b""), ("core", None)]
    with pytest.raises(AssertionError, match="two parts take LinkProbe"):
        routes.take(LinkProbe, lambda peer, message: None)
