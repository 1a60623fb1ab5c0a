"""Run one large language model on the small devices you already have.

import swarm

model = swarm.load("model.gguf")
for piece in model.chat([{"role": "user", "content": "Why is the sky blue?"}]):
    print(piece.text, end="", flush=True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams
    from swarm.local.model import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "SamplingParams", "SwarmError", "__version__", "load"]

# Imported when first used: `swarm --help` must not wait for numpy.
_WHERE = {"Model": "swarm.local.model", "load": "swarm.local.model", "SamplingParams": "swarm.engine.sampling"}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'swarm' has no attribute {name!r}")
    value: object = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
