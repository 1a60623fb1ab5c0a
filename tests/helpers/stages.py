"""Stages of several members in one process: native ones over socket pairs, and links over loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from swarm.kernels import _native
from swarm.net import sodium
from swarm.net.slices import StageLink, StageListener

T = TypeVar("T")
I64 = npt.NDArray[np.int64]
OPEN: list[Closing] = []  # what native stages use and do not own
KEYS = [bytes([j]) * _native.STAGE_KEY_BYTES for j in range(_native.MAX_STAGE_MEMBERS)]


class Closing(Protocol):
    def close(self) -> None: ...


class _EventFd:
    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that `close_all` closes."""
    ends = socket.socketpair()
    OPEN.extend(ends)
    return ends


def close_all() -> None:
    """At the end of a test."""
    while OPEN:
        OPEN.pop().close()


def native_stages(n: int, *, n_values: int = 1 << 16, aes: bool = False, ceiling_ms: int = 5000) -> list[_native.Stage]:
    """Members that are connected by socket pairs."""
    pairs = {(i, j): socket_pair() for i in range(n) for j in range(i + 1, n)}
    stages = []
    for me in range(n):
        stage = lone_stage(me, n, n_values=n_values, ceiling_ms=ceiling_ms)
        ends = [None if j == me else pairs[min(me, j), max(me, j)][me > j] for j in range(n)]
        stage.open(ends, KEYS[:n], aes)
        stages.append(stage)
    return stages


def lone_stage(me: int, n: int, *, n_values: int = 1 << 16, ceiling_ms: int = 5000) -> _native.Stage:
    """A member that is connected with nobody yet."""
    event_fd = _EventFd()
    OPEN.append(event_fd)
    functions, _ = sodium.functions()
    stage = _native.Stage(me, n, functions, event_fd.fd, ceiling_ms=ceiling_ms, name="member {}".format)
    stage.reserve(n_values, n_values)
    return stage


def add_up(stage: _native.Stage, sums: I64, broken: bool = False) -> bool:
    """Exchange sums (tokens, hidden), in place; tokens whose values are small are sent from 32 bits."""
    wide = (np.abs(sums).max(axis=1) >= 2**31).astype(np.int32)
    near = np.where(wide[:, None], 0, sums).astype(np.int32)
    far = np.where(wide[:, None], sums, 0)
    is_broken = stage.exchange(near, far, wide, broken)
    assert not far[wide == 0].any()
    sums[...] = near + far
    return is_broken


def coded(sums: I64) -> bytes:
    """Sums of one token as bytes."""
    return _native.encode_sums(np.zeros(len(sums), np.int32), sums.copy(), True)[0]


@contextmanager
def links(n: int, *, aes: Sequence[bool] = (), key: bytes = bytes(32)) -> Iterator[list[StageLink]]:
    """The links of n members over loopback, connected."""
    listeners = [StageListener("127.0.0.1", 0) for _ in range(n)]
    members = [(f"member {j}", "127.0.0.1", listener.port) for j, listener in enumerate(listeners)]
    with_aes = aes or [True] * n
    made = [StageLink(listeners[j], key, j, members, aes=with_aes[j]) for j in range(n)]
    try:
        for link in made:
            link.wait_ready(10)
        yield made
    finally:
        for link in made:
            link.close()
        for listener in listeners:
            listener.close()


def together(work: Callable[[int], T], n: int) -> list[T | BaseException]:
    """work(j) of all members at the same time, and what each returns or raises."""
    found: list[T | BaseException] = [RuntimeError("did not end")] * n

    def run(j: int) -> None:
        try:
            found[j] = work(j)
        except BaseException as error:
            found[j] = error

    threads = [threading.Thread(target=run, args=(j,), daemon=True) for j in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found
