"""Whatever home networks do to their connections, devices find together again and nothing that was said is lost.

Play one seed again with `python -m tests.helpers.link_stories N -v`.
"""

from __future__ import annotations

import pytest

from swarm.cluster.membership import Membership
from swarm.net.dial import Dialer
from swarm.net.link_policy import LinkPolicy
from swarm.net.links import Links
from tests.helpers.link_stories import STORIES, Story, play
from tests.helpers.sabotage import Sabotage, shown_by

SEEDS = 320
BLOCK = 40
# Seeds that showed a bug once: of three links that were silent at once, what waited on the first left on the second and
# on the third; a device that came up again while its bulk link was being made got two.
FOUND = (219, 766, 1246)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_devices_find_together_and_nothing_that_was_said_is_lost(first: int) -> None:
    for seed in range(first, first + BLOCK):
        play(seed)


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_showed_a_bug_once(seed: int) -> None:
    play(seed)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_each_story_with_many_delays(story: Story) -> None:
    for seed in range(12):
        play(seed, story)


def test_a_seed_plays_the_same_story_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs = []
    for _ in range(2):
        sim = play(len(STORIES) - 1, STORIES[-1], verbose=True)
        logs.append([line for line in capsys.readouterr().out.splitlines() if "said at" in line])
        assert sim.messages_said() > 100
    assert logs[0] == logs[1]


BOTH = "self.links.peers[remote.peer].lanes[link.lane]"
RULES = {
    "each side keeps its own call": Sabotage(
        LinkPolicy,
        "_up",
        "self.links.add(link, now)",
        f"self.links.add(link, now) or next((o for o in {BOTH} if len({BOTH}) > 1 and not o.is_call), None)",
        22,
    ),
    "a call that said Hello is hung up when another one was faster": Sabotage(
        LinkPolicy, "_calls_without_hello", "not link.has_greeted", "link.connection is None", 117
    ),
    "an address is called twice": Sabotage(LinkPolicy, "_greeted_rival", "or each.address == link.address", "", 21),
    "Hello is said at two addresses of a device": Sabotage(LinkPolicy, "_greeted_rival", "each.key in keys or", "", 12),
    "nobody makes a bulk link when each side sends on the other one's": Sabotage(
        LinkPolicy, "_call_bulk", "links.lanes[Lane.FAST] if", "links.lanes[Lane.FAST][:1] if", 59
    ),
    "nobody makes a bulk link": Sabotage(LinkPolicy, "_call_bulk", "fast is None", "True"),
    "a bulk link is called once": Sabotage(
        LinkPolicy, "_call_bulk", "now + limits.HANDSHAKE_TIMEOUT_S", 'float("inf")', 36
    ),
    "bulk messages do not wait for their link": Sabotage(LinkPolicy, "_up", "link.queue.extend(pending)", "pass"),
    "silence is not noticed": Sabotage(LinkPolicy, "_drop_silent", "link.connection.is_silent(now)", "False", 7),
    "the newest link is used": Sabotage(Links, "add", "len(lane) if is_alive else 0", "0", 439),
    "a second boot is let in beside the first": Sabotage(
        LinkPolicy, "_judge", "links.connection.remote.boot == remote.boot", "True", 42
    ),
    "what waits on a link that goes down is lost": Sabotage(
        LinkPolicy, "_requeue", "other.queue.extend(link.queue)", "pass", 16
    ),
    "what waits on a link that goes down leaves twice": Sabotage(
        LinkPolicy, "_requeue", "link.queue.clear()", "pass", 219
    ),
    "a lost device is not told": Sabotage(LinkPolicy, "_lose", "self._report(", "repr("),
    "a device is told to be up with every link": Sabotage(LinkPolicy, "_up", "elif is_new", "else"),
    "a call that ended counts as under way": Sabotage(LinkPolicy, "_close", "link.key is not None", "False", 8),
    "a named address stays a device of its own": Sabotage(
        Dialer, "answered", "self._targets.pop(address, None)", "None"
    ),
    "who sent garbage is let in again at once": Sabotage(
        LinkPolicy, "broke_protocol", "self.access.back_off(link.connection.device_key, now)", "0.0", 8
    ),
    "a device whose link never broke stays lost for the core": Sabotage(
        Membership, "heard", "and not peer.link_up", "", 625
    ),
}


@pytest.mark.parametrize("what", RULES)
def test_some_seed_shows_that(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown_by(RULES[what], play, range(SEEDS), monkeypatch)
    with capsys.disabled():
        print(f"\n  {what}: {found}", end="")
