"""The directory of a node: keys, chunks of models, what it measured and whom it met, and where its API listens now."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.files import PRIVATE, disk_errors, make_private, replace_file
from swarm.limits import MAX_CONFIG_BYTES

if TYPE_CHECKING:
    from swarm.engine.expert_chunks import ExpertChunks
    from swarm.net.keys import KeyStore
    from swarm.store.chunks import ChunkStore
    from swarm.store.manifest import Manifest


@dataclass(frozen=True)
class Running:
    """How the commands on this device reach the node that runs; the file is for its user's eyes only."""

    pid: int
    peer: str
    name: str
    port: int
    api_port: int
    token: str  # whoever sends it may change things: invite, leave, rekey


@dataclass(frozen=True)
class Home:
    """One directory for each node."""

    root: Path

    @property
    def keys(self) -> KeyStore:
        # Here, because it loads ZeroMQ: every command looks for a running node, few need keys.
        from swarm.net.keys import KeyStore

        return KeyStore(self.root / "keys")

    @property
    def experts(self) -> Path:
        """Where experts are that do not fit in memory."""
        return self.root / "experts"

    @property
    def kept_kv(self) -> Path:
        """Where keys and values of conversations are that memory has no room for."""
        return self.root / "kv"

    @property
    def store(self) -> Path:
        return self.root / "store"

    def open_store(self, quota_bytes: int | None = None) -> ChunkStore:
        """The chunks of this device, those among them that lie in files of experts, too. Raise ResourceError."""
        from swarm.engine.expert_chunks import ExpertChunks
        from swarm.engine.expert_folder import ExpertFolder
        from swarm.store.chunks import ChunkStore

        def elsewhere(manifest: Manifest) -> ExpertChunks:
            return ExpertChunks(ExpertFolder(self.experts / manifest.id).path, manifest)

        return ChunkStore(self.store, quota_bytes, elsewhere)

    @property
    def log_file(self) -> Path:
        return self.root / "node.log"

    @property
    def measured_file(self) -> Path:
        return self.root / "measured.json"

    @property
    def running_file(self) -> Path:
        return self.root / "running.json"

    @property
    def peers_file(self) -> Path:
        return self.root / "peers.json"

    @property
    def flags_file(self) -> Path:
        return self.root / "flags.json"

    @property
    def names_file(self) -> Path:
        return self.root / "names.json"

    @property
    def alone_file(self) -> Path:
        return self.root / "alone"

    @property
    def is_alone(self) -> bool:
        """True while the swarm was begun here and nobody ever joined it: leaving it loses nothing."""
        return self.alone_file.exists() and not self.addresses()

    def say_alone(self) -> None:
        """A swarm begins here."""
        with disk_errors(self.root, "home"):
            self.alone_file.touch(PRIVATE)

    def say_not_alone(self) -> None:
        """The key is of a swarm that others are in."""
        self.alone_file.unlink(missing_ok=True)

    def make(self) -> None:
        """Make the directory, for its user's eyes only; raise ResourceError when that is not possible."""
        with disk_errors(self.root, "home"):
            make_private(self.root)

    def running(self) -> Running | None:
        """The node that runs here, or that was killed and could not take its file away."""
        value = read_json(self.running_file)
        try:
            return Running(**value) if isinstance(value, dict) else None
        except TypeError:
            return None

    def say_running(self, running: Running) -> None:
        """Tell the commands on this device where the node is."""
        with disk_errors(self.root, "home"):
            # Not durable: after a power cut no node runs.
            replace_file(self.running_file, json.dumps(asdict(running)).encode(), mode=PRIVATE, durable=False)

    def say_stopped(self, pid: int) -> None:
        """Take that back, unless another node has said it meanwhile."""
        running = self.running()
        if running is not None and running.pid == pid:
            self.running_file.unlink(missing_ok=True)

    def forget_conversations(self) -> None:
        """Delete keys and values of all conversations; raise ResourceError when that is not possible."""
        with disk_errors(self.root, "home"):
            for path in self.kept_kv.iterdir() if self.kept_kv.is_dir() else ():
                path.unlink()

    def addresses(self) -> dict[str, str]:
        """Where devices of this swarm were reached before: id -> HOST:PORT."""
        value = read_json(self.peers_file)
        pairs = value.items() if isinstance(value, dict) else ()
        return {peer: text for peer, text in pairs if isinstance(text, str)}

    def keep_addresses(self, addresses: dict[str, str]) -> None:
        """Remember where devices were reached."""
        write_json(self.peers_file, addresses)

    def chosen(self) -> dict[str, str]:
        """Which model of other devices each name meant before: name -> id."""
        value = read_json(self.root / "chosen.json")
        pairs = value.items() if isinstance(value, dict) else ()
        return {name: model for name, model in pairs if isinstance(model, str)}

    def keep_chosen(self, chosen: dict[str, str]) -> None:
        """Remember it."""
        write_json(self.root / "chosen.json", chosen)

    def names(self) -> dict[str, str]:
        """What devices of this swarm called themselves when they were met: id -> name."""
        value = read_json(self.names_file)
        pairs = value.items() if isinstance(value, dict) else ()
        return {peer: text for peer, text in pairs if isinstance(text, str)}

    def keep_names(self, names: dict[str, str]) -> None:
        """Remember them: a device that is off can be named all the same."""
        write_json(self.names_file, names)


def read_json(path: Path) -> object:
    """The value in a small file of ours; None when there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            return json.loads(file.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, value: object) -> None:
    """Write such a file, whole or not at all; a full disk only costs what it would have remembered."""
    with contextlib.suppress(OSError):
        replace_file(path, json.dumps(value).encode())
