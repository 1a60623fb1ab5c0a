#!/usr/bin/env python3
"""Hold a small model to fifty JSON schemas, as answers and as arguments of functions; count what is valid.

    python tools/forms.py [MODEL.gguf]

Each schema is asked twice: as `response_format`, and as a call that must be made, in the way of each family in turn.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jsonschema  # noqa: E402

import swarm  # noqa: E402
from swarm.answers import Channel  # noqa: E402
from swarm.engine.sampling import SamplingParams  # noqa: E402
from swarm.text.forms import json_form  # noqa: E402
from swarm.text.tools import ToolChoice  # noqa: E402
from tests.helpers.calling_models import TEMPLATES, calling  # noqa: E402
from tests.helpers.models import real_model  # noqa: E402
from tests.helpers.schemas import SCHEMAS  # noqa: E402

MOST_TOKENS = 400


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else real_model()
    model = swarm.load(path, context=2048)
    began, n_valid, n_tokens = time.perf_counter(), 0, 0
    for i, (name, schema) in enumerate(SCHEMAS.items()):
        params = SamplingParams(seed=i)
        answer = model.chat(
            [{"role": "user", "content": f"Answer with JSON: {name}."}],
            form=json_form(schema),
            max_tokens=MOST_TOKENS,
            params=params,
        )
        template = list(TEMPLATES)[i % len(TEMPLATES)]
        tool = {"type": "function", "function": {"name": "record", "description": name, "parameters": schema}}
        call = calling(model, template).chat(
            [{"role": "user", "content": f"Record {name}."}],
            tools=[tool],
            tool_choice=ToolChoice(True, "record", parallel=False),
            thinking=False,
            max_tokens=MOST_TOKENS,
            params=params,
        )
        pieces = list(call)
        arguments = "".join(piece.text for piece in pieces if piece.channel is Channel.CALL)
        for what, text in ((name, answer.text), (f"{name}, {template}", arguments)):
            why = fault(text, schema)
            n_valid += not why
            print(f"{'valid ' if not why else 'WRONG '} {what}: {text[:90]!r} {why}", flush=True)
        n_tokens += len(answer.tokens) + len(call.tokens)
    took = time.perf_counter() - began
    print(f"{n_valid} of {2 * len(SCHEMAS)} valid; {n_tokens} tokens in {took:.0f} s")
    return 0 if n_valid == 2 * len(SCHEMAS) else 1


def fault(text: str, schema: dict[str, object]) -> str:
    """What is wrong with an answer; "" for nothing."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).partition("\n")[0]
    return ""


if __name__ == "__main__":
    sys.exit(main())
