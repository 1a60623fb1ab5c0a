"""Devices that compute every layer together answer, bit for bit, what one answers: real processes on loopback."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.cluster.cost import ModelCost
from tests.helpers.nodes import MOST_GAP_S, Heard, NodeProcess, Swarm, cost_of
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny
from tests.swarm.test_same_answer import CONTEXT, FAMILIES, alone, body

PLENTY = 2_000_000_000
READERS = 4
LONG = 180  # tokens: an answer that is not over before a device is


def shares_of(node: NodeProcess) -> dict[str, list[dict[str, object]]]:
    """What each device says that it holds."""
    devices = node.status()["devices"]
    assert isinstance(devices, list)
    return {device["name"]: device["shards"] for device in devices}


def n_stages(node: NodeProcess, n_devices: int) -> int:
    """All devices take part: in how many stages?"""
    shards = [shard for held in shares_of(node).values() for shard in held]
    print(shards)
    assert len(shards) == n_devices
    return len({(shard["first"], shard["end"]) for shard in shards})


@pytest.mark.parametrize("name", FAMILIES)
def test_two_devices_share_every_layer_of_every_family(tmp_path: Path, name: str) -> None:
    tiny = replace(wide(TINY[name], ffn=1280), n_layers=3)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    with Swarm(tmp_path / "swarm", [PLENTY] * 2, model=path, context=CONTEXT, layout="slices") as nodes:
        heard = [node.ask(body(nodes.model)) for node in nodes.nodes]
        assert n_stages(nodes.nodes[0], 2) == 1
    expected = alone(path)
    assert [answer.error for answer in heard] == [""] * 2
    assert all(answer.tokens == expected for answer in heard), "every node is an entry"


CPUS = ("", "avx2", "scalar", "", "avx2")


@pytest.mark.parametrize("n", [2, 3])
def test_unequal_devices_share_every_layer_of_real_weights(tmp_path: Path, real_model: Path, n: int) -> None:
    cost = cost_of(real_model)
    shares = {2: (5, 4), 3: (4, 2, 3)}[n]  # of nine heads: nobody can be spared
    memories = [cost.embed_bytes + cuttable_bytes(cost) * share // 9 + 4_000_000 for share in shares]
    with Swarm(tmp_path / "swarm", memories, model=real_model, context=CONTEXT, layout="slices", cpus=CPUS) as nodes:
        heard = [node.ask(body(nodes.model)) for node in (nodes.nodes[0], nodes.nodes[-1])]
        assert n_stages(nodes.nodes[0], n) == 1
    expected = alone(real_model)
    assert [answer.error for answer in heard] == [""] * 2
    assert all(answer.tokens == expected for answer in heard)


def test_five_unequal_devices_are_a_pipeline_of_two_groups(tmp_path: Path) -> None:
    """Of an FFN of three units three devices share a layer at most, and no three hold the model."""
    tiny = replace(wide(TINY["llama"], ffn=192), n_layers=10)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    cost = cost_of(path)
    memories = [cost.embed_bytes + cuttable_bytes(cost) * share * 31 // 540 for share in (6, 5, 6, 5, 5)]
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT, layout="slices", cpus=CPUS) as nodes:
        heard = [node.ask(body(nodes.model)) for node in (nodes.nodes[0], nodes.nodes[-1])]
        assert n_stages(nodes.nodes[0], 5) == 2
    expected = alone(path)
    assert [answer.error for answer in heard] == [""] * 2
    assert all(answer.tokens == expected for answer in heard)


def cuttable_bytes(cost: ModelCost) -> int:
    return cost.weight_bytes - cost.embed_bytes + cost.stage_kv_bytes(0, cost.n_layers, CONTEXT)


def test_readers_at_once_share_steps_and_exchanges(tmp_path: Path, real_model: Path) -> None:
    """Twice a layer for each step, however many sessions are in it."""
    with Swarm(tmp_path / "swarm", [PLENTY] * 2, model=real_model, context=CONTEXT, layout="slices") as nodes:
        entry, n_layers = nodes.nodes[0], cost_of(real_model).n_layers
        entry.ask(body(nodes.model, 4))  # loaded

        def exchanges() -> int:
            return int(entry.status()["computed"]["exchanges"])  # type: ignore[index,call-overload]

        before = exchanges()
        alone_heard = entry.ask(body(nodes.model, LONG))
        between = exchanges()
        with ThreadPoolExecutor(READERS) as pool:
            heard = list(pool.map(lambda _: entry.ask(body(nodes.model, LONG)), range(READERS)))
        after = exchanges()
    n_tokens = len(alone_heard.tokens)
    print(f"{between - before} exchanges for {n_tokens} tokens, {after - between} for {READERS} times as many")
    assert n_tokens == LONG and between - before <= 2 * n_layers * (n_tokens + 1), "and those of the prompt"
    assert all(each.tokens == alone_heard.tokens for each in heard)
    assert after - between < 0.8 * READERS * (between - before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_the_answer_survives_a_member(tmp_path: Path, real_model: Path, number: signal.Signals) -> None:
    with Swarm(tmp_path / "swarm", [PLENTY] * 2, model=real_model, context=CONTEXT, layout="slices") as nodes:
        entry, lost = nodes.nodes
        entry.ask(body(nodes.model, 4))  # loaded
        assert n_stages(entry, 2) == 1

        def stop(heard: Heard) -> None:
            if len(heard.at) == 3:
                lost.signal(number)

        heard = entry.ask(body(nodes.model, LONG), on_piece=stop)
    print(heard.notes, heard.longest_gap_s)
    assert heard.error == ""
    assert any(lost.name in note for note in heard.notes), "it was missed in the middle of the answer"
    assert heard.tokens == alone(real_model, LONG)
    assert heard.longest_gap_s < MOST_GAP_S
