"""`swarm verify`: are the models on this device what they were when they came?"""

from __future__ import annotations

import argparse

from swarm import config
from swarm.cli import local
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import GREEN, RED, harmless, paint
from swarm.errors import SwarmError
from swarm.local.model import digests_dir, packed_dir
from swarm.store import shelf
from swarm.store.gguf import open_gguf
from swarm.store.tensor_digests import CheckedGGUF

HELP = (
    "Read what this device keeps of models again, and compare it with the hashes that are known. Exit code 1: damaged."
)
EXAMPLES = """\
  swarm verify                 all of them, with the chunks for the swarm and packed weights
  swarm verify glm-4-9b
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="as `swarm list` calls it; all without it")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    models, chunks_of = shelf.kept(settings.models_path), ""
    if args.model is not None:
        models, chunks_of = called(args.model, models, settings)
    with ProgressBar() as bar:
        told = [verdict(model, bar) for model in models]
        if args.model is None or chunks_of:
            told += chunks(settings, bar, chunks_of)
        if args.model is None:
            told += packed(settings, bar)
    for text, right in told:
        print(f"{paint('ok', GREEN) if right else paint('!!', RED)}   {harmless(text)}")
    if not told:
        print(f"there is no model in {settings.models_path}")
    return 0 if all(right for _, right in told) else 1


def called(text: str, kept: list[shelf.KeptModel], settings: config.Settings) -> tuple[list[shelf.KeptModel], str]:
    """What is kept here under a name: a file, or the chunks of the model of that id. Raise ModelNotFound."""
    found = shelf.find(text, kept)
    node = local.find(settings) if found is None else None
    if node is not None:
        files = local.files_of(node)
        model = files.called(text)
        if model is not None and model not in files.files:
            return [], model
        found = shelf.kept_at(files.files[model]) if model is not None else None
    if found is None:
        raise shelf.not_on_it(text, settings.models_path)
    return [found], ""


def verdict(model: shelf.KeptModel, bar: ProgressBar) -> tuple[str, bool]:
    """What is to be said of a file, and whether it is right."""
    wrong = shelf.damaged(model, lambda done, total: bar(f"Reading {model.path.name}", done, total))
    if wrong:
        names = ", ".join(path.name for path in wrong)
        return f"{model.name} is damaged ({names}): `swarm rm {model.name}`, then pull it again", False
    if wrong is not None:
        return f"{model.name} is what came from {model.origin}", True
    try:
        return own(model, bar)
    except SwarmError as error:
        return f"{model.name}: {error}", False


def own(model: shelf.KeptModel, bar: ProgressBar) -> tuple[str, bool]:
    """The same of a file that nobody published a hash of: it is compared with what it was when it was first read."""
    with open_gguf(model.path) as file:
        source = CheckedGGUF(file, digests_dir())
        wrong = source.damaged(lambda done, total: bar(f"Reading {model.path.name}", done, total))
        if wrong:
            named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            return f"{model.name} is damaged since it was first read ({named}): fetch or copy {model.path} again", False
        source.keep()
    if source.is_known:
        return f"{model.name} is what it was when it was first read ({model.path})", True
    text = f"{model.name} has a sound header; there is no hash to compare the rest with, so it is noted now"
    return f"{text} ({model.path})", True


def packed(settings: config.Settings, bar: ProgressBar) -> list[tuple[str, bool]]:
    """What was kept of models ready to compute with; what is damaged is deleted, and made again when it is needed."""
    from swarm.engine.expert_file import ExpertFile, take_away
    from swarm.engine.packed import is_right
    from swarm.node.home import Home

    folders = packed_dir(), Home(settings.home_path).experts
    files = sorted(file for folder in folders for file in folder.rglob("*") if not file.name.startswith("."))
    wrong, n_right = [], 0
    for number, file in enumerate(files):
        bar("Reading packed weights", number, len(files))
        if file.suffix == ".packed":
            right = is_right(file)
        else:
            damaged = ExpertFile.damaged(file) if file.suffix == ".experts" and file.is_file() else None
            right = None if damaged is None else not damaged
        n_right += right is True
        if right is False:
            take_away(file)
            wrong.append(file)
    told = [(f"{file} was damaged: it is packed anew from the model when it is needed", False) for file in wrong]
    return told + ([(f"{n_right} files of packed weights are right", True)] if n_right else [])


def chunks(settings: config.Settings, bar: ProgressBar, model: str = "") -> list[tuple[str, bool]]:
    """What the chunks of this device are, of one model or all; wrong ones are forgotten, and fetched when needed."""
    from swarm.node.home import Home

    node = local.find(settings)
    if node is not None:
        bar("Reading the chunks of this device", 0, 0)
        checked = node.post("/swarm/verify", {"model": model}, local.IMPORT_S)["models"]
        found = [(str(one["name"]), int(one["held"]), int(one["wrong"])) for one in checked]  # type: ignore[attr-defined]
    else:
        home = Home(settings.home_path)
        if not home.store.is_dir():
            return []
        store = home.open_store()
        try:
            found = store.verify(lambda done, total: bar("Reading the chunks of this device", done, total))
        finally:
            store.close()
    return [_of_chunks(*one) for one in found if one[1]]


def _of_chunks(name: str, n_held: int, n_wrong: int) -> tuple[str, bool]:
    if n_wrong:
        return f"{name}: {n_wrong} of {n_held} chunks were damaged; they are fetched again when they are needed", False
    return f"{name}: {n_held} chunks for the swarm are right", True
