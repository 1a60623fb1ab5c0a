"""`swarm import`: copy models from a folder or a stick to where models are kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from swarm import config
from swarm.cli import local
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import harmless, note
from swarm.errors import ModelNotFound, SwarmError
from swarm.units import size_text

HELP = "Copy GGUF models to where models are kept: from files, folders, or sticks that are plugged in. Resumes."
EXAMPLES = """\
  swarm import /media/usb                  all models of a stick
  swarm import ./GLM-4-9B-Q4_K_M.gguf
  swarm import                             looks for sticks and disks that are plugged in
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", metavar="PATH", nargs="*", help="GGUF files or folders; without any, what is plugged in"
    )
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    from swarm.store import copying

    sources = [Path(source) for source in args.sources] or copying.plugged_in()
    if not sources:
        raise ModelNotFound("nothing is plugged in here; name a folder or a GGUF file: swarm import PATH")
    return copy_models(sources, config.load({"home": args.home}))


def copy_models(sources: Sequence[Path], settings: config.Settings) -> int:
    """Copy the models of files and folders, and offer them to the swarm; 1 when one could not be copied."""
    from swarm.models.appraise import beside_weights
    from swarm.store import copying

    found = copying.models_in(sources, settings.models_path)
    if not found:
        raise ModelNotFound(f"there is no GGUF model in {', '.join(map(str, sources))}")
    judge = partial(beside_weights, kv=settings.kv, context=0)
    failed = 0
    with ProgressBar() as bar:
        for path in found:
            try:
                target = copying.copy_model(path, settings.models_path, judge, bar)
            except SwarmError as error:
                bar.end()
                note(f"swarm: not {harmless(path.name)}: {harmless(str(error))}")
                failed += 1
                continue
            bar.end()
            size = sum(file.stat().st_size for file in copying.files_of(target))
            print(f"{harmless(target.stem)} is here: {target} ({size_text(size)})")
            offer(target, settings)
    return 1 if failed else 0


def offer(path: Path, settings: config.Settings) -> None:
    """Tell the swarm at once, where a node runs."""
    node = local.find(settings)
    if node is not None:
        offered = node.post("/swarm/models", {"path": str(path.resolve())}, local.IMPORT_S)
        print(f"  the swarm has it as {harmless(str(offered['name']))}")
