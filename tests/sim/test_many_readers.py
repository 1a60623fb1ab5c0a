"""Many readers at once: each gets the text that he gets alone, whoever shares a step with him, and faults as ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarm import limits
from swarm.answers import EndReason
from tests.helpers.sim import Chat, Node, Sim

PROMPTS = [tuple(range(1, 3 + 40 * (i % 3))) for i in range(8)]


def readers(seed: int, n_devices: int, n_readers: int = 8, n_tokens: int = 60) -> tuple[Sim, list[Chat]]:
    """Devices with room for all conversations, and as many questions at once."""
    sim = Sim(seed, 6, kv_bytes=4)
    kv = sim.model.stage_kv_bytes(0, 6, 400 * n_readers)
    for i in range(n_devices):
        sim.add_node(int(sim.model.weight_bytes * (1.0 if n_devices == 1 else 0.6)) + kv, holds=i == 0)
    sim.run_until(2.0)
    chats = [sim.ask(sim.nodes[i % n_devices], PROMPTS[i], n_tokens) for i in range(n_readers)]
    return sim, [chat for chat in chats if chat is not None]


def finish(sim: Sim, chats: list[Chat]) -> None:
    sim.run_until(sim.now + 120, done=lambda: all(chat.ended is not None for chat in chats))
    for chat in chats:
        assert chat.ended is not None and chat.ended.reason in (EndReason.STOP, EndReason.LENGTH), chat.ended
        assert chat.got == chat.expected


@pytest.mark.parametrize("n_devices", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))  # four kinds of devices: what rows together cost there
def test_each_gets_his_own_text(seed: int, n_devices: int) -> None:
    sim, chats = readers(seed, n_devices)
    assert len(chats) == 8
    finish(sim, chats)
    assert sim.n_shared > 0


def throughput(seed: int) -> float:
    """Tokens a second of eight readers on one device."""
    sim, chats = readers(seed, 1, n_tokens=200)
    started = sim.now
    finish(sim, chats)
    return sum(len(chat.got) for chat in chats) / (max(chat.emitted_at[-1] for chat in chats) - started)


def test_rows_together_are_used_where_they_are_cheap_and_left_where_they_are_dear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = [throughput(seed) for seed in range(4)]
    monkeypatch.setattr(limits, "MAX_STEP_SESSIONS", 1)
    in_turns = [throughput(seed) for seed in range(4)]
    gains = [a / b for a, b in zip(together, in_turns, strict=True)]
    assert gains[0] > 1.6 and gains[1] > 2.0, "costs grow by the power of 0.5 and 0.3"
    assert gains[2] > 0.9 and gains[3] > 0.8, "by 1.0 and 1.3: what it tries costs little"


def kill(sim: Sim, node: Node) -> None:
    sim.kill(node)
    sim.at(3.0, lambda: sim.restart(node))


def freeze(sim: Sim, node: Node) -> None:
    sim.freeze(node)
    sim.at(4.0, lambda: sim.thaw(node))


@pytest.mark.parametrize("fault", [kill, freeze])
@pytest.mark.parametrize("seed", range(4))
def test_a_device_that_fails_under_shared_steps_costs_nobody_his_text(
    fault: Callable[[Sim, Node], None], seed: int
) -> None:
    sim, chats = readers(seed, 3, n_tokens=150)
    sim.run_until(sim.now + 10, done=lambda: sum(len(chat.got) for chat in chats) > 60)
    fault(sim, sim.nodes[2])
    finish(sim, [chat for chat in chats if chat.entry != sim.nodes[2].id])


def test_steps_that_fail_are_computed_again() -> None:
    sim, chats = readers(0, 2)
    sim.step_fails = 0.02
    finish(sim, chats)
