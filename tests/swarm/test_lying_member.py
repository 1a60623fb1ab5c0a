"""A member that does everything right but compute: real processes on loopback, one of which falsifies every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swarm.cluster.spot_checks import check_bytes
from tests.helpers.nodes import NodeProcess, Swarm, cost_of, memories_for, wait_for
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny
from tests.swarm.test_same_answer import CONTEXT, alone, body

LIAR = "tests.helpers.lying_node"
FALSE = "node1 computed something else"
LAYERS = (6, 6)
PACES = (0.3, 1.0, 1.0)  # the entry node is not given more than it must have
MOST_TOKENS = 160  # of a question and its answer


def model_of(tmp_path: Path) -> Path:
    tiny = replace(wide(TINY["llama"]), n_layers=sum(LAYERS))
    return write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")


def found(node: NodeProcess) -> bool:
    return "falsified name=node1" in node.log


def test_a_member_that_only_falsifies_is_found_and_the_next_answer_is_right(tmp_path: Path) -> None:
    """No device can hold the model alone: the entry node has it on its disk, and memory for one layer more."""
    path = model_of(tmp_path)
    cost = cost_of(path)
    memories = memories_for(cost, LAYERS, CONTEXT)
    memories[0] += check_bytes(cost, MOST_TOKENS)
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT, programs={1: LIAR}, paces=PACES) as nodes:
        entry = nodes.nodes[0]
        first = entry.ask(body(nodes.model))
        wait_for(lambda: found(entry), "the false tokens to be found")
        honest = nodes.add(memories[1])
        nodes.wait_mesh()
        second = entry.ask(body(nodes.model))
        left_out = [line for line in entry.log.splitlines() if "left_out" in line]
        assert honest.is_running
    expected = alone(path)
    print(first.error, first.notes, second.notes, left_out, sep="\n")
    assert FALSE in first.error or first.tokens != expected
    assert second.tokens == expected and not second.error
    assert any("node1" in line and "for_s=3600" in line for line in left_out)


def test_an_honest_member_passes(tmp_path: Path) -> None:
    path = model_of(tmp_path)
    cost = cost_of(path)
    memories = memories_for(cost, LAYERS, CONTEXT)
    memories[0] += check_bytes(cost, MOST_TOKENS)
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT, paces=PACES) as nodes:
        entry = nodes.nodes[0]
        heard = entry.ask(body(nodes.model))
        wait_for(lambda: "spot_check_passed" in entry.log, "the check")
        assert heard.tokens == alone(path) and "falsified" not in entry.log
