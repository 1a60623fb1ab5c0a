"""What a person calls a model, and what is meant: the same for every command, whether a node runs or not.

A text means, the first that applies:

1. the file that it is the path of (only from the user of this device: a client of the API may not name paths);
2. a model by its id;
3. what this device has under that name: a model that it offers, a file in the directory of models, both without regard
   to case and punctuation; then what its user meant by the name before; then the model that a download of the name is,
   known by its hash;
4. a model that only other devices have, by its name. What they call a model is their word: when they mean several, the
   user must say which;
5. a model of the swarm, then a kept file, by the beginning of its name, when that is the beginning of one only;
6. a model of the table (model_table.py), a repository of the hub or an address of the web (hub_names.py), which can be
   fetched; what was fetched from there before is found in the directory of models, whatever its file is called;
7. a model that another device has in a file that is called so. That is their word, too, as in 4.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from swarm import config
from swarm.errors import ModelNotFound
from swarm.store.fetching import DOWNLOADS, Download, StepProgress, download_at, fetch
from swarm.store.hub_names import HubName, hub_or_web
from swarm.store.keeping import file_at, is_path, kept_models, what_a_directory_holds
from swarm.store.model_table import NAMES, NamedModel, TableModel, named_model
from swarm.store.origins import Origin, Remote, is_from, kept_from
from swarm.wire.ids import ModelId

Get = Callable[[Remote], Path]  # brings a model from where it lies

MIN_ID_DIGITS = 6  # of a model's id that a person may type instead of its name


class OfferedModel(Protocol):
    """A model that some device of the swarm has at least a part of."""

    @property
    def id(self) -> ModelId: ...
    @property
    def name(self) -> str:
        """As `slug` gives it."""

    @property
    def base_name(self) -> str:
        """The same without what tells it from others of that name."""

    @property
    def is_ours(self) -> bool:
        """This device offers it from a file of its own."""

    @property
    def files(self) -> tuple[str, ...]:
        """What it is called on devices that have it as a file."""

    @property
    def n_whole(self) -> int:
        """Devices that have all of it."""

    @property
    def origin(self) -> Origin | None:
        """Where it was fetched, where this device knows that."""


def resolve(
    model: str | None = None,
    *,
    settings: config.Settings | None = None,
    progress: StepProgress | None = None,
    get: Get | None = None,
) -> Path:
    """Return the GGUF file that `model` means on a device where no node runs; None means the model of the settings.

    Only a model that can be fetched and is not on disk yet asks the network; without `get`, only the default one is.
    Raises ModelNotFound, DownloadError, DiskFull.
    """
    settings = settings or config.load()
    text = settings.model if model is None else model
    found = file_at(text) or meaning_of(text, settings.models_path)
    if isinstance(found, Path):
        found = download_at(found, settings.models_path) or found
    if isinstance(found, Download):
        return fetch(found, settings.models_path, progress)
    if isinstance(found, Path):
        return found
    if found is None or isinstance(found, str):
        raise ModelNotFound(no_model(text, settings.models_path))
    if get is None:
        raise ModelNotFound(f"{found} is not on this device; `swarm pull {text}` fetches it")
    return get(found)


def meaning_of(
    text: str, folder: Path, offered: Sequence[OfferedModel] = (), chosen: str = ""
) -> ModelId | Path | Download | Remote | None:
    """What a name means: a model that the swarm has, a file kept in `folder`, one to fetch, or nothing here.

    `chosen`: the id of what the user of this device meant by it before. Raise ModelNotFound for a name that several
    models of the table, or of other devices, have.
    """
    if is_path(text):
        return None
    ours = [model for model in offered if model.is_ours]
    kept, download = kept_models(folder), DOWNLOADS.get(text.lower())
    remote, trouble = None, None
    try:
        remote = remote_of(text)
    except ModelNotFound as error:
        trouble = error
    row = remote.row if isinstance(remote, NamedModel) else None
    mine = [path for path in kept if _may_be(row, path.stem)]
    theirs = [model for model in offered if _may_be(row, model.name)]
    found = (
        _offered_by_id(text, offered)
        or _offered_by_name(text, ours)
        or _kept(text, kept, str.__eq__)
        or _kept(text, kept, _is_same)
        or (kept_from(remote, mine) if remote else None)
        or (_offered_from(remote, offered) if remote else None)
        or (download.file_in(folder) if download else None)
        or next((model.id for model in offered if model.id == chosen), None)
        or (next((model.id for model in offered if model.id == download.manifest), download) if download else None)
        or _theirs_by_name(text, offered, chosen)
        or (_offered_of(remote, theirs) if isinstance(remote, NamedModel) else None)
        or _offered_by_beginning(text, theirs)
        or _kept(text, mine, _begins)
        or remote
        or _theirs_by_file(text, offered, chosen)
    )
    if found is None and trouble is not None:
        raise trouble
    return found


def remote_of(text: str) -> Remote | None:
    """What can be fetched under a text: a name of the table, a repository of the hub, an address of the web.

    The makers' own repository means the row of the table. Raise ModelNotFound for a name that several models have.
    """
    named = named_model(text)
    if named is not None:
        return named
    found = hub_or_web(text, config.hub().endpoint)
    if isinstance(found, HubName) and not found.file and not found.revision:
        original = named_model(found.repository)
        if original is not None:
            return NamedModel(original.row, found.quant)
    return found


def offered_model(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    """The model of the swarm that a name means: by its name, a beginning of it, or its id; None when several."""
    named = _offered_by_name(text, offered) or _offered_by_beginning(text, offered)
    return named or _only(model for model in offered if _is_file(text, model))


def slug(name: str) -> str:
    """A model's name as one word that can be typed: SmolLM2 135M -> smollm2-135m."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"


