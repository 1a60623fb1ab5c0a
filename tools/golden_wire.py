#!/usr/bin/env python3
"""Write tests/golden/wire.json, the bytes of one message of each type. Only to change the protocol on purpose."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from swarm.wire.codec import encode  # noqa: E402
from swarm.wire.messages import MESSAGES, PROTOCOL, number_of  # noqa: E402
from tests.helpers.wire_values import frame_of, record  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "wire.json"


def golden() -> dict[str, object]:
    """Return the header and the raw frame of one seeded message of each type, as hex."""
    table: dict[str, object] = {"protocol": str(PROTOCOL)}
    for kind in MESSAGES:
        rng = random.Random(number_of(kind))
        message = record(kind, rng)
        frame = frame_of(message, rng)
        table[kind.__name__] = [number_of(kind), encode(message, frame).hex(), None if frame is None else frame.hex()]
    return table


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
