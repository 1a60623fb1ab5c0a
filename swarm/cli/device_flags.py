"""The flags that say what a node may take of its device: for `swarm join`, and for the service that repeats them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm import config
from swarm.cli.options import whole
from swarm.cli.terminal import note
from swarm.node.home import Home, read_json, write_json

SETTINGS = ("home", "name", "memory", "disk", "port", "api_port", "threads", "context")


@dataclass(frozen=True)
class Start:
    """How a node is started: settings by name, whom to call, and whether to look for others."""

    settings: Mapping[str, config.Value] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    discover: bool = True

    @property
    def words(self) -> list[str]:
        """As on the command line of `swarm join`."""
        words = []
        for name in SETTINGS:
            if name in self.settings:
                words += [f"--{name.replace('_', '-')}", str(self.settings[name])]
        for peer in self.peers:
            words += ["--peer", peer]
        return words + ["--no-discovery"] * (not self.discover)

    def over(self, older: Start) -> Start:
        """This one, with what only the older one says below."""
        settings = {**older.settings, **self.settings}
        return Start(settings, self.peers or older.peers, self.discover and older.discover)

    def __str__(self) -> str:
        """For people: without the home, which is where it has always been."""
        shown = Start({k: v for k, v in self.settings.items() if k != "home"}, self.peers, self.discover)
        return shlex.join(shown.words)


def add(parser: argparse.ArgumentParser) -> None:
    """The flags, as a group of their own."""
    parser.add_argument(
        "--peer", metavar="HOST[:PORT]", action="append", default=[], help="call a device here; may be repeated"
    )
    parser.add_argument("--no-discovery", action="store_true", help="do not look for devices by multicast")
    group = parser.add_argument_group("this device")
    group.add_argument("--name", metavar="NAME", help="what others call it (default: its host name)")
    group.add_argument("--memory", metavar="SIZE", help="memory for weights and conversations: 6GiB or 75%%")
    group.add_argument("--disk", metavar="SIZE", help="disk for chunks of models: 50GB or 20%%")
    group.add_argument("--threads", metavar="N", type=whole(1, 1024), help="threads that compute")
    group.add_argument("--context", metavar="N", type=whole(1), help="tokens that a conversation may hold")
    group.add_argument("--home", metavar="DIR", help="where keys, chunks and log are kept")
    group.add_argument("--port", metavar="N", type=whole(0, 65535), help="TCP port for other devices")
    group.add_argument("--api-port", metavar="N", type=whole(0, 65535), help="port of the local API")


def typed(args: argparse.Namespace) -> Start:
    """The flags that were typed."""
    settings = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    return Start(settings, tuple(args.peer), not args.no_discovery)


def remember(home: Home, start: Start) -> None:
    """Keep what a node was started with, for the service that may come; what nobody typed stays as it was."""
    new = start.over(remembered(home))
    if new != remembered(home):
        settings = {name: value for name, value in new.settings.items() if name != "home"}
        write_json(home.flags_file, {"settings": settings, "peers": list(new.peers), "discover": new.discover})


def with_settings_of_before(start: Start, home: Home) -> Start:
    """A start with what a node here was given before and nobody typed now, which is said; not whom it called."""
    before = remembered(home).settings
    kept = Start({name: value for name, value in before.items() if name not in start.settings})
    if kept.settings:
        note(f"swarm: as at the last start: {kept} (give a flag to change it)")
    return Start({**kept.settings, **start.settings}, start.peers, start.discover)


def remembered(home: Home) -> Start:
    """What a node here was last started with; nothing where that cannot be told."""
    value = read_json(home.flags_file)
    if not isinstance(value, dict):
        return Start()
    settings, peers = value.get("settings"), value.get("peers")
    pairs = settings.items() if isinstance(settings, dict) else ()
    return Start(
        {name: each for name, each in pairs if name in SETTINGS and type(each) in (str, int)},
        tuple(peer for peer in peers if isinstance(peer, str)) if isinstance(peers, list) else (),
        value.get("discover") is not False,
    )
