"""`swarm rm`: delete a model from this device, or from all devices of the swarm."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from swarm import config
from swarm.cli import local
from swarm.cli.terminal import harmless
from swarm.errors import ConfigError, ModelNotFound
from swarm.store import shelf
from swarm.units import size_text

HELP = "Delete a model from this device: its file, whole or in part, packed weights, chunks. Other devices keep theirs."
EXAMPLES = """\
  swarm rm glm-4-9b:Q4_K_M
  swarm rm qwen3-8b --everywhere     on all devices that are there
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="as `swarm list` calls it")
    parser.add_argument("--everywhere", action="store_true", help="on every device of the swarm that is there")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    from swarm.local.model import delete_packed

    folder = settings.models_path
    node = local.find(settings)
    if args.everywhere and node is None:
        raise ConfigError("--everywhere needs the node of this device; `swarm join` starts it")
    file = shelf.find(args.model, shelf.kept(folder)) or file_of_the_swarm(args.model, folder, node)
    part = next((model for model in shelf.coming(folder) if model.name.casefold() == args.model.casefold()), None)
    if file is None and part is None and node is None:
        raise shelf.not_on_it(args.model, folder)
    what = file.name if file else part.name if part else args.model
    if not confirmed(what, args):
        print("nothing was deleted")
        return 1
    told = remove_from_swarm(node, args, str(file.path.resolve()) if file else "", found=bool(file or part))
    gained = delete_packed(file.path) if file else 0
    gained += shelf.take_off(file.files if file else part.files if part else ())
    print(f"{harmless(what)} is deleted here ({size_text(gained + int(told.get('bytes', 0)))} gained)")
    for name in told.get("devices", []):
        print(f"  and on {harmless(name)}")
    for name, why in told.get("refused", {}).items():
        print(f"  not on {harmless(name)}: {harmless(why)}")
    return 1 if told.get("refused") else 0


def file_of_the_swarm(text: str, folder: Path, node: local.LocalNode | None) -> shelf.KeptModel | None:
    """The model in the directory of models that the swarm calls so; a file that lies elsewhere is its user's."""
    if node is None:
        return None
    files = local.files_of(node)
    path = files.files.get(files.called(text) or "")
    return shelf.kept_at(path) if path is not None and path.parent == folder.resolve() else None


def remove_from_swarm(node: local.LocalNode | None, args: argparse.Namespace, path: str, *, found: bool) -> Any:
    """Have the node drop what it and, if wanted, the others hold."""
    if node is None:
        return {}
    try:
        wanted: dict[str, object] = {"model": args.model, "path": path, "everywhere": args.everywhere}
        return node.post("/swarm/remove", wanted, local.IMPORT_S)
    except ModelNotFound:
        if not found:
            raise
        return {}


def confirmed(what: str, args: argparse.Namespace) -> bool:
    """Ask, where somebody can answer."""
    if args.yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    where = "on all devices of the swarm" if args.everywhere else "on this device"
    print(f"delete {harmless(what)} {where}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
