"""From MODEL on the command line to a file on disk and a model ready to answer."""

from __future__ import annotations

import argparse
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli import local, pulling
from swarm.cli.local import ModelOfSwarm
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import DIM, LINE, note, paint
from swarm.errors import ModelNotFound
from swarm.guessing import MTP
from swarm.store.fetching import Download
from swarm.store.hub_names import HubName, WebAddress
from swarm.store.keeping import file_at, is_path
from swarm.store.model_table import NamedModel
from swarm.store.naming import meaning_of, resolve, slug
from swarm.units import rate_text, size_text, time_text

if TYPE_CHECKING:
    from swarm import Model
    from swarm.cli.remote import RemoteModel
    from swarm.store.getting import Found
    from swarm.store.gguf import GGUF
    from swarm.store.remote_gguf import RemoteGGUF
    from swarm.store.stored_header import StoredHeader

TELL_S = 10.0  # between two lines about one wait, where none can be written over
QUICK_S = 1.0  # loading that is over sooner needs no bar
# What answering takes, and finding the file of a model does not.
NEEDED_TO_ANSWER = (
    *("swarm.local.model", "swarm.text.bpe", "swarm.local.memory", "swarm.engine.decoder"),
    *("swarm.models.registry", "swarm.store.gguf"),
)


def find_model(name: str | None, settings: config.Settings) -> Path:
    """The file on this device that MODEL means; it is fetched, with a progress bar, when no device has it yet.

    Raise ModelNotFound for a model of which only other devices have a file.
    """
    found = find_anywhere(name, settings)
    if isinstance(found, Path):
        return found
    raise ModelNotFound(
        f"{found.name} is in the swarm, but this command needs its file and none is on this device; run it where "
        "`swarm list` shows the file, or copy that here (`swarm import`)"
    )


def find_anywhere(name: str | None, settings: config.Settings) -> Path | ModelOfSwarm:
    """The file here of what MODEL means, whatever the swarm calls it, else the model that only others have.

    What no device has yet is fetched, with a progress bar.
    """
    text = settings.model if name is None else name
    meaning = file_at(text) or meaning_of(text, settings.models_path)
    node = None if isinstance(meaning, Path) else local.find(settings)
    if node is not None and not (isinstance(meaning, Download) and meaning.manifest not in local.files_of(node).names):
        try:
            there = local.model_of_swarm(node, text)
            return there.file or there
        except ModelNotFound:
            if meaning is None:
                raise
    with ProgressBar() as bar:
        return resolve(name, settings=settings, progress=bar, get=lambda remote: pulling.bring(remote, settings, bar))


@dataclass(frozen=True)
class SeenModel:
    """A model of which the header is known: from a file here, or by ranges from where the model lies."""

    header: GGUF | RemoteGGUF | StoredHeader
    found: Found | None = None  # where it can be fetched; None for a file here

    @property
    def where(self) -> str:
        return str(self.header.path)

    @property
    def name(self) -> str:
        """As the swarm would call it."""
        from swarm.store.importing import model_name

        return slug(model_name(self.header.metadata))

    @property
    def fetching(self) -> str:
        """What fetching it takes; "" for a file that is here."""
        if self.found is None:
            return ""
        rate = self.found.header.bytes_per_s
        n_bytes = self.header.size_bytes
        time_ = f": about {time_text(n_bytes / rate)} at {rate_text(rate)}, as its header came" if rate else ""
        return f"{size_text(n_bytes)} from {self.found.place}{time_}"


@contextmanager
def see_model(name: str | None, settings: config.Settings) -> Iterator[SeenModel]:
    """The header of what MODEL means: a file here, a model of the swarm, or one that lies elsewhere.

    Of a model that is not on this device, nothing but the header is fetched.
    """
    from swarm.store.getting import look
    from swarm.store.gguf import open_gguf

    text = settings.model if name is None else name
    remote = file_at(text) or meaning_of(text, settings.models_path)
    stored = None if isinstance(remote, Path) else of_the_swarm(text, settings)
    if stored is not None:
        yield SeenModel(stored)
        return
    if isinstance(remote, NamedModel | HubName | WebAddress):
        with ProgressBar() as bar, pulling.web_of(bar) as web:
            bar("Reading the header", 0, 0)
            found = look(remote, web, pulling.room_of(settings), must_fit=False)
        yield SeenModel(found.header, found)
        return
    with open_gguf(find_model(name, settings)) as file:
        yield SeenModel(file)


