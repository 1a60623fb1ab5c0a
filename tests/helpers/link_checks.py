"""What must hold once faults are over: everybody is connected to everybody, on both lanes, and nothing is missing."""

from __future__ import annotations

from itertools import permutations

from swarm.cluster.membership import Health
from swarm.wire.ids import PeerId
from swarm.wire.messages import Lane
from tests.helpers.link_sim import Run, Sim, Wire

SETTLE_S = 20.0  # silence, handshake time-out and the longest pause between calls, one after the other, and a bit
STAY_S = 1.5  # what was settled stays so
DELIVERY_S = 2.0  # what was said arrives


def settle(sim: Sim) -> float:
    """Let everything come to rest; return how long that took, or raise Violation."""
    start, trouble = sim.now, "nothing was looked at"
    while trouble:
        if sim.now - start >= SETTLE_S:
            sim.fail(trouble)
        sim.run_for(0.5)
        trouble = unsettled(sim)
    took = sim.now - start
    sim.run_for(STAY_S)
    trouble = unsettled(sim)
    if trouble:
        sim.fail(f"it did not last: {trouble}")
    check_messages(sim)
    return took


def unsettled(sim: Sim) -> str:
    """Return what keeps these devices from being one swarm, "" when nothing does."""
    runs = [device.run for device in sim.devices if device.run is not None]
    pairs = list(permutations(runs, 2))
    for run, other in pairs:
        if run.up.get(other.device.id) != other.boot:
            return f"{run.device.name} is not connected to {other.device.name}"
    dead = {device.id for device in sim.devices if device.run is None}
    for run in runs:
        if dead & run.up.keys():
            return f"{run.device.name} goes on with one that is gone"
    for run, other in pairs:
        trouble = _between(run, other)
        if trouble:
            return f"{run.device.name} and {other.device.name}: {trouble}"
    return ""


def _between(run: Run, other: Run) -> str:
    """Both have the same links, in both lanes. When both called there are two, and each side sends on one of them."""
    peer = other.device.id
    if run.members.peers[peer].health is not Health.ALIVE:
        return f"the core says {run.members.peers[peer].health.value}"
    for lane in Lane:
        held, others = _held(run, peer, lane), _held(other, run.device.id, lane)
        if not held:
            return f"no {lane.value} link"
        if set(held) != set(others):
            return f"they hold different {lane.value} links: {[*map(str, held)]}, {[*map(str, others)]}"
        called = [link for link in run.policy.links.peers[peer].lanes[lane] if link.is_call]
        addresses, keys = [link.address for link in called], [link.key for link in called if link.key is not None]
        if len(set(addresses)) < len(addresses) or len(set(keys)) < len(keys):
            return f"two {lane.value} calls for one reason"
    unreached = [each for each in run.policy.unreached(run.now) if each.peer in (None, peer)]
    if unreached:
        return f"still called: {unreached}"
    return ""


def _held(run: Run, peer: PeerId, lane: Lane) -> list[Wire]:
    return [run.wires[link] for link in run.policy.links.peers[peer].lanes[lane]]


def check_messages(sim: Sim) -> None:
    """Everything that was said has arrived, unless a fault or a PeerDown took it."""
    sim.is_talking = False
    sim.run_for(DELIVERY_S)
    runs = {device.id: device.run for device in sim.devices}
    for run in sim.runs:
        for said in (each for messages in run.said.values() for each in messages):
            if not said.arrived and not said.may_be_lost(runs[said.receiver]):
                where = f"on {said.wire}" if said.wire else "never sent"
                sim.fail(f"{said} to {said.receiver[-1]} is lost ({where})")
