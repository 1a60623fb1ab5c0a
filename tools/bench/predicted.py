"""What `swarm plan` would say of this device with so many experts in memory, and its disk limited."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from swarm import kernels  # noqa: E402
from swarm.cluster.cost import Device, ModelCost, predict  # noqa: E402
from swarm.cluster.devices import WIRED  # noqa: E402
from swarm.cluster.pipeline import Stage  # noqa: E402
from swarm.node.home import Home  # noqa: E402
from swarm.node.measure import QUIET, Speeds, measure  # noqa: E402
from swarm.wire.ids import PeerId  # noqa: E402

CONTEXT = 64  # of the steps that are measured, about
ATTEMPTS = 8  # at a measurement that no other program disturbs: a node waits for a quiet moment


@dataclass(frozen=True)
class Machine:
    """This one, measured as a node does when it starts."""

    speeds: Speeds

    @classmethod
    def measured(cls, threads: int) -> Machine:
        speeds = None
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(ATTEMPTS):
                speeds = measure(Home(Path(folder)), kernels.isa(""), threads or kernels.threads(), speeds)
                if speeds.others <= QUIET:
                    break
        assert speeds is not None
        return cls(speeds)

    def device(self) -> Device:
        """As the planner sees it, with its own disk."""
        return Device(
            id=PeerId("0" * 32),
            name="this machine",
            memory_bytes=0,
            disk_bytes=0,
            read_bytes_per_s=self.speeds.read_bytes_per_s,
            macs_per_s=self.speeds.macs_per_s,
            layer_s=self.speeds.layer_s,
            step_s=self.speeds.step_s,
            disk_bytes_per_s=self.speeds.disk_bytes_per_s,
        )


def predicted_rates(
    model: Path, machine: Machine, share: float, disk_bytes_per_s: float, ranks: Sequence[float]
) -> dict[str, float]:
    """Tokens a second with `share` of the experts in memory: by the default curve, and by what `ranks` tell.

    disk_bytes_per_s: the limit that the disk is given; 0: none. A limit counts over 100 ms and gives in one burst what
    nobody wanted before, so it says how fast reading is on the average, and the disk how fast a burst of it is.
    """
    from swarm.models.registry import spec_from_gguf
    from swarm.node.model_cost import model_cost
    from swarm.store.gguf import open_gguf

    with open_gguf(model) as file:
        cost = model_cost(model.stem, spec_from_gguf(file.metadata, file.tensors), file.tensors)
    cost = cost.with_resident_share(share or 1.0)
    device = machine.device()
    rates = (_rate(each, device, disk_bytes_per_s) for each in (cost, cost.with_ranks(ranks)))
    return dict(zip(("predicted", "predicted_own"), (round(rate, 3) for rate in rates), strict=True))


def _rate(cost: ModelCost, device: Device, limit: float) -> float:
    stages = (Stage(0, cost.n_layers, (device,)),)
    token_s = predict(cost, stages, lambda a, b: WIRED, context=CONTEXT, prompt=1, batch=1).token_s
    missed = sum(layer.missed_bytes() for layer in cost.layers)
    return 1.0 / max(token_s, missed / limit if limit else 0.0)
