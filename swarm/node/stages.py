"""This device's links to those that compute layers together with it: opened and closed as the core decides."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from swarm import limits
from swarm.cluster.cost import Exchange
from swarm.cluster.effects import AbortStage, CloseStage, OpenStage, StageId
from swarm.errors import SwarmNetworkError
from swarm.kernels import _native
from swarm.net.rehearsal import rehearse
from swarm.net.slices import StageLink, StageListener
from swarm.net.stage_proof import stage_key
from swarm.node.driver import Driver
from swarm.wire.ids import PeerId

STAGE_PORT = 3  # after the main port, the bulk lane's and that of an open invitation


@dataclass(frozen=True, slots=True)
class OpenedStage:
    """A stage that this device is a member of: who its members are, in order, and the links to them."""

    members: tuple[PeerId, ...]
    me: int
    link: StageLink

    @property
    def leads(self) -> bool:
        """True on the member that passes on what comes out."""
        return self.me == 0

    @property
    def n_exchanges(self) -> int:
        """Exchanges so far."""
        return int(self.link.native.counters()[0])

    def meet(self) -> _native.Stage:
        """For the decoder, once all members are connected. Raise StageLost."""
        self.link.wait_ready(limits.STAGE_CONNECT_S)
        return self.link.native

    def peer(self, member: int) -> PeerId | None:
        """Who a member is; None for nobody alone, and for this device."""
        return self.members[member] if 0 <= member != self.me else None


def open_stage_listener(main_port: int) -> StageListener:
    """Where members of this device's stages will call: beside its main port, or anywhere when that is taken."""
    try:
        return StageListener("*", main_port + STAGE_PORT if main_port + STAGE_PORT <= limits.MAX_PORT else 0)
    except SwarmNetworkError:
        return StageListener("*", 0)


class Stages:
    """On any thread: the core's decisions come on that of an event, steps on the compute worker's."""

    def __init__(self, listener: StageListener, host_of: Callable[[PeerId], tuple[str, str]]) -> None:
        """`host_of` gives the name of a peer, and where it was reached last."""
        self._listener = listener
        self._host_of = host_of
        self._opened: dict[StageId, OpenedStage] = {}
        self._n_exchanges = 0  # of stages that are closed
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """Where other members call."""
        return self._listener.port

    def carry_out(self, driver: Driver) -> None:
        """From now on, what the core decides."""
        driver.carry_out(OpenStage, self.open)
        driver.carry_out(CloseStage, self.close)
        driver.carry_out(AbortStage, self.abort)

    @property
    def n_exchanges(self) -> int:
        """So often sums were exchanged since the start: twice a layer for a step, however many sessions share it."""
        with self._lock:
            return self._n_exchanges + sum(stage.n_exchanges for stage in self._opened.values())

    def get(self, stage: StageId) -> OpenedStage | None:
        """A stage that is open."""
        with self._lock:
            return self._opened.get(stage)

    def open(self, effect: OpenStage) -> None:
        """Begin to connect."""
        hosts = [("", "") if i == effect.me else self._host_of(peer) for i, peer in enumerate(effect.members)]
        key = stage_key(effect.secret, effect.stage.author, effect.stage.epoch, effect.stage.first)
        places = [(*host, port) for host, port in zip(hosts, effect.ports, strict=True)]
        with self._lock:
            before = self._opened.pop(effect.stage, None)
            self._n_exchanges += before.n_exchanges if before is not None else 0
            link = StageLink(self._listener, key, effect.me, places)
            self._opened[effect.stage] = OpenedStage(effect.members, effect.me, link)
        if before is not None:
            before.link.close()

    def close(self, effect: CloseStage) -> None:
        """Hang up; a step that waits for others ends."""
        with self._lock:
            stage = self._opened.pop(effect.stage, None)
            self._n_exchanges += stage.n_exchanges if stage is not None else 0
        if stage is not None:
            stage.link.close()

    def abort(self, effect: AbortStage) -> None:
        """A step cannot be: it ends for all members."""
        if (stage := self.get(effect.stage)) is not None:
            lost = stage.members.index(effect.lost) if effect.lost in stage.members else None
            stage.link.abort(effect.why, sequence=effect.sequence, member=lost)

    def rehearse(self, asker: PeerId, secret: bytes, me: int, other: PeerId, port: int) -> Exchange:
        """See what an exchange with a device costs; member 0 asked for it. Blocks; raise SwarmError."""
        place = (*self._host_of(other), port)
        places = [("", "", 0), place] if me == 0 else [place, ("", "", 0)]
        link = StageLink(
            self._listener,
            stage_key(secret, asker, 0, 0),
            me,
            places,
            connect_s=limits.REHEARSAL_S,
            ceiling_s=limits.REHEARSAL_S,
        )
        try:
            link.wait_ready(limits.REHEARSAL_S)
            return Exchange(*rehearse(link.native))
        finally:
            link.close()

    def stop(self) -> None:
        """Hang up everywhere."""
        with self._lock:
            stages, self._opened = list(self._opened.values()), {}
        for stage in stages:
            stage.link.close()
        self._listener.close()
