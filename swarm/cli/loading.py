"""From MODEL on the command line to a file on disk and a model ready to answer."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli import local
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import DIM, LINE, note, paint
from swarm.store.naming import resolve

if TYPE_CHECKING:
    from swarm import Model
    from swarm.cli.remote import RemoteModel

QUICK_S = 1.0  # loading that is over sooner needs no bar


def find_model(name: str | None, settings: config.Settings) -> Path:
    """The file that MODEL means; the default model is fetched, with a progress bar, when it is not there yet."""
    with ProgressBar() as progress:
        return resolve(name, settings=settings, progress=progress)


def open_model(args: argparse.Namespace, settings: config.Settings) -> tuple[Model | RemoteModel, str]:
    """The model to talk with, and its name: the swarm's where a node runs on this device, else one loaded here."""
    node = None if args.alone else local.find(settings)
    if node is None:
        path = find_model(args.model, settings)
        return load_model(path, settings), str(path)
    from swarm.cli.remote import RemoteModel

    model = RemoteModel(node, args.model, Quiet())
    return model, model.name


class Quiet:
    """Shows what a node says beside an answer: in passing before the answer has begun, as a line of its own later."""

    def __call__(self, text: str, begun: bool) -> None:
        if not sys.stdout.isatty():
            if text and begun:
                note(f"swarm: {text}")
        elif begun:
            note(f"\n[{text}]")
        else:
            sys.stdout.write(LINE.pass_by(paint(f"[{text}]" if text else "", DIM)))
            sys.stdout.flush()


def load_model(path: Path, settings: config.Settings) -> Model:
    """The model, ready to answer on this device; a progress bar shows when that takes more than a second."""
    import swarm

    started = time.monotonic()
    with ProgressBar() as bar:

        def progress(done: int, total: int) -> None:
            if sys.stderr.isatty() and time.monotonic() - started > QUICK_S:
                bar(f"Loading {path.name}", done, total)

        return swarm.load(
            path,
            threads=settings.threads or None,
            context=settings.context or None,
            kv=settings.kv,
            progress=progress,
        )
