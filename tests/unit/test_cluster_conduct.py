"""The account of failures of every device."""

from __future__ import annotations

from swarm import limits
from swarm.cluster.conduct import FASTEST_READ_BYTES_PER_S, MOST_MEMORY_BYTES, STEP_LEFT, Conduct
from swarm.cluster.cost import Device
from swarm.wire.ids import PeerId

ME, A = PeerId("0" * 32), PeerId("a" * 32)
B, C = PeerId("b" * 32), PeerId("c" * 32)


def failing(n_times: int) -> tuple[Conduct, list[float]]:
    """A device that fails whenever it may take part again; for how long it was left out each time."""
    conduct, now, left_out = Conduct(ME), 0.0, []
    for _ in range(n_times):
        seconds = conduct.failed(A, "does not answer", now)
        left_out.append(seconds)
        now += seconds
    return conduct, left_out


def test_a_device_that_fails_again_is_left_out_for_longer_up_to_an_hour() -> None:
    _, left_out = failing(7)
    assert left_out[:3] == [15.0, 60.0, 240.0] and left_out[-1] == limits.EXCLUDE_MAX_S == 3600.0


def test_why_it_is_left_out_is_said_while_it_is() -> None:
    conduct = Conduct(ME)
    conduct.failed(A, "does not answer", 0.0)
    assert conduct.why_left_out(A, 14.9) == "it does not answer"
    assert conduct.why_left_out(A, 15.1) == ""


def test_one_incident_that_is_told_twice_counts_once() -> None:
    conduct = Conduct(ME)
    assert conduct.failed(A, "does not answer", 0.0) and not conduct.failed(A, "sends garbage", 0.1)
    assert conduct.accounts[A].failures == 1


def test_work_is_forgiven_slowly_so_one_that_fails_every_few_tokens_never_gets_there() -> None:
    conduct, _ = failing(3)
    conduct.did_well([A], limits.FORGIVE_TOKENS - 1)
    conduct.failed(A, "does not answer", 1000.0)
    conduct.did_well([A], limits.FORGIVE_TOKENS - 1)
    assert conduct.accounts[A].failures == 4
    conduct.did_well([A], 1)
    assert conduct.accounts[A].failures == 3


def test_an_hour_without_a_failure_forgives_one() -> None:
    conduct, _ = failing(2)
    assert conduct.failed(A, "does not answer", 15.0 + 2 * limits.FORGIVE_S) == limits.EXCLUDE_FIRST_S


def test_failures_of_our_own_do_not_add_up() -> None:
    conduct = Conduct(ME)
    assert {conduct.failed(ME, "could not compute", 100.0 * i) for i in range(9)} == {limits.EXCLUDE_FIRST_S}


def test_a_device_that_lacks_memory_is_asked_for_less_and_then_not_at_all() -> None:
    conduct = Conduct(ME)
    assert conduct.lacked(A, 5000, "lacks memory", 0.0) == 0.0 and not conduct.why_left_out(A, 0.0)
    assert conduct.memory_bytes(device(memory=10**6), 1.0) == 5000
    assert conduct.lacked(A, 4999, "lacks memory", 2.0) > 0 and conduct.why_left_out(A, 3.0)


def test_figures_that_no_home_device_has_are_not_believed() -> None:
    seen = Conduct(ME).believed(Device(A, "a", 2**50, 2**50, 1e15, 1e17, 1e-9, 1e-9), 0.0)
    assert seen.read_bytes_per_s == FASTEST_READ_BYTES_PER_S and seen.memory_bytes == MOST_MEMORY_BYTES
    assert seen.layer_s >= 1e-6 and seen.step_s >= 1e-5


def test_a_device_is_planned_with_at_the_pace_that_was_seen() -> None:
    conduct = Conduct(ME)
    for _ in range(3):  # the plan is the same: seen again, it does not add up
        conduct.saw_pace([ME, A], 30.0, 0.0)
    assert conduct.believed(device(), 1.0).read_bytes_per_s == 1e9
    conduct.planned([A])
    conduct.saw_pace([A], 1.0, 2.0)
    assert conduct.believed(device(), 3.0).read_bytes_per_s == 5e9, "it does better: believed more"
    assert conduct.believed(device(), 4.0 + limits.FORGIVE_S).read_bytes_per_s == 1e10
    assert ME not in conduct.accounts


