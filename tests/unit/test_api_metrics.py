"""Figures in Prometheus's text format."""

from __future__ import annotations

from types import SimpleNamespace

from swarm.answers import Stats
from swarm.node.meters import Totals
from tests.helpers.api_client import api_of


def test_every_figure_has_a_kind_and_a_meaning() -> None:
    totals = Totals()
    totals.add(Stats(prompt_tokens=7, cached_tokens=2, generated_tokens=3, prefill_s=0.5, decode_s=0.25), failed=False)
    totals.add(Stats(prompt_tokens=1, guessed_tokens=4), failed=True)
    api = api_of(questions=SimpleNamespace(answers={}, totals=totals), n_others=1, busy_s=1.5, positions=9)
    reply = api.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = reply.text.splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    assert (values["swarm_devices"], values["swarm_prompt_tokens_total"], values["swarm_failed_total"]) == (
        "2",
        "8",
        "1",
    )
    assert (values["swarm_compute_seconds_total"], values["swarm_guessed_tokens_total"]) == ("1.5", "4")
    assert len(lines) == 3 * len(values)