def closest(text: str, names: Iterable[str]) -> str | None:
    """The name that somebody may have meant who mistyped it."""
    return next(iter(difflib.get_close_matches(text.lower(), names, n=1)), None)


def _offered_by_name(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    exact = _only(model for model in offered if text.lower() in (model.name, model.id))
    return exact or _only(model for model in offered if _is_same(text, model.name))


def _offered_by_id(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    is_long = len(text) >= MIN_ID_DIGITS
    return _only(model for model in offered if is_long and model.id.startswith(text.lower()))


def _theirs_by_name(text: str, offered: Sequence[OfferedModel], chosen: str) -> ModelId | None:
    """The only model that other devices have under this name; ModelNotFound when the name may mean another one."""
    told_apart = [m.id for m in offered if text.lower() == f"{m.base_name}-{m.id[:MIN_ID_DIGITS]}"]
    exact = [model for model in offered if text.lower() == model.base_name]
    found = exact or [model for model in offered if _is_same(text, model.base_name)]
    if told_apart or not found:
        return told_apart[0] if told_apart else None
    return _one_of_theirs(text, found, chosen)


def _theirs_by_file(text: str, offered: Sequence[OfferedModel], chosen: str) -> ModelId | None:
    """The only model of which other devices have a file that is called so; ModelNotFound as for names."""
    found = [model for model in offered if _is_file(text, model)]
    return _one_of_theirs(text, found, chosen) if found else None


def _is_file(text: str, model: OfferedModel) -> bool:
    return any(_is_same(text.lower().removesuffix(".gguf"), file) for file in model.files)


def _one_of_theirs(text: str, found: Sequence[OfferedModel], chosen: str) -> ModelId:
    if len(found) > 1:
        names = ", ".join(model.name for model in found)
        raise ModelNotFound(f"{text} is what several models of other devices are called: say which one, {names}")
    if chosen:
        gone, other = chosen[:MIN_ID_DIGITS], found[0].id[:MIN_ID_DIGITS]
        told = f"{text} meant model {gone} so far, which no device here has now"
        raise ModelNotFound(f"{told}; another one that is called so is there: say {other} for that")
    return found[0].id


def _offered_by_beginning(text: str, offered: Sequence[OfferedModel]) -> ModelId | None:
    return _only(model for model in offered if _begins(text, model.name)) or _offered_by_id(text, offered)


def _offered_from(remote: Remote, offered: Sequence[OfferedModel]) -> ModelId | None:
    """The model of the swarm that was fetched from there."""
    return _only(model for model in offered if model.origin is not None and is_from(model.origin, remote))


def _offered_of(named: NamedModel, offered: Sequence[OfferedModel]) -> ModelId | None:
    """The model of the swarm that is of this row; which quant it is, its name does not tell."""
    if named.quant:
        return None
    return _only(model for model in offered if _row_of(model.name) is named.row)


def _may_be(row: TableModel | None, name: str) -> bool:
    """False for what is called like another model of the table."""
    other = _row_of(name) if row is not None else None
    return other is None or other is row


def _row_of(name: str) -> TableModel | None:
    try:
        named = named_model(name)
    except ModelNotFound:
        return None
    return named.row if named else None


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


def no_model(text: str, folder: Path) -> str:
    """What to tell somebody whose text means nothing here."""
    if Path(text).is_dir():
        return what_a_directory_holds(Path(text))
    kept = [path.stem for path in kept_models(folder)]
    close = closest(text, [*NAMES, *kept])
    guess = f" (did you mean {close}?)" if close else ""
    ours = f", one of those here ({', '.join(kept)})" if kept else ""
    return (
        f"there is no model {text!r}{guess}; give the path of a GGUF file{ours}, a name that `swarm pull` lists, "
        "or hf.co/USER/REPO"
    )
