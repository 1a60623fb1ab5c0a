"""What a person calls a model, and what is meant: the same for every command, whether a node runs or not.

A text means, the first that applies:

1. the file that it is the path of (only from the user of this device: a client of the API may not name paths);
2. a model of the swarm by its name or id, then a file in the directory of models by its name, both without regard to
   case and punctuation;
3. a model of the swarm, then a kept file, by the beginning of its name, when that is the beginning of one only;
4. a model that can be downloaded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from swarm import config
from swarm.errors import ModelNotFound
from swarm.store.fetching import DOWNLOADS, Download, StepProgress, fetch
from swarm.store.keeping import file_at, is_path, kept_models, what_a_directory_holds
from swarm.wire.ids import ModelId

MIN_ID_DIGITS = 6  # of a model's id that a person may type instead of its name


class OfferedModel(Protocol):
    """A model that some device of the swarm has at least a part of."""

    @property
    def id(self) -> ModelId: ...
    @property
    def name(self) -> str:
        """As `slug` gives it."""

    @property
    def n_whole(self) -> int:
        """Devices that have all of it."""


def resolve(
    model: str | None = None, *, settings: config.Settings | None = None, progress: StepProgress | None = None
) -> Path:
    """Return the GGUF file that `model` means on a device where no node runs; None means the model of the settings.

    Only a model that can be downloaded and is not on disk yet asks the network.
    Raises ModelNotFound, DownloadError, DiskFull.
    """
    settings = settings or config.load()
    text = settings.model if model is None else model
    found = file_at(text) or meaning_of(text, settings.models_path)
    if isinstance(found, Download):
        return fetch(found, settings.models_path, progress)
    if isinstance(found, Path):
        return found
    raise ModelNotFound(_no_file(text, settings.models_path))


def meaning_of(text: str, folder: Path, offered: Sequence[OfferedModel] = ()) -> ModelId | Path | Download | None:
    """What a name means: a model that the swarm has, a file kept in `folder`, one to download, or nothing here."""
    if is_path(text):
        return None
    kept, download = kept_models(folder), DOWNLOADS.get(text.lower())
    return (
        _offered_by_name(text, offered)
        or _kept(text, kept, str.__eq__)
        or _kept(text, kept, _is_same)
        or _offered_by_beginning(text, offered)
        or (download.file_in(folder) if download else None)
        or download
        or _kept(text, kept, _begins)
    )


def offered_model(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    """The model of the swarm that a name means: by its name, a beginning of it, or its id; None when several."""
    return _offered_by_name(text, offered) or _offered_by_beginning(text, offered)


def slug(name: str) -> str:
    """A model's name as one word that can be typed: SmolLM2 135M -> smollm2-135m."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"


def closest(text: str, names: Iterable[str]) -> str | None:
    """The name that somebody may have meant who mistyped it."""
    return next(iter(difflib.get_close_matches(text.lower(), names, n=1)), None)


def _offered_by_name(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    exact = _only(model for model in offered if text.lower() in (model.name, model.id))
    return exact or _only(model for model in offered if _is_same(text, model.name))


def _offered_by_beginning(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    named = _only(model for model in offered if _begins(text, model.name))
    is_long = len(text) >= MIN_ID_DIGITS
    return named or _only(model for model in offered if is_long and model.id.startswith(text.lower()))


def _only(fitting: Iterable[OfferedModel]) -> ModelId | None:
    """The only one, or the only one of those that some device has whole."""
    n_whole = {model.id: model.n_whole for model in fitting}
    ids = [model for model, n in n_whole.items() if n] or list(n_whole)
    return ids[0] if len(ids) == 1 else None


def _kept(text: str, kept: Sequence[Path], fits: Callable[[str, str], bool]) -> Path | None:
    fitting = [path for path in kept if fits(text, path.name) or fits(text, path.stem)]
    return fitting[0] if len(fitting) == 1 else None


def _is_same(text: str, name: str) -> bool:
    return _plain(text) == _plain(name) != ""


def _begins(text: str, name: str) -> bool:
    return _plain(text) != "" and _plain(name).startswith(_plain(text))


def _plain(name: str) -> str:
    """Without case and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _no_file(text: str, folder: Path) -> str:
    """What to tell somebody whose text means nothing here."""
    if Path(text).is_dir():
        return what_a_directory_holds(Path(text))
    names = [*DOWNLOADS, *(path.stem for path in kept_models(folder))]
    close = closest(text, names)
    guess = f" (did you mean {close}?)" if close else ""
    return f"there is no model {text!r}{guess}; give the path of a GGUF file, or one of: {', '.join(names)}"
