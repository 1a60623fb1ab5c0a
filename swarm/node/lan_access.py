"""Whether other devices of the house may ask this node, and with which key: kept in its home, off unless said."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from swarm.files import PRIVATE, disk_errors, replace_file
from swarm.node.home import Home, read_json

LAN_PORT = 8742  # beside the local API's 8642: it stays the same, for other devices remember it
KEY_BYTES = 24
KEY_PREFIX = "swarm-"


@dataclass(frozen=True)
class LanAccess:
    """What was decided. The key itself is not kept: only who has it can show it."""

    on: bool = False
    port: int = LAN_PORT
    key_digest: str = ""
    hosts: tuple[str, ...] = ()  # names of this device, beside its own and its addresses
    origins: tuple[str, ...] = ()  # pages of other sites that may ask, as https://chat.example; "*" is all
    certificate: str = ""  # files for TLS
    private_key: str = ""

    def opens_with(self, key: str) -> bool:
        """Whether this is the key."""
        return bool(self.key_digest) and hmac.compare_digest(digest(key), self.key_digest)


def digest(key: str) -> str:
    """What is kept of a key; it is long and random, so once is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A key that nobody has yet."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def read_access(home: Home) -> LanAccess:
    """What was decided; nothing is open where the file is missing or damaged."""
    try:
        return msgspec.convert(read_json(_file(home)), LanAccess)
    except msgspec.ValidationError:
        return LanAccess()


def keep_access(home: Home, access: LanAccess) -> None:
    """Decide it, for this run of the node and later ones."""
    with disk_errors(home.root, "home"):
        replace_file(_file(home), json.dumps(asdict(access)).encode(), mode=PRIVATE)


def _file(home: Home) -> Path:
    return home.root / "lan.json"
