"""The two secrets of a device: its own key, and the key of its swarm. Files with mode 0600, never logged."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from swarm.errors import SwarmKeyError
from swarm.files import PRIVATE, PRIVATE_DIRECTORY, create_file, replace_file
from swarm.wire.proof import Credentials
from swarm.wire.records import KEY_BYTES

CHECK_BYTES = 6  # of a written swarm key: with them it is 64 characters without a spare bit
PREFIX = "swarm"
MAX_KEY_FILE_BYTES = 256


@dataclass(frozen=True)
class SwarmKey:
    """The secret that lets a device in; `generation` counts the rekeys."""

    secret: bytes = field(repr=False)
    generation: int = 0


class KeyStore:
    """The key files in one directory, usually ~/.config/swarm."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.device_file = directory / "device.key"
        self.swarm_file = directory / "swarm.key"

    def device_secret(self) -> bytes:
        """Return this device's secret; the first call makes it."""
        existing = _read(self.device_file)
        if existing is None:
            _create(self.device_file, secrets.token_bytes(KEY_BYTES).hex())
            existing = _read(self.device_file)
        return _parse_hex(existing or "", self.device_file)

    def swarm_key(self) -> SwarmKey | None:
        """Return the key of the swarm that this device is in, None when it is in none."""
        text = _read(self.swarm_file)
        if text is None:
            return None
        secret, _, generation = text.partition(" ")
        if not generation.isdecimal():
            raise _broken(self.swarm_file)
        return SwarmKey(_parse_hex(secret, self.swarm_file), int(generation))

    def keep_swarm_key(self, key: SwarmKey) -> None:
        """Write the swarm's key, replacing an older one in one step."""
        _replace(self.swarm_file, f"{key.secret.hex()} {key.generation}")

    def credentials(self) -> Credentials:
        """Return both secrets; raise SwarmKeyError when this device is in no swarm."""
        key = self.swarm_key()
        if key is None:
            raise SwarmKeyError("this device is in no swarm yet; run `swarm join`")
        return Credentials(key.secret, self.device_secret())

    def forget(self) -> bool:
        """Remove both keys: the device is in no swarm and gets a new id. False when there were none."""
        gone = [_remove(path) for path in (self.swarm_file, self.device_file)]
        return any(gone)


def new_swarm_key(generation: int = 0) -> SwarmKey:
    """Return a fresh random key."""
    return SwarmKey(secrets.token_bytes(KEY_BYTES), generation)


def written(key: SwarmKey) -> str:
    """Return the key as a person may copy it for `--key`: letters and digits, with a check against typing errors."""
    raw = key.secret + key.generation.to_bytes(2, "big")
    text = base64.b32encode(raw + _check(raw)).decode().rstrip("=").lower()
    return "-".join([PREFIX, *(text[i : i + 10] for i in range(0, len(text), 10))])


def from_written(text: str) -> SwarmKey:
    """Return the key that `written` gave; raise SwarmKeyError, which never shows the text."""
    plain = "".join(text.split()).replace("-", "").lower().removeprefix(PREFIX)
    try:
        raw = base64.b32decode(plain.upper() + "=" * (-len(plain) % 8))
    except ValueError:
        raise SwarmKeyError("this is not a swarm key: it has characters that no key has") from None
    body, check = raw[:-CHECK_BYTES], raw[-CHECK_BYTES:]
    if len(body) != KEY_BYTES + 2 or check != _check(body):
        raise SwarmKeyError("this is not a swarm key: a character is missing or wrong; copy it again")
    return SwarmKey(body[:KEY_BYTES], int.from_bytes(body[KEY_BYTES:], "big"))


def curve_pair(secret: bytes) -> tuple[bytes, bytes]:
    """Return (public, secret) as ZeroMQ wants them."""
    encoded = z85.encode(secret)
    return zmq.curve_public(encoded), encoded


def _check(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=CHECK_BYTES, person=b"swarm check").digest()


def _read(path: Path) -> str | None:
    """Return the text of a key file, None when there is none; raise SwarmKeyError when others can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SwarmKeyError(f"{path}: cannot be read ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _broken(path)
        if status.st_mode & 0o077:
            raise SwarmKeyError(
                f"{path}: others can read this key; run `chmod 600 {path}`, or `swarm rekey` if they did"
            )
        if status.st_uid != os.geteuid():
            raise SwarmKeyError(f"{path}: belongs to another user")
        raw = file.read(MAX_KEY_FILE_BYTES)
    try:
        return raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise _broken(path) from None


def _create(path: Path, text: str) -> None:
    """Write a new key file; when another process was faster, its file stays."""
    with _cannot_write(path):
        create_file(path, _line(text), mode=PRIVATE)


def _replace(path: Path, text: str) -> None:
    with _cannot_write(path):
        replace_file(path, _line(text), mode=PRIVATE)


@contextmanager
def _cannot_write(path: Path) -> Iterator[None]:
    """Make the directory of a key file; whatever the disk refuses is a SwarmKeyError."""
    try:
        path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SwarmKeyError(f"{path}: cannot be written ({error.strerror})") from error


def _line(text: str) -> bytes:
    return f"{text}\n".encode("ascii")


def _parse_hex(text: str, path: Path) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        raise _broken(path) from None
    if len(secret) != KEY_BYTES:
        raise _broken(path)
    return secret


def _broken(path: Path) -> SwarmKeyError:
    return SwarmKeyError(f"{path}: is not a key file; run `swarm forget`, then join again with an invitation")


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SwarmKeyError(f"{path}: cannot be removed ({error.strerror})") from error
    return True
