"""The block of a model's own file on the last stage of real devices: the same text in fewer steps, over a death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import swarm
from swarm.engine.sampling import SamplingParams
from tests.helpers.counting import make_counting
from tests.helpers.nodes import Heard, Swarm, cost_of, memories_for

CONTEXT = 512
MOST = 200  # tokens, before the text repeats itself
PROMPT = "Count, please."


def test_a_pipeline_says_the_same_with_it_also_when_its_last_stage_dies(tmp_path: Path) -> None:
    path = make_counting(tmp_path / "counting.gguf")
    plain = swarm.load(path, threads=1, context=CONTEXT, guess="never")
    messages = [{"role": "user", "content": PROMPT}]
    answer = plain.chat(messages, max_tokens=MOST, params=SamplingParams(temperature=0.0))
    assert answer.text and answer.stats.guesses == 0
    want = answer.tokens
    cost = cost_of(path)
    first, second = memories_for(cost, (2, 1), CONTEXT)
    second += sum(map(cost.part_bytes, cost.mtp_parts())) + cost.mtp_kv_bytes(CONTEXT)
    with Swarm(tmp_path, [first, second, second], model=path, context=CONTEXT) as nodes:
        entry = nodes.nodes[0]
        body = {"model": nodes.model, "messages": messages, "max_tokens": MOST, "temperature": 0.0}
        heard = entry.ask(dict(body))
        assert (heard.error, heard.tokens) == ("", want)
        assert not heard.timings.get("draft_n_accepted")
        assert entry.post("/swarm/draft", {"path": "mtp", "model": nodes.model}) == {"draft": "mtp"}
        heard = entry.ask(dict(body))
        assert (heard.error, heard.tokens) == ("", want)
        assert heard.timings["draft_n_accepted"] > 0

        def kill_the_last_stage(heard: Heard) -> None:
            if len(heard.at) == 12:
                devices: Any = entry.status()["devices"]
                holders = {device["name"] for device in devices if device["shards"]}
                next(node for node in nodes.nodes[1:] if node.name in holders).kill()

        heard = entry.ask(dict(body), on_piece=kill_the_last_stage)
        assert sum(node.is_running for node in nodes.nodes) == 2
        assert (heard.error, heard.tokens) == ("", want)
