"""Whose process has the other end of a local connection."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from swarm.api.local_user import ConnectionUser, user_of


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's table of connections")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_of_ours_is_ours(family: int, host: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"there is no {host} here")
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            ends = client.getsockname()[:2], client.getpeername()[:2]
            assert user_of(*ends) == str(os.getuid())
            assert user_of(ends[1], ends[0]) in (str(os.getuid()), "0"), "the other end has an owner too"


@pytest.mark.skipif(sys.byteorder != "little", reason="a table as a little machine writes it")
def test_the_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:A1B2 0100007F:48DA 01 00000000:00000000 00:00000000 00000000  1001        0 5 1\n"
        "   1: 0000000000000000FFFF00000100007F:A1B3 0000000000000000FFFF00000100007F:48DA 01 0:0 00:0 0  1002 0 5 1\n"
    )
    assert user_of(("127.0.0.1", 0xA1B2), ("127.0.0.1", 0x48DA), (table,)) == "1001"
    assert user_of(("127.0.0.1", 0xA1B3), ("127.0.0.1", 0x48DA), (table,)) == "1002"
    assert user_of(("127.0.0.1", 5), ("127.0.0.1", 0x48DA), (table,)) == ""


@pytest.mark.parametrize("text", ["", "junk", "head\njunk\n", "head\n" + "x " * 3])
def test_a_table_that_cannot_be_read_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "tcp").write_text(text)
    assert user_of(("127.0.0.1", 5), ("127.0.0.1", 6), (tmp_path / "tcp", tmp_path / "none")) == ""
    assert user_of(("testclient", 5), ("testserver", 6)) == ""


def test_a_connection_is_looked_up_until_it_is_found() -> None:
    told = iter(["", "1001"])
    user = ConnectionUser(lambda client, server: next(told))
    ends = ("127.0.0.1", 5), ("127.0.0.1", 6)
    assert [user.of(*ends) for _ in range(4)] == ["", "1001", "1001", "1001"]
