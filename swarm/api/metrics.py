"""Figures of a node in Prometheus's text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from swarm.node.node import Node


def exposition(node: Node) -> str:
    """All figures, each with what it means."""
    totals = node.questions.totals
    rows = (
        ("swarm_devices", "gauge", "Devices of the swarm that are there.", 1 + node.n_others),
        ("swarm_answers", "gauge", "Answers that are being given here.", len(node.questions.answers)),
        ("swarm_compute_seconds_total", "counter", "Time spent computing on this device.", node.busy_s),
        ("swarm_positions_total", "counter", "Positions computed on this device.", node.positions),
        ("swarm_prompt_tokens_total", "counter", "Tokens of prompts, as asked here.", totals.prompt_tokens),
        ("swarm_cached_tokens_total", "counter", "Of those, reused from a turn before.", totals.cached_tokens),
        ("swarm_generated_tokens_total", "counter", "Tokens of answers, as given here.", totals.generated_tokens),
        ("swarm_guessed_tokens_total", "counter", "Of those, guessed.", totals.guessed_tokens),
        ("swarm_requests_total", "counter", "Answers that have ended here.", totals.answers),
        ("swarm_failed_total", "counter", "Answers that have failed here.", totals.failed),
        ("swarm_prefill_seconds_total", "counter", "Time to the first token, of all answers.", totals.prefill_s),
        ("swarm_decode_seconds_total", "counter", "Time for all later tokens.", totals.decode_s),
    )
    return "".join(
        f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n{name} {value:g}\n" for name, kind, meaning, value in rows
    )
