"""Fetching under a virtual clock, with seeded losses, lies, deaths and restarts."""

from __future__ import annotations

import random

import numpy as np
import pytest

from swarm.wire.ids import PeerId
from tests.helpers.pull_sim import GIGABIT, Lan

MIB = 1 << 20


def sizes(n_chunks: int = 400, seed: int = 0) -> np.ndarray:
    """Mostly a MiB; some small ones, as norms are, and experts of a quarter."""
    rng = random.Random(seed)
    return np.array([rng.choice([MIB, MIB, MIB, MIB // 4, 4096]) for _ in range(n_chunks)], np.int64)


@pytest.mark.parametrize("n_sources", [1, 3])
@pytest.mark.parametrize("rtt_s", [0.0003, 0.005])
def test_a_link_is_kept_at_least_nine_tenths_full(n_sources: int, rtt_s: float) -> None:
    lan = Lan(sizes(800), seed=1, rtt_s=rtt_s)
    for i in range(n_sources):
        lan.add(f"s{i}", range(800))
    device = lan.add("new")
    pull = lan.fetch("new", range(800))
    lan.run(until=60)
    assert pull.done and device.done_at is not None
    assert pull.bytes_done / device.done_at >= 0.9 * GIGABIT
    assert set(device.received.values()) == {1}  # nothing came twice
    sent = [lan.devices[PeerId(f"s{i}")].sent_bytes for i in range(n_sources)]
    assert sum(sent) == pull.bytes_done and min(sent) > 0.1 * max(sent)


def test_slow_and_fast_sources_together_are_nearly_as_fast_as_their_sum() -> None:
    lan = Lan(sizes(600), seed=2)
    for i, rate in enumerate((40e6, 20e6, 2.5e6)):
        lan.add(f"s{i}", range(600), bytes_per_s=rate)
    device = lan.add("new")
    pull = lan.fetch("new", range(600))
    lan.run(until=120)
    assert pull.done and pull.bytes_done / device.done_at >= 0.85 * 62.5e6
    assert sum(count - 1 for count in device.received.values()) <= 10  # help at the end


def test_devices_that_fetch_at_the_same_time_get_most_from_each_other() -> None:
    lan = Lan(sizes(1500), seed=3)
    seeder = lan.add("seeder", range(1500))
    devices = [lan.add(f"d{i}") for i in range(4)]
    pulls = [lan.fetch(f"d{i}", range(1500)) for i in range(4)]
    lan.run(until=120)
    assert all(pull.done for pull in pulls)
    total = pulls[0].bytes_wanted
    assert seeder.sent_bytes < 1.7 * total  # alone it would have sent four times the model
    assert max(device.done_at for device in devices) < 2 * total / GIGABIT


@pytest.mark.parametrize("seed", range(120))
def test_everything_that_an_honest_peer_has_comes_whatever_the_others_do(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 120)
    lan = Lan(sizes(n, seed), seed=seed, rtt_s=rng.choice([0.0003, 0.003, 0.02]))
    n_peers = rng.randint(1, 6)
    for i in range(n_peers):
        have = [chunk for chunk in range(n) if rng.random() < rng.choice([0.2, 0.6, 1.0])]
        rate = rng.choice([GIGABIT, 10e6, 2.5e6])
        lan.add(f"p{i}", have, bytes_per_s=rate, lies=rng.choice([0, 0, 0, 0.3]), loses=rng.choice([0, 0, 0.1]))
    lan.add("honest", range(n), bytes_per_s=20e6)
    device = lan.add("new")
    pull = lan.fetch("new", range(n))

    def harm(peer: PeerId) -> None:
        victim = lan.devices[peer]
        what = rng.choice(["die", "freeze", "forget", "notice"])
        if what == "die":
            victim.alive = False
        elif what == "freeze":
            victim.frozen = True
            lan.at(lan.now + rng.uniform(0.5, 8), lambda: setattr(victim, "frozen", False))
        elif what == "forget":
            victim.have[:] = False
        else:
            victim.alive = False
            lan.apply(PeerId("new"), pull.peer_gone(peer, lan.now))

    for i in range(n_peers):
        if rng.random() < 0.5:
            peer = PeerId(f"p{i}")
            lan.at(rng.uniform(0, 3), lambda peer=peer: harm(peer))
    lan.run(until=600, stop=lambda: pull.done)
    assert pull.done and device.have.all() and pull.bytes_done == pull.bytes_wanted, f"seed {seed} at {lan.now}"
    liars = {peer for peer, other in lan.devices.items() if other.lies}
    assert set(device.bans) == pull.banned <= liars


def test_a_source_so_slow_that_a_chunk_outlasts_the_first_patience_still_delivers() -> None:
    lan = Lan(np.full(10, MIB, np.int64), seed=8)
    lan.add("s", range(10), bytes_per_s=150e3)
    device = lan.add("new")
    pull = lan.fetch("new", range(10))
    lan.run(until=300)
    assert pull.done and device.done_at < 150


@pytest.mark.parametrize("seed", range(20))
def test_a_restart_asks_for_no_verified_chunk_again(seed: int) -> None:
    rng = random.Random(seed)
    lan = Lan(sizes(200), seed=seed)
    for i in range(3):
        lan.add(f"s{i}", range(200), bytes_per_s=30e6)
    device = lan.add("new")
    for _ in range(4):
        pull = lan.fetch("new", range(200))
        lan.run(until=lan.now + rng.uniform(0.1, 0.6), stop=lambda pull=pull: pull.done)
        device.pull = None  # kill -9: what was on its way is lost
    pull = lan.fetch("new", range(200))
    lan.run(until=lan.now + 60)
    assert pull.done and set(device.received.values()) == {1}


def test_a_liar_is_banned_named_and_asked_no_more() -> None:
    lan = Lan(sizes(100), seed=5)
    lan.add("honest", range(100))
    liar = lan.add("liar", range(100), lies=1.0)
    device = lan.add("new")
    pull = lan.fetch("new", range(100))
    lan.run(until=30)
    assert pull.done and device.bans == ["liar"]
    assert liar.sent_bytes <= 40 * MIB  # what was on its way before the first lie was found out
    assert pull.add_peer(PeerId("liar"), lan.now) == []


def test_what_no_peer_has_is_told_and_comes_when_one_has_it() -> None:
    lan = Lan(sizes(50), seed=6)
    source = lan.add("s", range(40))
    lan.add("new")
    pull = lan.fetch("new", range(50))
    lan.run(until=20)
    assert not pull.done and pull.unavailable() == list(range(40, 50))
    source.have[:] = True
    lan.run(until=30)
    assert pull.done and pull.unavailable() == []


def test_a_rate_limit_is_kept_and_lifted() -> None:
    lan = Lan(sizes(400), seed=7)
    lan.add("s", range(400))
    lan.add("new")
    pull = lan.fetch("new", range(400))
    lan.run(until=0.5)
    lan.apply(PeerId("new"), pull.set_rate(10e6, lan.now))
    lan.run(until=1.5)  # what was asked before still comes
    before = pull.bytes_done
    lan.run(until=6.5)
    assert 0.7 * 50e6 < pull.bytes_done - before < 1.1 * 50e6
    lan.apply(PeerId("new"), pull.set_rate(0, lan.now))
    lan.run(until=7)
    before = pull.bytes_done
    lan.run(until=12)
    assert pull.bytes_done == before
    lan.apply(PeerId("new"), pull.set_rate(None, lan.now))
    lan.run(until=20)
    assert pull.done
