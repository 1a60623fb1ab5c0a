"""From MODEL on the command line to a file on disk and a model ready to answer."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli.progress import ProgressBar
from swarm.store import catalog

if TYPE_CHECKING:
    from swarm import Model

QUICK_S = 1.0  # loading that is over sooner needs no bar


def find_model(name: str | None, settings: config.Settings) -> Path:
    """The file that MODEL means; the default model is fetched, with a progress bar, when it is not there yet."""
    with ProgressBar() as progress:
        return catalog.resolve(name, settings=settings, progress=progress)


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
