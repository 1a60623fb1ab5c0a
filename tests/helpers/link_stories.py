"""What happens to devices in the simulator of links: the bugs of the past, and faults of all kinds.

python -m tests.helpers.link_stories SEED [-v]      play one seed again, with -v every event
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import combinations, permutations

from swarm import limits
from tests.helpers.link_checks import settle
from tests.helpers.link_sim import Device, Sign, Sim

Story = Callable[[Sim], None]


def meet(sim: Sim) -> None:
    """Everybody hears of everybody, in the first seconds."""
    for a, b in permutations(sim.devices, 2):
        if sim.rng.random() < 0.7 or a.index < b.index:
            sim.after(sim.rng.uniform(0, 2), lambda a=a, b=b: learn(a, b))  # type: ignore[misc]


def learn(device: Device, other: Device) -> None:
    """One hears of another one, as by discovery."""
    if device.run is not None:
        device.run.policy.learn(other.id, other.addresses[: device.sim.rng.choice((1, 2))], device.run.now)


def name(device: Device, other: Device) -> None:
    """A person names one address of another device."""
    if device.run is not None:
        device.run.policy.learn_by_hand(device.sim.rng.choice(other.addresses), device.run.now)


def both_call_at_once(sim: Sim) -> None:
    """Two devices are told of each other in the same moment."""
    for a, b in permutations(sim.devices, 2):
        name(a, b)


def named_and_remembered(sim: Sim) -> None:
    """An address is called twice: a person named it, and a device was there before."""
    for a, b in combinations(sim.devices, 2):
        caller, called = sim.rng.sample((a, b), 2)
        learn(caller, called)
        name(caller, called)
        if sim.rng.random() < 0.5:
            name(called, caller)


def second_boot(sim: Sim) -> None:
    """A device starts anew, with or without a word."""
    meet(sim)
    sim.run_for(sim.rng.uniform(1, 5))
    restart(sim, sim.rng.choice(sim.devices))


def restart(sim: Sim, device: Device) -> None:
    """End a device, and start it a moment later; it remembers where others are, or a person names them."""
    sim.kill(device, power=sim.rng.random() < 0.5)
    sim.run_for(sim.rng.choice((0.05, 0.5, 3.0)))
    sim.start(device)
    for other in sim.devices:
        if other is not device:
            for tell in sim.rng.choice(((learn,), (name,), (learn, name))):
                tell(device, other)


def leave_and_come_back(sim: Sim) -> None:
    """A device says goodbye, as after a bug in its transport too, and starts anew."""
    meet(sim)
    sim.run_for(sim.rng.uniform(1, 4))
    device = sim.rng.choice(sim.devices)
    assert device.run is not None
    device.run.do(device.run.policy.leave())
    restart(sim, device)


def power_cut(sim: Sim) -> None:
    """A device is gone, and nobody says so."""
    meet(sim)
    sim.run_for(sim.rng.uniform(1, 5))
    living = [device for device in sim.devices if device.run is not None]
    sim.kill(sim.rng.choice(living), power=True)


def silence_on_one_side(sim: Sim) -> None:
    """One hears the other and is not heard."""
    meet(sim)
    sim.run_for(sim.rng.uniform(2, 4))
    source, sink = sim.rng.sample(sim.devices, 2)
    seconds = sim.rng.choice((sim.rng.uniform(0.5, 6), sim.rng.uniform(1.7, 2.3)))
    sim.cut(source, sink, seconds)
    sim.run_for(seconds)


def frozen(sim: Sim) -> None:
    """A process stands still while others go on, about as long as silence is borne."""
    meet(sim)
    sim.run_for(sim.rng.uniform(2, 4))
    run = sim.rng.choice(sim.devices).run
    assert run is not None
    seconds = sim.rng.uniform(0.5, 4)
    sim.freeze(run, seconds)
    sim.run_for(seconds + 0.1)


def broken_connections(sim: Sim) -> None:
    """Both call, and then some of their connections break, also while much waits to be sent."""
    both_call_at_once(sim)
    for _ in range(sim.rng.randint(1, 4)):
        sim.run_for(sim.rng.uniform(0.5, 2))
        if sim.rng.random() < 0.5:
            source, sink = sim.rng.sample(sim.devices, 2)
            sim.cut(source, sink, sim.rng.uniform(1, 1.8))
            sim.run_for(sim.rng.uniform(0.5, 2))
        open_wires = [wire for wire in sim.wires if wire.is_open]
        if open_wires:
            sim.break_wire(sim.rng.choice(open_wires))


def garbage(sim: Sim) -> None:
    """A device breaks the protocol: it is not let in for a while, and then it is."""
    sim.has_garbage = True
    meet(sim)
    sim.run_for(sim.rng.uniform(3, 5))
    wire = sim.rng.choice([wire for wire in sim.wires if wire.is_open])
    sim.send(wire.flows[sim.rng.choice((wire.caller, wire.called))], Sign("garbage"))
    sim.run_for(limits.GARBAGE_BACKOFF_S - 1)
    if wire.called.device.id in wire.caller.up or wire.caller.device.id in wire.called.up:
        sim.fail("who sent garbage is in again")
    sim.run_for(2)


def everything(sim: Sim) -> None:
    """Faults of all kinds, one upon the other."""
    meet(sim)
    for _ in range(sim.rng.randint(1, 4)):
        sim.rng.choice(FAULTS)(sim)
        sim.run_for(sim.rng.uniform(0, 2))


FAULTS = (
    both_call_at_once,
    named_and_remembered,
    second_boot,
    leave_and_come_back,
    silence_on_one_side,
    frozen,
    broken_connections,
)
STORIES = (*FAULTS, power_cut, garbage, everything)


def play(seed: int, story: Story | None = None, *, verbose: bool = False) -> Sim:
    """Play one story with two or three devices, let it settle, and raise Violation when something is wrong."""
    sim = Sim(seed, 2 + (seed % 3 == 0), verbose=verbose)
    for device in sim.devices:
        sim.start(device)
    (story or STORIES[seed % len(STORIES)])(sim)
    settle(sim)
    return sim


if __name__ == "__main__":
    play(int(sys.argv[1]), verbose="-v" in sys.argv)
