"""Key files: private, whole, and never shown."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from swarm.errors import SwarmKeyError
from swarm.net import keys
from swarm.net.keys import KeyStore, SwarmKey


def test_a_device_key_is_made_once_and_private(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "config")
    secret = store.device_secret()
    assert secret == KeyStore(tmp_path / "config").device_secret()
    assert store.device_file.stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_processes_that_start_together_agree_on_one_device_key(tmp_path: Path) -> None:
    secrets: list[bytes] = []
    threads = [threading.Thread(target=lambda: secrets.append(KeyStore(tmp_path).device_secret())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 8 and len(set(secrets)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["device.key"]


def test_a_swarm_key_is_kept_and_replaced(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    assert store.swarm_key() is None
    for generation in (0, 1):
        key = keys.new_swarm_key(generation)
        store.keep_swarm_key(key)
        assert store.swarm_key() == key
    assert store.swarm_file.stat().st_mode & 0o777 == 0o600
    assert store.credentials().swarm_key == key.secret


def test_a_device_in_no_swarm_is_told_to_join(tmp_path: Path) -> None:
    with pytest.raises(SwarmKeyError, match="swarm join"):
        KeyStore(tmp_path).credentials()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    store = KeyStore(tmp_path)
    store.device_secret()
    store.device_file.chmod(mode)
    with pytest.raises(SwarmKeyError, match="chmod 600"):
        store.device_secret()


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "00" * 33, "\xff", "00" * 200])
def test_a_broken_key_file_is_named_and_not_shown(tmp_path: Path, content: str) -> None:
    store = KeyStore(tmp_path)
    for path in (store.device_file, store.swarm_file):
        path.write_text(content, encoding="latin-1")
        path.chmod(0o600)
    for read in (store.device_secret, store.swarm_key):
        with pytest.raises(SwarmKeyError, match="is not a key file"):
            read()


def test_a_link_instead_of_a_key_file_is_refused(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    (tmp_path / "other").write_text("00" * 32)
    os.symlink(tmp_path / "other", store.device_file)
    with pytest.raises(SwarmKeyError, match="cannot be read"):
        store.device_secret()


def test_forgetting_removes_both_keys_once(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    before = store.device_secret()
    store.keep_swarm_key(keys.new_swarm_key())
    assert store.forget()
    assert not store.forget()
    assert store.swarm_key() is None
    assert store.device_secret() != before


def test_a_written_key_is_read_back_however_it_was_typed() -> None:
    key = SwarmKey(bytes(range(32)), 3)
    text = keys.written(key)
    assert text.startswith("swarm-")
    for typed in (text, text.upper(), text.replace("-", ""), text.replace("-", " "), f"  {text}\n"):
        assert keys.from_written(typed) == key


def test_a_typing_error_in_a_written_key_is_noticed_and_not_shown() -> None:
    text = keys.written(keys.new_swarm_key())
    for i in range(6, len(text)):
        if text[i] != "-":
            wrong = text[:i] + ("a" if text[i] != "a" else "b") + text[i + 1 :]
            with pytest.raises(SwarmKeyError) as raised:
                keys.from_written(wrong)
            assert wrong not in str(raised.value)
    for wrong in ("", "swarm", text[:-1], text + "a", "swarm-é", "swarm-" + "1" * 60):
        with pytest.raises(SwarmKeyError, match="not a swarm key"):
            keys.from_written(wrong)


def test_the_text_of_a_key_object_does_not_show_it() -> None:
    key = keys.new_swarm_key()
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)
