"""Devices that could share layers try out what an exchange between them costs, before any link is believed to be good.

Of two the one with the lower id asks, once the link is there and again now and then. One rehearsal at a time, and none
while an answer passes through: what it shows would be worth nothing, and the answer would wait.
"""

from __future__ import annotations

import asyncio
import secrets

from swarm import limits
from swarm.cluster.cost import Exchange
from swarm.errors import SwarmError
from swarm.node.background import Background
from swarm.node.driver import Driver, is_serving
from swarm.node.outbox import Outbox
from swarm.node.routes import Routes
from swarm.node.stages import Stages
from swarm.wire.ids import PeerId
from swarm.wire.messages import Rehearsal
from swarm.wire.records import STAGE_SECRET_BYTES

SOON_S = 1.0  # until somebody who is busy, or not there yet, is asked again; twice as long each time
SELDOM_S = 60.0


class Rehearsals:
    """Of one node, on its loop."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        stages: Stages,
        *,
        outbox: Outbox,
        me: PeerId,
    ) -> None:
        self._driver = driver
        self._background = background
        self._stages = stages
        self._outbox = outbox
        self._me = me
        self._one = asyncio.Lock()
        self._asking: set[PeerId] = set()

    def take_messages(self, routes: Routes) -> None:
        """What peers ask for."""
        routes.take(Rehearsal, self.asked)

    def peer_up(self, peer: PeerId) -> None:
        """A device is connected: see what exchanges with it cost, if that is for us to do."""
        if self._me < peer and peer not in self._asking:
            self._asking.add(peer)
            self._background.spawn(self._again_and_again(peer))

    def asked(self, peer: PeerId, message: Rehearsal) -> None:
        """A peer wants to. It asks again when it gets no answer."""
        if self._me > peer and not self._one.locked() and not self._driver.read(is_serving):
            self._background.spawn(self._answer(peer, message))

    async def _answer(self, peer: PeerId, message: Rehearsal) -> None:
        async with self._one:
            await self._rehearse(peer, message.secret, 1, peer, message.port)

    async def _again_and_again(self, peer: PeerId) -> None:
        try:
            await asyncio.sleep(limits.REHEARSE_AFTER_S)
            wait_s = SOON_S
            while self._is_there(peer):
                done = self._can(peer) and await self._ask(peer)
                await asyncio.sleep(limits.REHEARSE_EVERY_S if done else wait_s)
                wait_s = SOON_S if done else min(2 * wait_s, SELDOM_S)
        finally:
            self._asking.discard(peer)

    async def _ask(self, peer: PeerId) -> bool:
        async with self._one:
            if self._driver.read(is_serving):
                return False
            secret = secrets.token_bytes(STAGE_SECRET_BYTES)
            self._outbox.send(peer, Rehearsal(self._stages.port, secret))
            return await self._rehearse(self._me, secret, 0, peer, 0)

    async def _rehearse(self, asker: PeerId, secret: bytes, me: int, other: PeerId, port: int) -> bool:
        try:
            seen: Exchange = await self._background.run_io(self._stages.rehearse, asker, secret, me, other, port)
        except (SwarmError, OSError):
            return False
        self._driver.act(lambda core, now: core.rehearsed(other, seen, now))
        return True

    def _can(self, peer: PeerId) -> bool:
        """Both can share layers."""
        return self._driver.read(lambda core: core.capabilities.slices and core.shares_layers(peer))

    def _is_there(self, peer: PeerId) -> bool:
        return self._driver.read(lambda core: peer in core.others())
