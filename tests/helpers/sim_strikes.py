"""A fault in the middle of a step that several devices compute together: each kind, on each role, by a seed.

python -m tests.helpers.sim_strikes 0 399      so many stories
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from swarm.answers import EndReason
from swarm.cluster.pipeline import Pipeline, is_cut
from tests.helpers.sim import MODEL, Chat, Node, Sim

LONG_PROMPT = tuple(range(1, 60)) * 10  # five batches
ROLES = ("leader", "follower", "entry")
WHEN = ("prefill", "decode")
KINDS: dict[str, Callable[[Sim, Node, Random], None]] = {
    "kill": lambda sim, node, rng: sim.kill(node),
    "restart": lambda sim, node, rng: (sim.kill(node), sim.at(rng.uniform(0.05, 3.0), lambda: sim.restart(node)))[0],
    "freeze": lambda sim, node, rng: (sim.freeze(node), sim.at(rng.uniform(0.3, 6.0), lambda: sim.thaw(node)))[0],
    "cable": lambda sim, node, rng: (sim.split([node]), sim.at(rng.uniform(0.3, 6.0), sim.heal))[0],
    "cut": lambda sim, node, rng: _cut_from_one(sim, node, rng),  # noqa: PLW0108  # defined below
    "slow": lambda sim, node, rng: setattr(node, "sluggish", rng.choice([3.0, 30.0])),
    "refuses": lambda sim, node, rng: _refuse(sim, node, rng),  # noqa: PLW0108
}


@dataclass
class Struck:
    """What happened in one story."""

    sim: Sim
    chats: list[Chat]
    kind: str
    role: str
    when: str
    at: float

    @property
    def blamed(self) -> list[str]:
        """Who was said to have been missing in a step."""
        return [line for line in self.sim.log if "left_out" in line and "missing in a step" in line]

    @property
    def longest_gap(self) -> float:
        times = [time for time in self.chats[0].emitted_at if time >= self.at]
        before = [time for time in self.chats[0].emitted_at if time < self.at][-1:]
        return max((b - a for a, b in zip([*before, *times], times, strict=False)), default=0.0)


def strike(seed: int, kind: str = "", *, n_chats: int = 0) -> Struck:
    """One story: devices share layers, and one of them fails while a step is under way. "none": nobody does."""
    rng = Random(seed)
    sim = Sim(seed, n_layers=rng.randint(3, 6), kv_bytes=4, layout="slices")
    sim.clairvoyance = (0.5, 0.9, 0.0)[seed % 3]
    n = rng.randint(3, 5)
    kv = sim.model.stage_kv_bytes(0, sim.model.n_layers, 4000)
    for i in range(n):
        share = rng.choice([0.45, 0.6, 1.2])
        sim.add_node(int(sim.model.weight_bytes * share) + kv, speed=rng.choice([1e6, 2e6, 4e6]), holds=i < 2)
    sim.run_until(2.0)
    entry = rng.choice(sim.nodes)
    when, role = rng.choice(WHEN), rng.choice(ROLES)
    chats = [_ask(sim, entry, rng, when)]
    chats += [_ask(sim, rng.choice(sim.nodes), rng, "decode") for _ in range(n_chats or rng.choice([0, 0, 1, 3]))]
    _run_to_the_middle(sim, entry, chats[0], when)
    kind = kind or rng.choice(list(KINDS))
    struck = Struck(sim, chats, kind, role, when, sim.now)
    if kind != "none":
        KINDS[kind](sim, _victim(sim, entry, role, rng), rng)
    # Guesses are made here whatever they cost: on a slow device alone that takes its time.
    sim.run_until(sim.now + 200, done=lambda: all(c.ended is not None or not sim.lives(c) for c in chats))
    for chat in chats:
        if sim.lives(chat):
            sim.require(chat.ended is not None, f"{kind} of the {role} in a {when}: a chat hangs {chat.notices[-1:]}")
            assert chat.ended is not None
            is_short = chat.ended.reason is EndReason.FAILED and "more memory" in chat.ended.error
            sim.require(is_short or chat.got == chat.expected, f"{kind}, {role}, {when}: {chat.ended}")
    return struck


def _ask(sim: Sim, node: Node, rng: Random, when: str) -> Chat:
    prompt = LONG_PROMPT if when == "prefill" else tuple(rng.randrange(200) for _ in range(rng.randint(1, 40)))
    while True:
        chat = sim.ask(node, prompt, 60)
        assert chat is not None
        if len(chat.expected) >= 20:
            return chat
        sim.cancel(chat)
        prompt = (rng.randrange(200), *prompt)


def _run_to_the_middle(sim: Sim, entry: Node, chat: Chat, when: str) -> None:
    """Until the chat is under way, and a step that several devices compute together."""

    def is_there() -> bool:
        session = entry.core.sessions.sessions.get(chat.ask.session)
        far = session is not None and (session.passed > 100 if when == "prefill" else len(chat.got) >= 5)
        return chat.ended is not None or (far and any(n.core.stage_sessions.running for n in sim.nodes))

    sim.run_until(sim.now + 60, done=is_there)
    sim.require(chat.ended is None, f"the chat ended too early: {chat.ended}")


def members_of(sim: Sim, entry: Node) -> list[Node]:
    """Of the first stage that several devices share, the leader first; empty where there is none."""
    placement = entry.core.placer.ready(MODEL)
    stages = [stage for stage in Pipeline.of(placement).stages if is_cut(stage)]
    return [sim.by_id[shard.peer] for shard in stages[0].members] if stages else []


def _victim(sim: Sim, entry: Node, role: str, rng: Random) -> Node:
    members = members_of(sim, entry)
    if role == "entry" or not members:
        return entry
    return members[0] if role == "leader" else rng.choice(members[1:])


def _cut_from_one(sim: Sim, node: Node, rng: Random) -> None:
    others = [other for other in sim.nodes if other is not node]
    sim.cut(node, rng.choice(others), both=rng.random() < 0.7)
    sim.at(rng.uniform(0.3, 6.0), sim.heal)


def _refuse(sim: Sim, node: Node, rng: Random) -> None:
    node.step_fails = 1.0
    sim.at(rng.uniform(0.05, 1.0), lambda: setattr(node, "step_fails", 0.0))


def main(arguments: list[str]) -> None:
    first, last = int(arguments[0]), int(arguments[-1])
    failed = 0
    for seed in range(first, last + 1):
        try:
            strike(seed)
        except Exception as error:
            failed += 1
            print(f"{type(error).__name__}: {str(error)[:200]}  (seed {seed})")
    print(f"{last - first + 1 - failed} of {last - first + 1} seeds hold")


if __name__ == "__main__":
    main(sys.argv[1:])
