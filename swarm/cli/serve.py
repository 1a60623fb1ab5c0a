"""`swarm serve`: let programs on other devices of the house use this node's API, with a key; off unless said."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli import local, options
from swarm.cli.terminal import note
from swarm.errors import ConfigError

if TYPE_CHECKING:
    from swarm.node.lan_access import LanAccess

HELP = "Let other devices of the house use this node's API, with a key that is shown once. It stays so until --off."
EXAMPLES = """\
  swarm serve                        is the API open to other devices, and where
  swarm serve --lan                  open it; shows the key, once
  swarm serve --lan --new-key        another key; the old one opens nothing any more
  swarm serve --origin app://obsidian.md     let pages of that origin ask, on this device (and with --lan, on others)
  swarm serve --off                  close it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lan", action="store_true", help="open the API to other devices")
    parser.add_argument("--off", action="store_true", help="close it to them")
    parser.add_argument("--new-key", action="store_true", help="make another key")
    parser.add_argument("--port", metavar="N", type=options.whole(1, 65535), help="port for other devices")
    parser.add_argument("--host", metavar="NAME", action="append", help="a name of this device, beside its own")
    parser.add_argument("--origin", metavar="ORIGIN", action="append", help="a site whose pages may ask; `*` is all")
    parser.add_argument("--certificate", metavar="FILE", help='for https: the certificate, as PEM ("": none)')
    parser.add_argument("--private-key", metavar="FILE", help="and its key")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    from swarm.node.home import Home
    from swarm.node.lan_access import keep_access, read_access

    settings = config.load({"home": args.home})
    home = Home(settings.home_path)
    before = read_access(home)
    if args.lan and args.off:
        raise ConfigError("give --lan or --off, not both")
    if not args.lan and _changes(args):
        raise ConfigError("those need --lan: `swarm serve --lan ...`")
    node = local.find(settings)
    if not (args.lan or args.off or args.origin):
        return _show(before, node)
    access, key = decided(args, before)
    home.make()
    keep_access(home, access)
    try:
        addresses = node.post("/swarm/serve", {})["addresses"] if node is not None else []
    except Exception:
        keep_access(home, before)
        raise
    if args.origin:
        note(f"swarm: pages of {', '.join(access.origins)} may use the API")
    if args.lan or args.off:
        _say(access, addresses, key, runs=node is not None)
    return 0


def decided(args: argparse.Namespace, before: LanAccess) -> tuple[LanAccess, str]:
    """What is in force from now on, and the key where a new one was made."""
    from swarm.node.lan_access import digest, new_key

    if args.off:
        return replace(before, on=False), ""
    if not args.lan:
        return replace(before, origins=tuple(args.origin)), ""
    if bool(args.certificate) != bool(args.private_key):
        raise ConfigError("https needs both: --certificate FILE and --private-key FILE")
    key = new_key() if args.new_key or not before.key_digest else ""
    access = replace(before, on=True, key_digest=digest(key) if key else before.key_digest)
    if args.port is not None:
        access = replace(access, port=args.port)
    if args.host is not None:
        access = replace(access, hosts=tuple(args.host))
    if args.origin is not None:
        access = replace(access, origins=tuple(args.origin))
    if args.certificate:
        files = (str(Path(args.certificate).absolute()), str(Path(args.private_key).absolute()))
        access = replace(access, certificate=files[0], private_key=files[1])
    elif args.certificate is not None:  # given as "": none any more
        access = replace(access, certificate="", private_key="")
    return access, key


def _changes(args: argparse.Namespace) -> bool:
    return bool(args.new_key or args.port or args.host or args.certificate or args.private_key)


def _show(access: LanAccess, node: local.LocalNode | None) -> int:
    if not access.on:
        print("only programs on this device may use the API; `swarm serve --lan` opens it to others")
        return 0
    print(f"other devices may use the API on port {access.port}, with its key")
    if node is None:
        print("no node runs here now; `swarm join` starts it")
    return 0


def _say(access: LanAccess, addresses: object, key: str, *, runs: bool) -> None:
    if not access.on:
        note("swarm: only programs on this device may use the API now")
        return
    listed = addresses if isinstance(addresses, list) else []
    note("swarm: other devices of the house may use the API now" + (":" if listed else ""))
    for address in listed:
        note(f"  {address}      (OpenAI's clients: {address}/v1)")
    if not runs:
        note(f"swarm: as soon as a node runs here (`swarm join`), on port {access.port}")
    if not access.certificate:
        note("swarm: what is said travels unencrypted; on a network you do not trust, give --certificate")
    if key:
        note("swarm: the API key, which is shown this once:")
        print(key)
    else:
        note("swarm: the API key is the one that was shown before; --new-key makes another")