def of_the_swarm(text: str, settings: config.Settings) -> StoredHeader | None:
    """The header of a model that the swarm has by that name; None without a node, or when none is called so."""
    node = local.find(settings)
    if node is None or is_path(text):
        return None
    try:
        return header_of(local.model_of_swarm(node, text), settings)
    except ModelNotFound:
        return None


def header_of(model: ModelOfSwarm, settings: config.Settings) -> StoredHeader:
    """The header of a model of the swarm, which the node of this device has got."""
    from swarm.node.home import Home
    from swarm.store.stored_header import read_stored_header
    from swarm.wire.ids import ModelId

    return read_stored_header(Home(settings.home_path).store, ModelId(model.id))


def open_model(args: argparse.Namespace, settings: config.Settings) -> tuple[Model | RemoteModel, str]:
    """The model to talk with, and its name: the swarm's where a node runs on this device, else one loaded here."""
    node = None if args.alone else local.find(settings)
    if node is None:
        with _engine_beside(args.model, settings) as wait:
            path = find_model(args.model, settings)
            draft = MTP if args.draft == MTP else find_model(args.draft, settings) if args.draft else None
            wait()
            return load_model(path, settings, draft), str(path)
    from swarm.cli.remote import RemoteModel

    name = pulling.ensure(node, args.model, settings)
    if args.draft:
        draft = MTP if args.draft == MTP else str(find_model(args.draft, settings).resolve())
        node.post("/swarm/draft", {"path": draft, "model": name or ""}, local.IMPORT_S)
    model = RemoteModel(node, name, Quiet(), guess=settings.guess != "never")
    return model, model.name


@contextmanager
def _engine_beside(name: str | None, settings: config.Settings) -> Iterator[Callable[[], None]]:
    """Import what answers while a file that is here is looked at, which leaves the interpreter free.

    Nothing may be imported before the function that this gives has returned: Ctrl-C within an import can leave its
    locks behind, and of two threads that import one would wait for ever.
    """
    text = settings.model if name is None else name
    collects, thread = gc.isenabled(), None
    if isinstance(file_at(text) or meaning_of(text, settings.models_path), Path):
        gc.disable()  # many objects are made, and all of them stay
        thread = threading.Thread(target=_get_ready, name="imports")
        thread.start()
    try:
        yield lambda: thread.join() if thread is not None else None
    finally:
        if collects:
            gc.enable()


def _get_ready() -> None:
    from swarm.text.sandbox import RENDERER

    with suppress(Exception):  # whoever needs it says what is wrong
        RENDERER.start()
        for module in NEEDED_TO_ANSWER:
            import_module(module)


class Quiet:
    """Shows what a node says beside an answer: in passing before the answer has begun, as a line of its own later."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, text: str, begun: bool) -> None:
        if not sys.stdout.isatty():
            now = time.monotonic()
            if text and (begun or now - self._told_at >= TELL_S):
                self._told_at = now
                note(f"swarm: {text}")
        elif begun:
            note(f"[{text}]")
        else:
            sys.stdout.write(LINE.pass_by(paint(f"[{text}]" if text else "", DIM)))
            sys.stdout.flush()


def load_model(path: Path, settings: config.Settings, draft: Path | str | None = None) -> Model:
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
            guess=settings.guess,
            memory=settings.memory or None,
            draft=draft,
            progress=progress,
        )


def learnt_here(seen: SeenModel) -> list[float]:
    """What runs on this device noted of how a model uses its experts (`own_curve`); [] for none."""
    from swarm.engine.expert_cache import learnt_ranks
    from swarm.engine.expert_folder import ExpertFolder
    from swarm.local.model import packed_dir, packed_key
    from swarm.store.gguf import GGUF

    return (
        learnt_ranks(ExpertFolder(packed_dir() / packed_key(seen.header)).path) if isinstance(seen.header, GGUF) else []
    )
