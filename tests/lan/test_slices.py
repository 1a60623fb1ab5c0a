"""Devices that share every layer, over a real network: whatever happens to one of them, the words stay the same.

SWARM_STRIKES=all pytest -s tests/lan/test_slices.py      every fault of every role, with bars for the gaps; else some
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import pytest

from swarm import load
from swarm.engine.sampling import SamplingParams
from tests.helpers.lan import Lan, why_not
from tests.helpers.nodes import MOST_GAP_S, Heard, NodeProcess, Swarm, wait_for

pytestmark = [pytest.mark.lan, pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")]

CONTEXT = 1024
N_DEVICES = 3
PLENTY = 2_000_000_000
PACE = 0.0125  # so slow say devices to be that three are worth their exchanges, however busy the machine is
NO_END = ((0, -100.0), (2, -100.0))  # biases of the model's end marks: an answer is as long as was asked for
PARAMS = SamplingParams(temperature=0.8, seed=5, logit_bias=NO_END)
PROMPTS = {"decode": "The sea is", "prefill": "Tell me about the sea and the ships on it. " * 55}
TOKENS = {"decode": 120, "prefill": 24}
STRIKE_AT = 12  # pieces of text
FROZEN_S = 4.0  # for an entry node, which only goes on when it is thawed
BAR_S = {"kill": 1.5, "freeze": 3.0, "cut": 3.0, "split": 3.0}  # of the longest gap, on a quiet machine

FAULTS, ROLES, WHENS = tuple(BAR_S), ("leader", "follower", "entry"), ("decode", "prefill")
ALL = list(product(FAULTS, ROLES, WHENS))
SOME = [("kill", "leader", "decode"), ("freeze", "follower", "prefill")]
IS_WHOLE = os.environ.get("SWARM_STRIKES") == "all"


@dataclass
class Team:
    """The devices that compute every layer of the answers of one entry node."""

    lan: Lan
    swarm: Swarm
    entry: NodeProcess
    leader: NodeProcess
    follower: NodeProcess  # who is neither of them

    def host(self, node: NodeProcess) -> int:
        return self.swarm.nodes.index(node) + 1

    def strike(self, fault: str, role: str) -> NodeProcess:
        """Do it, and say to whom."""
        victim: NodeProcess = getattr(self, role)
        if fault == "kill":
            victim.signal(signal.SIGKILL)
        elif fault == "freeze":
            victim.signal(signal.SIGSTOP)
        elif fault == "cut":
            self.lan.cut(self.host(victim))
        else:
            self.lan.split(*self.pair(role))
        return victim

    def mend(self, fault: str, role: str) -> None:
        """Undo it, where that can be."""
        victim: NodeProcess = getattr(self, role)
        if fault == "freeze":
            victim.signal(signal.SIGCONT)
        elif fault == "cut":
            self.lan.heal(self.host(victim))
        elif fault == "split":
            self.lan.join(*self.pair(role))

    def pair(self, role: str) -> tuple[int, int]:
        """Between which two hosts a split of a role is. Where its own failing is looked at, who asks leads."""
        ends = {"leader": ("leader", "follower"), "follower": ("follower", "entry"), "entry": ("entry", "follower")}
        one, other = (self.host(getattr(self, name)) for name in ends[role])
        return one, other


@dataclass
class Story:
    """An answer with a fault in the middle, and when its reader heard anything of it."""

    body: dict[str, object]
    heard: Heard = field(default_factory=Heard)
    at: list[float] = field(default_factory=list)
    struck_at: float = 0.0

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a token, or a word of how far the prompt is read, since the fault."""
        after = [self.struck_at, *(time for time in self.at if time > self.struck_at)]
        return max((b - a for a, b in pairwise(after)), default=0.0)

    def tell(self, entry: NodeProcess, when: str, strike: Callable[[], object]) -> None:
        """Hear the answer; strike in the middle of it."""

        def something_came() -> None:
            self.at.append(time.monotonic())
            if not self.struck_at and (when == "prefill" or len(self.heard.at) == STRIKE_AT):
                strike()
                self.struck_at = time.monotonic()

        entry.ask(
            self.body,
            self.heard,
            on_piece=lambda heard: something_came(),
            on_reading=lambda done, total: something_came() if when == "prefill" and done else None,
        )


def body(model: str, when: str) -> dict[str, object]:
    bias = {str(token): value for token, value in NO_END}
    sampling = {"temperature": PARAMS.temperature, "seed": PARAMS.seed, "logit_bias": bias}
    return {"model": model, "prompt": PROMPTS[when], "max_tokens": TOKENS[when], **sampling}


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan(N_DEVICES, rate="1gbit", delay_ms=0.15) as box:
        yield box


