"""One fault at a time, on each role, in a prefill and in a decode: what the reader sees, and how long it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarm import limits
from swarm.answers import EndReason
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.session import Phase
from swarm.wire.ids import BootId
from tests.helpers import toy
from tests.helpers.sim import MODEL, Chat, Node, Sim

LONG_PROMPT = tuple(range(1, 60)) * 20  # ten batches
SHORT_PROMPT = (3, 1, 4, 1, 5)
NOTICED_S = 3.0
LONGEST_GAP_S = 5.0  # noticed, placed anew, loaded (up to 0.5 s a device here), computed again


def swarm(shares: list[float], *, seed: int = 1, n_layers: int = 6, all_hold: bool = True) -> Sim:
    """Devices that can each hold these shares of the model, all in sight of each other."""
    sim = Sim(seed, n_layers, kv_bytes=4)
    kv = sim.model.stage_kv_bytes(0, n_layers, 3000)
    for i, share in enumerate(shares):
        sim.add_node(int(sim.model.weight_bytes * share) + kv, holds=all_hold or i == 0)
    sim.run_until(2.0)
    return sim


def ask(sim: Sim, node: Node, prompt: tuple[int, ...] = SHORT_PROMPT, n_tokens: int = 150) -> Chat:
    chat = sim.ask(node, prompt, n_tokens)
    assert chat is not None
    return chat


def talking(sim: Sim, node: Node, n_tokens: int = 150) -> Chat:
    """A chat that has said ten of at least forty tokens."""
    while True:
        chat = ask(sim, node, n_tokens=n_tokens)
        if len(chat.expected) > 40:
            break
        sim.run_until(sim.now + 5, done=lambda c=chat: c.ended is not None)
    sim.run_until(sim.now + 10, done=lambda: len(chat.got) >= 10)
    assert len(chat.got) >= 10 and chat.ended is None
    return chat


def reading(sim: Sim, node: Node) -> Chat:
    """A chat in the middle of its prefill."""
    chat = ask(sim, node, LONG_PROMPT, 30)
    session = node.core.sessions.sessions[chat.ask.session]
    sim.run_until(sim.now + 10, done=lambda: session.phase is Phase.RUNNING and session.passed > 200)
    assert not chat.got and session.passed > 200
    return chat


def finish(sim: Sim, chat: Chat, within_s: float = 60.0) -> None:
    sim.run_until(sim.now + within_s, done=lambda: chat.ended is not None)
    assert chat.ended is not None and chat.ended.reason in (EndReason.STOP, EndReason.LENGTH), chat.ended
    assert chat.got == chat.expected


def longest_gap(chat: Chat) -> float:
    return max((b - a for a, b in zip(chat.emitted_at, chat.emitted_at[1:], strict=False)), default=0.0)


def stages(sim: Sim, node: Node) -> list[Node]:
    placement = node.core.placer.ready(MODEL)
    assert placement is not None
    return [sim.by_id[peer] for peer in Pipeline.of(placement).peers]


def noticed_at(sim: Sim, by: Node, what: str = "lost") -> float:
    return next(float(line[:9]) for line in sim.log if by.name in line and f" {what} " in line)


FAULTS: dict[str, Callable[[Sim, Node], None]] = {
    "kill -9": lambda sim, node: sim.kill(node),
    "SIGSTOP": lambda sim, node: sim.freeze(node),
    "its cable": lambda sim, node: sim.split([node]),
}


@pytest.mark.parametrize("when", [talking, reading])
@pytest.mark.parametrize("role", ["first", "middle", "last"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_stage_costs_seconds_and_no_token(
    fault: str, role: str, when: Callable[[Sim, Node], Chat], capsys: pytest.CaptureFixture[str]
) -> None:
    sim = swarm([0.3, 0.45, 0.45, 0.45, 0.45])
    warm_up = ask(sim, sim.nodes[0], n_tokens=1)
    finish(sim, warm_up)
    ring = stages(sim, sim.nodes[0])
    entry = next(node for node in sim.nodes if node not in ring)
    chat = when(sim, entry)
    victim = stages(sim, entry)[{"first": 0, "middle": 1, "last": -1}[role]]
    at = sim.now
    FAULTS[fault](sim, victim)
    finish(sim, chat)
    assert noticed_at(sim, entry) - at < NOTICED_S
    assert longest_gap(chat) < LONGEST_GAP_S
    assert [text for text in chat.notices if text], "the reader is told why it waits"
    with capsys.disabled():
        gap = f"longest gap {longest_gap(chat):.2f} s" if when is talking else "in the prefill"
        print(f"\n  {fault}, {role} stage: noticed after {noticed_at(sim, entry) - at:.2f} s, {gap}", end="")


def test_a_swarm_of_two_survives_the_loss_of_one() -> None:
    sim = swarm([1.1, 1.3])
    slow, fast = sim.nodes
    chat = talking(sim, slow)
    sim.kill(fast)
    finish(sim, chat)


def test_a_split_goes_on_where_the_entry_node_is_and_stands_still_elsewhere() -> None:
    sim = swarm([0.6, 0.6, 0.6, 0.6])
    entry = sim.nodes[0]
    chat = talking(sim, entry, 300)
    ring = stages(sim, entry)
    other_side = [node for node in ring if node is not entry][:1] + [
        n for n in sim.nodes if n not in ring and n is not entry
    ][:1]
    sim.split(other_side)
    sim.run_until(sim.now + NOTICED_S)
    computed = [len(node.computed) for node in other_side]
    finish(sim, chat)
    assert [len(node.computed) for node in other_side] == computed, "the far side computes for nobody"
    sim.heal()
    sim.run_until(sim.now + 5)
    assert all(key not in node.core.sessions.sessions for node in other_side for key in [chat.ask.session])


def test_the_death_of_an_entry_node_loses_its_own_chats_only() -> None:
    sim = swarm([0.6, 0.6, 0.6])
    lost, kept = sim.nodes[0], sim.nodes[1]
    its_chat, other_chat = talking(sim, lost), talking(sim, kept)
    sim.kill(lost)
    finish(sim, other_chat)
    sim.run_until(sim.now + 5)
    assert its_chat.ended is None
    for node in (sim.nodes[1], sim.nodes[2]):
        entry = node.core.ledger.kv.get(its_chat.ask.session)
        assert entry is None or not entry.running, "its KV is only a cache now"


def test_what_does_not_fit_any_more_waits_for_a_device_and_says_how_much_is_missing() -> None:
    sim = swarm([0.6, 0.6])
    entry, other = sim.nodes
    chat = talking(sim, entry)
    sim.kill(other)
    sim.run_until(sim.now + 6)
    assert chat.ended is None and "more memory than the devices at hand have" in chat.notices[-1]
    said = len(chat.got)
    sim.restart(other)
    finish(sim, chat)
    assert len(chat.got) > said


def test_a_chat_that_never_fitted_fails_at_once_with_the_missing_bytes() -> None:
    sim = swarm([0.3, 0.3])
    chat = ask(sim, sim.nodes[0])
    assert chat.ended is not None and chat.ended.reason is EndReason.FAILED
    assert chat.ended.missing_bytes > 0 and "KiB more memory" in chat.ended.error


def test_the_only_copy_of_a_layer_being_away_is_named() -> None:
    sim = swarm([0.6, 0.6, 0.6], all_hold=False)
    sim.kill(sim.nodes[0])
    sim.run_until(sim.now + 4)
    chat = ask(sim, sim.nodes[1])
    assert chat.ended is not None and "on its disk" in chat.ended.error


def test_a_faster_device_is_used_from_the_next_answer_on() -> None:
    sim = swarm([0.6, 0.6])
    entry = sim.nodes[0]
    chat = talking(sim, entry)
    fast = sim.add_node(sim.model.weight_bytes * 2, speed=8e6, holds=True)
    finish(sim, chat)
    assert fast.engine.parts == set(), "the answer that runs is left alone"
    finish(sim, ask(sim, entry))
    assert stages(sim, entry) == [fast]


def test_a_lost_message_costs_about_two_seconds_and_no_second_prefill() -> None:
    sim = swarm([0.6, 0.6])
    entry = sim.nodes[0]
    chat = talking(sim, entry)
    before = sum(len(node.computed) for node in sim.nodes)
    at = len(chat.got)
    for wire in sim.wires.values():
        wire.loss = 1.0
    sim.run_until(sim.now + 0.1)
    for wire in sim.wires.values():
        wire.loss = 0.0
    finish(sim, chat)
    assert longest_gap(chat) < 2.7
    computed = sum(len(node.computed) for node in sim.nodes) - before
    assert computed <= 2 * (len(chat.got) - at) + 8, "only what was lost is computed again"


def test_a_slow_step_is_not_taken_for_a_lost_message() -> None:
    sim = swarm([0.6, 0.6])
    sim.layer_s = 0.5
    chat = ask(sim, sim.nodes[0], LONG_PROMPT[:300], 3)
    finish(sim, chat, 400.0)
    assert not any("session_reopened" in line for line in sim.log)
    assert chat.emitted_at[0] > 10


def test_a_device_that_says_goodbye_is_not_waited_for() -> None:
    sim = swarm([0.6, 0.6, 0.6])
    entry = sim.nodes[0]
    chat = talking(sim, entry)
    leaver = next(node for node in stages(sim, entry) if node is not entry)
    at = sim.now
    leaver.do(leaver.core.leave(leaver.now))
    leaver.alive = False
    finish(sim, chat)
    assert noticed_at(sim, entry) - at < 0.1
    assert longest_gap(chat) < 1.5


def test_a_device_that_restarts_at_once_is_noticed_by_its_boot_id() -> None:
    sim = swarm([0.6, 0.6])
    entry, other = sim.nodes
    chat = talking(sim, entry)
    sim.kill(other)
    sim.restart(other)
    finish(sim, chat)
    assert any("joined" in line and entry.name in line for line in sim.log[-20:])


def test_devices_that_lose_sight_of_each_other_break_a_ring_that_the_entry_node_still_sees() -> None:
    sim = swarm([0.3, 0.45, 0.45, 0.45, 0.45])
    finish(sim, ask(sim, sim.nodes[0], n_tokens=1))
    ring = stages(sim, sim.nodes[0])
    entry = next(node for node in sim.nodes if node not in ring)
    chat = talking(sim, entry)
    a, b = stages(sim, entry)[:2]
    sim.cut(a, b)
    finish(sim, chat)
    ring = stages(sim, entry)
    neighbours = {frozenset((x.name, y.name)) for x, y in zip(ring, [*ring[1:], ring[0]], strict=True)}
    assert frozenset((a.name, b.name)) not in neighbours
    assert longest_gap(chat) < LONGEST_GAP_S


def test_a_one_way_link_is_not_used() -> None:
    sim = swarm([0.6, 0.6, 0.6])
    entry = sim.nodes[0]
    chat = talking(sim, entry)
    other = next(node for node in stages(sim, entry) if node is not entry)
    sim.cut(entry, other, both=False)  # it is heard, but hears nothing
    finish(sim, chat)
    assert other not in stages(sim, entry)


def test_a_cloned_device_is_named_and_not_used() -> None:
    sim = swarm([0.6, 0.6, 0.6])
    entry, clone = sim.nodes[0], sim.nodes[1]
    core = entry.core
    first = core.members.peers[clone.id].boot
    entry.do(core.peer_up(clone.id, BootId("cc" * 8), "its copy", entry.now))
    entry.do(core.peer_up(clone.id, first, clone.name, entry.now))
    assert any("cloned" in line for line in sim.log)
    (excluded,) = [d for d in core.devices(MODEL, entry.now) if d.id == clone.id]
    assert "two devices run with its id" in excluded.excluded


def test_a_device_that_flaps_is_left_out_where_others_do() -> None:
    sim = swarm([0.6, 0.6, 0.6])
    entry = sim.nodes[0]
    finish(sim, ask(sim, entry))
    flapping = next(node for node in stages(sim, entry) if node is not entry)
    for _ in range(limits.MAX_FLAPS):
        sim.kill(flapping)
        sim.run_until(sim.now + 4)
        sim.restart(flapping)
        sim.run_until(sim.now + 2)
    finish(sim, ask(sim, entry))
    assert flapping not in stages(sim, entry)


def test_chats_beyond_the_limit_wait_in_a_queue_and_say_so() -> None:
    sim = swarm([1.5], seed=3)
    chats = [ask(sim, sim.nodes[0], n_tokens=20) for _ in range(limits.MAX_ACTIVE_SESSIONS + 3)]
    waiting = [chat for chat in chats if any("waiting for a free place" in text for text in chat.notices)]
    assert len(waiting) == 3
    for chat in chats:
        finish(sim, chat)


def test_chats_beyond_the_queue_are_told_to_come_back() -> None:
    sim = swarm([1.5], seed=3)
    n = limits.MAX_ACTIVE_SESSIONS + limits.MAX_WAITING_SESSIONS
    chats = [ask(sim, sim.nodes[0], n_tokens=3) for _ in range(n + 1)]
    assert chats[-1].ended is not None and "try again in" in chats[-1].ended.error


def test_chats_that_do_not_fit_beside_each_other_take_turns() -> None:
    sim = Sim(5, 4)
    tight = sim.model.weight_bytes + sim.model.stage_kv_bytes(0, 4, 1300)
    sim.add_node(tight, holds=True)
    sim.run_until(1.0)
    chats = [ask(sim, sim.nodes[0], LONG_PROMPT[:900], 30) for _ in range(3)]
    sim.run_until(sim.now + 1)
    assert any("in use by other chats" in text for chat in chats for text in chat.notices)
    for chat in chats:
        finish(sim, chat)


def test_several_chats_keep_all_stages_busy() -> None:
    def seconds(n_chats: int) -> float:
        sim = swarm([0.45, 0.45, 0.45], seed=11)
        finish(sim, ask(sim, sim.nodes[0], n_tokens=1))
        start = sim.now
        chats = []
        while len(chats) < n_chats:
            chat = ask(sim, sim.nodes[len(chats)], n_tokens=60)
            if len(chat.expected) == 60:
                chats.append(chat)
            else:
                sim.cancel(chat)
        for chat in chats:
            finish(sim, chat)
        return sim.now - start

    assert seconds(3) < 2.0 * seconds(1), "three chats take less than twice the time of one"


def test_a_second_turn_computes_only_what_is_new() -> None:
    sim = swarm([0.6, 0.6])
    entry = sim.nodes[0]
    first = ask(sim, entry, LONG_PROMPT[:600], 20)
    finish(sim, first)
    before = sum(len(node.computed) for node in sim.nodes)
    history = (*first.ask.ids, *first.got)
    second = sim.ask(entry, (*history, 9, 9, 9), 5, session=first.ask.session)
    assert second is not None
    finish(sim, second)
    computed = sum(len(node.computed) for node in sim.nodes) - before
    assert computed <= 2 * (3 + 5 + 2)


@pytest.mark.parametrize("shares", [[1.5], [0.6, 0.6], [0.4, 0.4, 0.4]], ids=len)
def test_a_beginning_that_was_computed_for_another_is_not_computed_again(shares: list[float]) -> None:
    sim = swarm(shares)
    entry = sim.nodes[0]
    first = ask(sim, entry, LONG_PROMPT[:600], 20)
    finish(sim, first)
    before = sum(len(node.computed) for node in sim.nodes)
    second = sim.ask(entry, (*LONG_PROMPT[:500], 9, 9, 9), 5, source=first.ask.session)
    assert second is not None
    finish(sim, second)
    n_stages = (sum(len(node.computed) for node in sim.nodes) - before) / (3 + len(second.got))
    assert sim.n_copied == 500 * len(shares) and n_stages <= len(shares)


def test_a_device_that_dies_after_a_copy_costs_nobody_his_text() -> None:
    sim = swarm([0.6, 0.6, 0.6])
    first = ask(sim, sim.nodes[0], LONG_PROMPT[:600], 20)
    finish(sim, first)
    second = sim.ask(sim.nodes[0], (*LONG_PROMPT[:500], 9, 9, 9), 60, source=first.ask.session)
    assert second is not None
    sim.run_until(sim.now + 5, done=lambda: len(second.got) > 2)
    sim.kill(sim.nodes[1])
    finish(sim, second)
    assert sim.n_copied > 0


def test_the_toy_shows_a_lost_position() -> None:
    whole = toy.answer(3, (1, 2, 3), 10, 1)
    assert toy.answer(3, (1, 3), 10, 1) != whole
    assert toy.answer(2, (1, 2, 3), 10, 1) != whole
