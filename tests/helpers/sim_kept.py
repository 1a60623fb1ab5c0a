"""Disks of the simulator's devices, as far as they hold keys and values: slow, sometimes full, sometimes damaged."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import TYPE_CHECKING

from swarm.cluster import effects as fx
from swarm.wire.ids import SessionId
from tests.helpers import toy

if TYPE_CHECKING:
    from tests.helpers.sim import Node

QUOTA_BYTES = 200_000
WRITE_S, READ_S, COPY_S = 0.2, 0.3, 3.0
LATE_S = 5.0  # more than anybody waits for
FAILS = 0.1  # of what is written and read
LATE = 0.05


class KeptDisk:
    """Of one device: it survives the device's death, and so does what was written by then."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.rng = Random(f"{node.sim.seed} {node.name}")
        self.files: dict[str, tuple[fx.KeptKv, toy.ToyKv]] = {}
        self.reading: dict[SessionId, fx.KeptBeginning | None] = {}
        self.copying: dict[SessionId, fx.KeptKv] = {}
        self.is_ending = False

    def start(self) -> None:
        """The device begins to run."""
        node = self.node
        self.reading, self.copying, self.is_ending = {}, {}, False
        node.do(node.core.kept_found([kept for kept, _ in self.files.values()], QUOTA_BYTES, node.now))

    def end(self) -> None:
        """Half of those that die are told before, as by a service manager."""
        node = self.node
        if node.sim.keeps and not node.frozen and self.rng.random() < 0.5:
            self.is_ending = True
            node.do(node.core.keep_all(node.now))

    def write(self, kept: fx.KeptKv, kv: toy.ToyKv) -> None:
        """What memory gives up."""
        node = self.node
        node.sim.require(kv.length >= kept.n, f"{node.name} keeps {kept.n} of {kv.length} positions")
        kv = deepcopy(kv)
        kv.cut(kept.n)

        def done() -> None:
            if self.rng.random() < FAILS:
                node.do(node.core.kv_lost(kept.name, node.now))
                return
            self.files[kept.name] = kept, kv
            node.sim.n_kept += 1
            node.do(node.core.kv_kept(kept.name, node.now))

        if self.is_ending:
            self.files[kept.name] = kept, kv
        else:
            node.later(self.rng.uniform(0.0, WRITE_S), done)

    def copy(self, effect: fx.KeepKv) -> None:
        """What stays in memory, unless it is opened anew or dropped before that is done."""
        node, session, kept = self.node, effect.session, effect.kept
        kv, _ = node.engine.caches[session]
        self.copying[session] = kept

        def done() -> None:
            cache = node.engine.caches.get(session)
            if self.copying.get(session) is kept and cache is not None and cache[0] is kv:
                node.sim.n_copied_at_rest += 1
                self.write(kept, kv)
            else:
                node.do(node.core.kv_lost(kept.name, node.now))

        node.later(self.rng.uniform(0.0, COPY_S), done)

    def forget(self, effect: fx.ForgetKept) -> None:
        """Delete files; one that is not there yet comes all the same."""
        for name in effect.names:
            self.files.pop(name, None)

    def opened(self, opening: fx.OpenKv) -> None:
        """A session's KV was opened; some of it comes from here."""
        self.copying.pop(opening.session, None)
        self.reading[opening.session] = beginning = opening.beginning
        if beginning is None:
            return
        node = self.node
        kv, _ = node.engine.caches[opening.session]

        def done() -> None:
            cache = node.engine.caches.get(opening.session)
            if self.reading.get(opening.session) is not beginning or cache is None or cache[0] is not kv:
                return
            self.reading[opening.session] = None
            n = self.fill(kv, beginning)
            node.sim.n_read += n
            node.do(node.core.kv_read(opening.session, beginning.epoch, n, node.now))

        late_s = LATE_S if self.rng.random() < LATE else 0.0
        node.later(self.rng.uniform(0.0, READ_S) + late_s, done)

    def fill(self, kv: toy.ToyKv, beginning: fx.KeptBeginning) -> int:
        """All that was wanted, or a part of it, or nothing of a file that is gone or damaged."""
        node, name = self.node, beginning.kept.name
        if name not in self.files or self.rng.random() < FAILS:
            self.files.pop(name, None)
            node.do(node.core.kv_lost(name, node.now))
            return 0
        n = beginning.n if self.rng.random() < 0.7 else self.rng.randrange(0, beginning.n + 1, 16)
        kv.layers = deepcopy(self.files[name][1].layers)
        kv.cut(n)
        return n