@pytest.fixture(scope="module")
def expected(real_model: Path) -> dict[str, list[int]]:
    """What one device answers."""
    model = load(real_model, threads=1, context=CONTEXT)
    answers = {when: model.generate(PROMPTS[when], max_tokens=TOKENS[when], params=PARAMS) for when in WHENS}
    assert all(answer.text for answer in answers.values())
    return {when: answer.tokens for when, answer in answers.items()}


def team_of(lan: Lan, swarm: Swarm, role: str) -> Team:
    """All devices share the layers; who asks leads them only where its own failing is looked at."""
    for node in swarm.nodes[1:]:
        node.post("/swarm/models", {"path": str(swarm.model_file)})  # whoever is lost, all of the model is there
    members = members_of(swarm, swarm.nodes[0])
    leader, *others = members
    entry = leader if role == "entry" else others[0]
    members_of(swarm, entry)
    return Team(lan, swarm, entry, leader, others[1])


def members_of(swarm: Swarm, entry: NodeProcess) -> list[NodeProcess]:
    """Load the model for this entry node, and say who shares its layers; the leader first."""

    def all_do() -> bool:
        heard = entry.ask({**body(swarm.model, "decode"), "max_tokens": 4})
        assert not heard.error, heard.error
        swarm.wait_mesh()  # a busy device may have been silent for a moment, and was left out
        shards = [shard for device in devices_of(entry) for shard in device["shards"]]  # type: ignore[attr-defined]
        are_all = len(shards) == N_DEVICES and len({(shard["first"], shard["end"]) for shard in shards}) == 1
        if not are_all:
            print(f"not yet: {heard.notes} {shards}")
        return are_all

    wait_for(all_do, "all devices to share the layers")
    names = {str(device["peer"]): device["name"] for device in devices_of(entry)}
    return [next(node for node in swarm.nodes if node.name == names[peer]) for peer in sorted(names)]


def devices_of(node: NodeProcess) -> list[dict[str, object]]:
    devices = node.status()["devices"]
    assert isinstance(devices, list)
    return devices


@pytest.mark.parametrize("case", ALL if IS_WHOLE else SOME, ids=" ".join)
def test_a_fault_of_a_member_changes_no_word(
    tmp_path: Path, real_model: Path, lan: Lan, expected: dict[str, list[int]], case: tuple[str, str, str]
) -> None:
    fault, role, when = case
    with Swarm(
        tmp_path / "swarm",
        [PLENTY] * N_DEVICES,
        model=real_model,
        context=CONTEXT,
        layout="slices",
        paces=[PACE] * N_DEVICES,
        lan=lan,
    ) as swarm:
        team = team_of(lan, swarm, role)
        if (fault, role) == ("kill", "entry"):
            return the_others_go_on(team, when, expected)
        story = Story(body(swarm.model, when))
        try:
            story.tell(team.entry, when, lambda: strike_and_thaw(team, fault, role))
        finally:
            team.mend(fault, role)
    gap_s = story.longest_gap_s
    print(f"{fault:6} {role:8} {when:7} longest gap {gap_s:.2f} s  {story.heard.notes}")
    assert story.struck_at and not story.heard.error
    assert story.heard.tokens == expected[when]
    assert gap_s < (BAR_S[fault] if IS_WHOLE else MOST_GAP_S)


def strike_and_thaw(team: Team, fault: str, role: str) -> None:
    """A frozen entry node says nothing to its reader: the gap counts from when it is thawed."""
    team.strike(fault, role)
    if (fault, role) == ("freeze", "entry"):
        time.sleep(FROZEN_S)
        team.mend(fault, role)


def the_others_go_on(team: Team, when: str, expected: dict[str, list[int]]) -> None:
    """An answer ends with its entry node; what the others did for it must not stop theirs."""
    story = Story(body(team.swarm.model, when))
    with suppress(OSError):  # or the stream only ends: http.client does not say that a chunk is missing
        story.tell(team.entry, when, lambda: team.strike("kill", "entry"))
    assert story.struck_at and not story.heard.finish
    asked_at = time.monotonic()
    heard = team.follower.ask(body(team.swarm.model, "decode"))
    print(f"kill   entry    {when:7} others: first token after {heard.at[0] - asked_at:.2f} s  {heard.notes}")
    assert not heard.error and heard.tokens == expected["decode"]
    assert heard.at[0] - asked_at < (BAR_S["freeze"] if IS_WHOLE else MOST_GAP_S)
