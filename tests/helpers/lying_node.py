"""`swarm`, but every step gives something else than the model says: `python -m tests.helpers.lying_node join ...`.

What it sends has the right form, comes in time, and is finite: the tokens of a last stage, the activations of another.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from swarm.cli.main import main
from swarm.cluster.effects import Compute, StepOutput
from swarm.node import compute


def falsified(output: StepOutput) -> StepOutput:
    """The same with wrong contents."""
    if output.frame is not None and output.info is not None:
        values = np.frombuffer(output.frame, np.float32) * np.float32(1.5)
        return StepOutput(values.tobytes(), output.info)
    return StepOutput(token=output.token ^ 1) if output.token is not None else output


class LyingWorker(compute.ComputeWorker):
    """Its steps are those of the model, and what it says of them is not."""

    def _step(self, job: Compute) -> Sequence[StepOutput]:  # type: ignore[override]
        return [falsified(output) for output in super()._step(job)]


if __name__ == "__main__":
    from swarm.node import node

    node.ComputeWorker = LyingWorker  # type: ignore[misc]
    sys.exit(main())