def test_of_paces_the_best_of_the_last_few_counts() -> None:
    conduct = Conduct(ME)
    for ratio in (300.0, 30.0, 60.0, 90.0):
        conduct.saw_pace([A], ratio, 0.0)
    assert conduct.believed(device(), 1.0).read_bytes_per_s == 1e9
    for _ in range(limits.PACES_KEPT):
        conduct.saw_pace([A], 300.0, 1.0)
    assert conduct.believed(device(), 2.0).read_bytes_per_s == 1e8, "it stays so slow"


def test_what_is_about_as_it_was_changes_nothing() -> None:
    conduct = Conduct(ME)
    for ratio in (15.0, 3.0 * 5 / STEP_LEFT, 3.0 * 10 * STEP_LEFT - 1):
        for _ in range(limits.PACES_KEPT):
            conduct.saw_pace([A], ratio, 0.0)
        assert conduct.believed(device(), 1.0).read_bytes_per_s == 1e10 / 5


def test_what_was_seen_is_not_forgotten_while_it_is_seen_of_others() -> None:
    conduct = Conduct(ME)
    conduct.saw_pace([A], 30.0, 0.0)
    later = limits.FORGIVE_S + 1.0
    conduct.saw_pace([B], 15.0, later)
    assert conduct.believed(device(), later).read_bytes_per_s == 1e10 / 5, "as of the other one"
    assert conduct.believed(device(), later + limits.FORGIVE_S).read_bytes_per_s == 1e10


def test_the_number_of_accounts_is_bounded_and_those_left_out_longest_stay() -> None:
    conduct, _ = failing(6)
    for i in range(2 * limits.MAX_ACCOUNTS):
        conduct.failed(PeerId(f"{i:032x}"), "does not answer", 10_000.0)
    assert len(conduct.accounts) <= limits.MAX_ACCOUNTS


def device(memory: int = 10**9) -> Device:
    return Device(A, "a", memory, 10**9, 1e10, 1e10)


def test_who_names_one_device_after_the_other_counts_too() -> None:
    conduct = Conduct(ME)
    assert conduct.names(A, B, 1.0) == {B} and conduct.names(A, B, 2.0) == {B}
    assert conduct.names(A, C, 3.0) == {A, C}
    assert conduct.names(A, B, 4.0 + limits.NAMED_S) == {B}, "that was long ago"
    assert conduct.names(ME, B, 1.0) == {B} and conduct.names(ME, C, 2.0) == {C}, "this device does not lie"


# --- who falsifies, where several had a hand in it

FALSE = "computed something else"


def left_out(conduct: Conduct, now: float) -> set[PeerId]:
    return {peer for peer in (A, B, C) if conduct.why_left_out(peer, now)}


def test_a_device_that_falsified_alone_is_left_out_for_an_hour() -> None:
    conduct = Conduct(ME)
    assert conduct.falsified({ME, A}, FALSE, 0.0) == {A: limits.EXCLUDE_MAX_S}
    assert conduct.why_left_out(A, 3599.0) == "it computed something else" and not conduct.suspicions


def test_of_several_half_come_back_soon_and_so_it_is_found_who_it_was() -> None:
    conduct = Conduct(ME)
    conduct.falsified({A, B, C}, FALSE, 0.0)
    assert left_out(conduct, 1.0) == {A, B, C} and left_out(conduct, 16.0) == {A}
    conduct.falsified({B, C}, FALSE, 16.0)
    assert left_out(conduct, 16.0 + 61.0) == {A, B}
    conduct.falsified({C}, FALSE, 80.0)
    assert left_out(conduct, 81.0) == {C}, "the others were left out for its sake"


def test_one_that_is_known_does_not_acquit_those_who_are_suspected_for_another_reason() -> None:
    conduct = Conduct(ME)
    conduct.falsified({A, B}, FALSE, 0.0)
    conduct.falsified({A, C}, FALSE, 0.0)
    conduct.falsified({C}, FALSE, 1.0)
    assert left_out(conduct, 70.0) == {A, C}, "one of A and B still is not honest"


def test_suspicions_are_bounded() -> None:
    conduct = Conduct(ME)
    for i in range(3 * limits.MAX_SUSPICIONS):
        conduct.falsified({A, PeerId(f"{i:032x}")}, FALSE, float(i))
    assert len(conduct.suspicions) == limits.MAX_SUSPICIONS
