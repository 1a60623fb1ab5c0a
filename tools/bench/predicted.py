"""What `swarm plan` would say of a device with so many experts in memory and a disk of such a speed."""

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
from swarm.node.measure import Speeds, measure  # noqa: E402
from swarm.wire.ids import PeerId  # noqa: E402

CONTEXT = 64  # of the steps that are measured, about
UNLIMITED = 1e12  # bytes a second of a disk that is not in the way


@dataclass(frozen=True)
class Machine:
    """This one, measured as a node does when it starts."""

    speeds: Speeds

    @classmethod
    def measured(cls, threads: int) -> Machine:
        with tempfile.TemporaryDirectory() as folder:
            return cls(measure(Home(Path(folder)), kernels.isa(""), threads or kernels.threads()))

    def device(self, disk_bytes_per_s: float) -> Device:
        """As the planner sees it."""
        return Device(
            id=PeerId("0" * 32),
            name="this machine",
            memory_bytes=0,
            disk_bytes=0,
            read_bytes_per_s=self.speeds.read_bytes_per_s,
            macs_per_s=self.speeds.macs_per_s,
            layer_s=self.speeds.layer_s,
            step_s=self.speeds.step_s,
            disk_bytes_per_s=disk_bytes_per_s or self.speeds.disk_bytes_per_s or UNLIMITED,
        )


def predicted_rates(
    model: Path, machine: Machine, share: float, disk_bytes_per_s: float, ranks: Sequence[float]
) -> dict[str, float]:
    """Tokens a second with `share` of the experts in memory: by the default curve, and by what `ranks` tell."""
    from swarm.models.registry import spec_from_gguf
    from swarm.node.model_cost import model_cost
    from swarm.store.gguf import open_gguf

    with open_gguf(model) as file:
        cost = model_cost(model.stem, spec_from_gguf(file.metadata, file.tensors), file.tensors)
    cost = cost.with_resident_share(share or 1.0)
    device = machine.device(disk_bytes_per_s)
    rates = (_rate(each, device) for each in (cost, cost.with_ranks(ranks)))
    return dict(zip(("predicted", "predicted_own"), (round(rate, 3) for rate in rates), strict=True))


def _rate(cost: ModelCost, device: Device) -> float:
    stages = (Stage(0, cost.n_layers, (device,)),)
    return predict(cost, stages, lambda a, b: WIRED, context=CONTEXT, prompt=1, batch=1).tokens_per_s
