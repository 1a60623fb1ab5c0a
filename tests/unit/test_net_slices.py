"""Links between the members of a stage, over loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from swarm import limits
from swarm.errors import StageLost, SwarmNetworkError
from swarm.net.slices import StageLink, StageListener
from swarm.net.stage_proof import MESSAGE_BYTES
from tests.helpers.stages import add_up, links, together

KEY = bytes(range(32))


@pytest.fixture
def listener() -> Iterator[StageListener]:
    made = StageListener("127.0.0.1", 0)
    yield made
    made.close()


def exchange(link: StageLink, sequence: int, n_tokens: int = 1) -> list[int]:
    link.native.reserve(n_tokens * 32, 1)
    link.native.begin(sequence)
    sums = np.full((n_tokens, 32), 10**link.native.me, np.int64)
    add_up(link.native, sums)
    return sorted(set(sums.ravel().tolist()))


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("n_tokens", [1, 64])
def test_members_add_up_what_each_has(n: int, n_tokens: int) -> None:
    with links(n) as made:
        total = [sum(10**j for j in range(n))]
        assert together(lambda j: exchange(made[j], 1, n_tokens), n) == [total] * n
        found = together(lambda j: made[j].gather(bytes([j])), n)
        assert found == [[bytes([j]) for j in range(n)], *[None] * (n - 1)]


@pytest.mark.parametrize(("aes", "cipher"), [([True, True], "AES-256-GCM"), ([True, False], "ChaCha20-Poly1305")])
def test_frames_are_sealed_with_what_all_can(aes: list[bool], cipher: str) -> None:
    with links(2, aes=aes) as made:
        if not all(link.proof.has_aes == wanted for link, wanted in zip(made, aes, strict=True)):
            pytest.skip("this CPU has no instructions for AES")
        assert [link.native.sealed_with for link in made] == [cipher] * 2
        assert together(lambda j: exchange(made[j], 1), 2) == [[11]] * 2


def test_a_member_that_comes_later_is_waited_for(listener: StageListener) -> None:
    second = StageListener("127.0.0.1", 0)
    members = [("first", "127.0.0.1", listener.port), ("second", "127.0.0.1", second.port)]
    later = StageLink(second, KEY, 1, members)
    with pytest.raises(StageLost, match="first"):
        later.wait_ready(0.01)
    early = StageLink(listener, KEY, 0, members)
    early.wait_ready(10)
    later.wait_ready(10)
    assert together(lambda j: exchange((early, later)[j], 1), 2) == [[11]] * 2
    for link in (early, later):
        link.close()
    second.close()


def test_who_does_not_come_is_named(listener: StageListener) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        members = [("gone", "127.0.0.1", unused.getsockname()[1]), ("me", "127.0.0.1", listener.port)]
        link = StageLink(listener, KEY, 1, members, connect_s=0.05)
        with pytest.raises(StageLost, match="gone") as lost:
            link.wait_ready(10)
        assert (lost.value.member, lost.value.stage_over) == (0, True)
        link.close()


def test_the_port_is_closed_while_no_stage_is_open(listener: StageListener) -> None:
    assert refuses(listener.port)
    members = [("me", "127.0.0.1", listener.port), ("other", "127.0.0.1", 1)]
    for _ in range(3):
        link = StageLink(listener, KEY, 0, members)
        assert not refuses(listener.port)
        link.close()
        assert refuses(listener.port)


def test_a_port_in_use_is_said_to_be_so(listener: StageListener) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SwarmNetworkError, match="cannot listen"):
            StageListener("127.0.0.1", taken.getsockname()[1])


def test_a_stranger_gets_nothing_and_holds_nobody_up(listener: StageListener) -> None:
    second = StageListener("127.0.0.1", 0)
    members = [("first", "127.0.0.1", listener.port), ("second", "127.0.0.1", second.port)]
    early = StageLink(listener, KEY, 0, members)
    strangers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(3)]
    strangers[0].sendall(os.urandom(MESSAGE_BYTES))
    strangers[1].sendall(b"SWS1" + early.proof.tag + os.urandom(MESSAGE_BYTES))
    for stranger in strangers[:2]:
        stranger.settimeout(10)
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    later = StageLink(second, KEY, 1, members)
    for link in (early, later):
        link.wait_ready(10)
    assert together(lambda j: exchange((early, later)[j], 1), 2) == [[11]] * 2
    strangers[2].settimeout(10)
    assert strangers[2].recv(1) == b""  # it had a second to prove itself
    for end in (*strangers, early, later, second):
        end.close()


def test_a_member_of_another_stage_is_a_stranger(listener: StageListener) -> None:
    second = StageListener("127.0.0.1", 0)
    members = [("first", "127.0.0.1", listener.port), ("second", "127.0.0.1", second.port)]
    ends = [StageLink(listener, KEY, 0, members), StageLink(second, bytes(32), 1, members, connect_s=0.2)]
    for link in ends:
        with pytest.raises(StageLost):
            link.wait_ready(0.5)
        link.close()
    second.close()


def test_one_listener_serves_several_stages() -> None:
    listeners = [StageListener("127.0.0.1", 0) for _ in range(2)]
    members = [(f"member {j}", "127.0.0.1", listener.port) for j, listener in enumerate(listeners)]
    stages = [[StageLink(listeners[j], key, j, members) for j in range(2)] for key in (KEY, bytes(32))]
    for ends in stages:
        for link in ends:
            link.wait_ready(10)
        assert together(lambda j, ends=ends: exchange(ends[j], 1), 2) == [[11]] * 2  # type: ignore[misc]
    for end in (*stages[0], *stages[1], *listeners):
        end.close()


def test_an_abort_wakes_all_and_names_whom_it_blames() -> None:
    with links(3) as made:
        threading.Timer(0.05, lambda: made[0].abort("its heartbeats ended", member=2)).start()
        for found in together(lambda j: exchange(made[j], 1), 2):
            assert isinstance(found, StageLost)
            assert (found.member, found.stage_over) == (2, True) and "heartbeats" in str(found)


def test_an_aborted_step_leaves_the_stage_alive() -> None:
    with links(2) as made:
        made[1].abort("a session is not here", sequence=1)
        with pytest.raises(StageLost, match="session") as lost:
            exchange(made[0], 1)
        assert (lost.value.member, lost.value.stage_over) == (1, False)
        assert together(lambda j: exchange(made[j], 2), 2) == [[11]] * 2


def test_a_link_that_closes_while_others_wait_ends_their_wait() -> None:
    with links(2) as made:
        threading.Timer(0.05, made[1].close).start()
        with pytest.raises(StageLost, match="member 1"):
            exchange(made[0], 1)


def test_a_link_may_be_closed_from_outside_while_its_own_step_waits() -> None:
    with links(2) as made:
        threading.Timer(0.05, made[0].close).start()
        with pytest.raises(StageLost, match="left the stage"):
            exchange(made[0], 1)
        with pytest.raises(StageLost):
            made[0].wait_ready(1)


MEMBER = """
import sys
import numpy as np
from swarm.net.slices import StageLink, StageListener
listener = StageListener("127.0.0.1", 0)
print(listener.port, flush=True)
members = [("first", "127.0.0.1", int(sys.stdin.readline())), ("second", "127.0.0.1", listener.port)]
link = StageLink(listener, bytes(range(32)), 1, members)
link.wait_ready(20)
link.native.reserve(64, 1)
link.native.begin(1)
none = np.zeros((1, 32), np.int64), np.zeros(1, np.int32)
link.native.exchange(np.full((1, 32), 10, np.int32), *none)
print("waits", flush=True)
link.native.exchange(np.zeros((1, 32), np.int32), *none)
"""


def test_a_killed_process_is_noticed_at_once(listener: StageListener) -> None:
    with subprocess.Popen([sys.executable, "-c", MEMBER], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdin and other.stdout
        members = [("first", "127.0.0.1", listener.port), ("second", "127.0.0.1", int(other.stdout.readline()))]
        other.stdin.write(f"{listener.port}\n")
        other.stdin.flush()
        link = StageLink(listener, KEY, 0, members)
        link.wait_ready(20)
        assert exchange(link, 1) == [11]
        assert other.stdout.readline() == "waits\n"
        other.kill()
        other.wait()
        began = time.monotonic()
        with pytest.raises(StageLost, match=r"second .*closed"):
            while True:
                add_up(link.native, np.zeros((1, 32), np.int64))
        assert time.monotonic() - began < limits.STAGE_CEILING_S / 2  # not by the ceiling
        link.close()
