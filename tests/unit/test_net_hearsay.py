"""What other devices say about where others are, and how little is done for it."""

from __future__ import annotations

from swarm import limits
from swarm.net.dial import Dialer
from swarm.net.hearsay import Hearsay
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

ME, LIAR, OTHER = (PeerId(c * 32) for c in "5cd")


def near(host: str) -> bool:
    return host.startswith("10.0.0.")


def third_party(port: int) -> Address:
    return Address("10.0.0.9", port)


def calls_in(dialer: Dialer, seconds: float, liars: tuple[PeerId, ...] = (LIAR,)) -> list[float]:
    """Liars tell of new devices all the time, at a third party's ports, where nobody answers."""
    times, now, n = [], 0.0, 0
    while now < seconds:
        for liar in liars:
            for _ in range(20):
                n += 1
                dialer.hear(liar, PeerId(f"{n:032x}"), [third_party(1 + n % 60000)], now)
        for key, address in dialer.due(now, ()):
            times.append(now)
            dialer.ended(key, address, now)
        now += 0.1
    return times


def test_one_liar_makes_this_device_call_ten_times_a_minute_at_most() -> None:
    times = calls_in(Dialer(ME, near), 180.0)
    assert len(times) == 3 * limits.MAX_TOLD_CALLS
    assert all(sum(start <= at < start + 60.0 for at in times) <= 10 for start in range(120))


def test_many_liars_together_do_not_get_much_more() -> None:
    times = calls_in(Dialer(ME, near), 60.0, tuple(PeerId(f"ff{i:030x}") for i in range(20)))
    assert len(times) == limits.MAX_ALL_TOLD_CALLS


def test_nobody_outside_the_own_networks_is_called() -> None:
    dialer = Dialer(ME, near)
    dialer.hear(LIAR, OTHER, [Address("192.0.2.1", 80), Address("10.0.1.1", 80)], 0.0)
    assert dialer.due(100.0, ()) == []


def test_an_address_that_does_not_answer_is_given_up_and_not_taken_again_for_long() -> None:
    dialer = Dialer(ME, near)
    n_calls = 0
    for step in range(3000):
        now = step * 0.2
        dialer.hear(LIAR, OTHER, [third_party(80)], now)
        for key, address in dialer.due(now, ()):
            n_calls += 1
            dialer.ended(key, address, now)
    assert n_calls == limits.MAX_TOLD_FAILURES


def test_what_is_known_better_is_not_touched_by_hearsay() -> None:
    dialer, right = Dialer(ME, near), Address("10.0.0.2", 7417)
    dialer.learn(OTHER, [right], 0.0)
    for port in range(100):
        dialer.hear(LIAR, OTHER, [third_party(port)], 0.0)
    assert dialer.addresses(OTHER)[0] == right


def test_hearsay_that_turns_out_to_be_right_is_known_then() -> None:
    dialer = Dialer(ME, near)
    dialer.hear(LIAR, OTHER, [third_party(80)], 0.0)
    ((key, address),) = dialer.due(1.0, ())
    dialer.answered(key, address, OTHER, 1.0)
    for step in range(20):  # it goes away: called as often as any
        now = 100.0 + 10.0 * step
        assert dialer.due(now, ()) == [(OTHER, address)]
        dialer.ended(OTHER, address, now)


def test_devices_that_are_here_by_now_leave_room_for_others() -> None:
    dialer, here = Dialer(ME, near), set()
    for i in range(100):
        peer = PeerId(f"{i:032x}")
        dialer.hear(LIAR, peer, [Address(f"10.0.0.{i}", 7417)], 0.0)
        here.add(peer)
        dialer.due(0.0, here)
    assert all(dialer.addresses(PeerId(f"{i:032x}")) for i in range(100))


def test_many_names_for_one_address_do_not_make_more_calls() -> None:
    """What one of them lets go must not make the others' word a proof."""
    dialer, times, n = Dialer(ME, near), [], 0
    for step in range(600):
        now = 0.1 * step
        for _ in range(64):
            n += 1
            dialer.hear(LIAR, PeerId(f"{n:032x}"), [third_party(port) for port in range(16)], now)
        for key, address in dialer.due(now, ()):
            times.append(now)
            dialer.ended(key, address, now)
    assert len(times) <= limits.MAX_TOLD_CALLS


def test_what_is_remembered_is_bounded() -> None:
    hearsay = Hearsay(near)
    for i in range(3 * limits.MAX_BLOCKED_KEYS):
        said = (OTHER, Address(f"10.0.0.{i % 250}", 1 + i))
        assert hearsay.take(LIAR, said, 0.0)
        assert [hearsay.failed(said, 0.0) for _ in range(limits.MAX_TOLD_FAILURES)][-1]
        hearsay.forget(said)
    assert len(hearsay._barred) <= limits.MAX_BLOCKED_KEYS
    assert not hearsay._told and not hearsay._failures and not hearsay._counted


def test_what_one_device_tells_is_remembered_up_to_a_number_and_others_have_their_own() -> None:
    hearsay = Hearsay(near)
    told = [hearsay.take(LIAR, (PeerId(f"{n:032x}"), third_party(1 + n)), 0.0) for n in range(2000)]
    assert sum(told) == limits.MAX_TOLD_ADDRESSES and not told[-1]
    assert hearsay.take(OTHER, (PeerId("a" * 32), third_party(9)), 0.0)
