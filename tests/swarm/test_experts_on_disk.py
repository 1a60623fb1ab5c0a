"""Nodes whose memory together is smaller than the model answer, bit for bit, what one answers that holds all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.store.data_files import can_punch
from tests.helpers.mixtures import N_EXPERTS, write_mixture
from tests.helpers.nodes import Swarm, cost_of, memories_for
from tests.swarm.test_same_answer import CONTEXT, alone, body

SHARE = 0.42  # of the experts for which there is room


@pytest.mark.parametrize("layers", [(3,), (2, 1)], ids=len)
def test_nodes_answer_from_disk_what_one_answers_from_memory(tmp_path: Path, layers: tuple[int, ...]) -> None:
    path = write_mixture(tmp_path, "air", "Q8_0")
    cost = cost_of(path).with_resident_share(SHARE)
    with Swarm(tmp_path / "swarm", memories_for(cost, layers, CONTEXT), model=path, context=CONTEXT) as nodes:
        heard = [node.ask(body(nodes.model)) for node in nodes.nodes for _ in range(2)]
        status = [node.status() for node in nodes.nodes]
        notes = [list(node.home.experts.rglob("*.chunks")) for node in nodes.nodes]
    expected = alone(path)
    assert [answer.error for answer in heard] == [""] * len(heard)
    assert all(answer.tokens == expected for answer in heard)
    assert all(answer.experts["hits"] for answer in heard) and heard[0].experts["misses"], [a.experts for a in heard]
    assert sum(answer.experts["misses"] for answer in heard) <= sum(one["experts"]["use"]["misses"] for one in status)
    experts = [one["experts"] for one in status]
    assert all(isinstance(one, dict) and 0 < one["n_resident"] < one["n_all"] for one in experts)
    assert sum(one["n_all"] for one in experts) == 2 * N_EXPERTS, "each caches the mixtures among its own layers"
    assert all(one["use"]["hits"] and one["use"]["misses"] for one in experts)
    assert not notes[0] and (all(notes[1:]) or not can_punch(tmp_path)), (
        "who fetched its part keeps experts once; a file of the user's is not touched"
    )
