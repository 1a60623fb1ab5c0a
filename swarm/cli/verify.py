"""`swarm verify`: are the models on this device what they were when they came?"""

from __future__ import annotations

import argparse

from swarm import config
from swarm.cli import local
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import GREEN, RED, harmless, paint
from swarm.errors import SwarmError
from swarm.store import shelf
from swarm.store.gguf import open_gguf

HELP = "Read models of this device again and compare them with the SHA-256 that came with them. Exit code 1: damaged."
EXAMPLES = """\
  swarm verify                 all of them, the chunks for the swarm included
  swarm verify glm-4-9b
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="as `swarm list` calls it; all without it")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    models = shelf.kept(settings.models_path)
    if args.model is not None:
        found = shelf.find(args.model, models)
        if found is None:
            raise shelf.not_on_it(args.model, settings.models_path)
        models = [found]
    with ProgressBar() as bar:
        told = [verdict(model, bar) for model in models]
        told += [] if args.model else chunks(settings, bar)
    for text, right in told:
        print(f"{paint('ok', GREEN) if right else paint('!!', RED)}   {harmless(text)}")
    if not told:
        print(f"there is no model in {settings.models_path}")
    return 0 if all(right for _, right in told) else 1


def verdict(model: shelf.KeptModel, bar: ProgressBar) -> tuple[str, bool]:
    """What is to be said of a file, and whether it is right."""
    wrong = shelf.damaged(model, lambda done, total: bar(f"Reading {model.path.name}", done, total))
    if wrong:
        names = ", ".join(path.name for path in wrong)
        return f"{model.name} is damaged ({names}): `swarm rm {model.name}`, then pull it again", False
    if wrong is not None:
        return f"{model.name} is what came from {model.origin}", True
    try:
        open_gguf(model.path).close()
    except SwarmError as error:
        return f"{model.name}: {error}", False
    return f"{model.name} has a sound header; there is no hash to compare the rest with ({model.path})", True


def chunks(settings: config.Settings, bar: ProgressBar) -> list[tuple[str, bool]]:
    """What the chunks of this device are; wrong ones are forgotten, and fetched again when they are needed."""
    from swarm.node.home import Home
    from swarm.store.chunks import ChunkStore

    node = local.find(settings)
    if node is not None:
        bar("Reading the chunks of this device", 0, 0)
        checked = node.post("/swarm/verify", {}, local.IMPORT_S)["models"]
        found = [(str(one["name"]), int(one["held"]), int(one["wrong"])) for one in checked]  # type: ignore[attr-defined]
    else:
        root = Home(settings.home_path).store
        if not root.is_dir():
            return []
        store = ChunkStore(root)
        try:
            found = store.verify(lambda done, total: bar("Reading the chunks of this device", done, total))
        finally:
            store.close()
    return [_of_chunks(*one) for one in found if one[1]]


def _of_chunks(name: str, n_held: int, n_wrong: int) -> tuple[str, bool]:
    if n_wrong:
        return f"{name}: {n_wrong} of {n_held} chunks were damaged; they are fetched again when they are needed", False
    return f"{name}: {n_held} chunks for the swarm are right", True
