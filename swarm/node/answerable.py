"""The models that a question may name: those of the swarm, those whose files lie here, and the default one."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from swarm.config import Settings
from swarm.errors import SwarmError
from swarm.kernels.quants import Quant
from swarm.models.registry import spec_from_gguf
from swarm.models.sizes import context_of
from swarm.node.library import Entry, KnownModel, Library
from swarm.store.chunks import ChunkStore
from swarm.store.fetching import DOWNLOADS
from swarm.store.gguf import open_gguf
from swarm.store.keeping import kept_models
from swarm.store.naming import MIN_ID_DIGITS, slug
from swarm.text.model_text import capabilities_of
from swarm.wire.ids import ModelId

MAX_HEADERS = 64  # of files that are remembered; reading one takes up to a second on a Pi
PLAIN = ("completion",)  # what every model can


@dataclass(frozen=True)
class Answerable:
    """A model by the name that a person knows; what is not known before it was looked at is 0 or empty."""

    name: str
    size_bytes: int
    created_at: int = 0  # seconds since 1970
    context: int = 0  # tokens that a conversation may hold here
    family: str = ""
    parameters: int = 0
    quant: str = ""  # in which most of it is stored
    capabilities: tuple[str, ...] = PLAIN
    id: str = ""  # of the swarm's, where it has it
    template: str = ""
    is_default: bool = False

    @property
    def parameters_text(self) -> str:
        """As people say it: 135M, 8.0B."""
        for unit, name in ((1e9, "B"), (1e6, "M")):
            if self.parameters >= unit:
                value = self.parameters / unit
                return f"{value:.1f}{name}" if value < 10 else f"{value:.0f}{name}"
        return str(self.parameters)


class AnswerableModels:
    """Lists them; slow where a file is seen for the first time, so not on the loop."""

    def __init__(self, library: Library, store: ChunkStore, settings: Settings) -> None:
        self._library = library
        self._store = store
        self._settings = settings
        self._headers: dict[tuple[Path, int, int], Answerable | None] = {}
        self._began_at = int(time.time())

    def listed(self) -> list[Answerable]:
        """Each once, by name; the default one first."""
        found = [self._of_swarm(entry) for entry in self._library.entries()]
        files = {path for entry in self._library.entries() if (path := self._file_of(entry)) is not None}
        found += [model for path in self._files() if path not in files and (model := self._of_file(path)) is not None]
        theirs = {entry.id for entry in self._library.entries() if self._file_of(entry) is None}
        found = self._with_default(found, theirs)
        named: dict[str, Answerable] = {}
        for model in sorted(found, key=lambda model: model.id in theirs):  # a name means this device's own first
            told_apart = f"{model.name}-{model.id[:MIN_ID_DIGITS]}"
            if model.name not in named:
                named[model.name] = model
            elif model.id in theirs:
                named[told_apart] = replace(model, name=told_apart, is_default=False)
        return sorted(named.values(), key=lambda model: (not model.is_default, model.name))

    def names(self) -> list[str]:
        """Of the same."""
        return [model.name for model in self.listed()]

    # --- within

    def _of_swarm(self, entry: Entry) -> Answerable:
        path = self._file_of(entry)
        name = self._name_of(path) if path is not None else entry.name
        known_model = self._library.known.get(entry.id)
        model = Answerable(name, entry.total_bytes, created_at=self._began_at, id=entry.id)
        if path is not None:
            model = replace(model, created_at=int(path.stat().st_mtime) if path.exists() else self._began_at)
        return self._described(model, known_model) if known_model is not None else model

    def _described(self, model: Answerable, known_model: KnownModel) -> Answerable:
        try:
            text = known_model.text
        except SwarmError:  # its tokenizer or template cannot be used: to ask it will say so
            return model
        return replace(
            model,
            context=context_of(known_model.spec, self._settings.context),
            family=known_model.spec.family,
            capabilities=text.capabilities,
            template=text.template.source if text.template is not None else "",
            parameters=n_parameters(known_model.source.tensors),
            quant=main_quant(known_model.source.tensors),
        )

    def _files(self) -> list[Path]:
        files = kept_models(self._settings.models_path)
        default = Path(self._settings.model).expanduser()
        return [*files, default] if "/" in self._settings.model and default not in files else files

    def _file_of(self, entry: Entry) -> Path | None:
        """The file on this device that the model is read from."""
        chunks = self._store.model(entry.id)
        return chunks.source.path if chunks is not None and chunks.source is not None else None

    def _name_of(self, path: Path) -> str:
        """What a person calls a file: as it can be downloaded, or as it lies here."""
        folder = self._settings.models_path
        for name, download in DOWNLOADS.items():
            if path == folder / download.file_name:
                return name
        return slug(path.stem)

    def _of_file(self, path: Path) -> Answerable | None:
        """A file that nobody has asked yet; None for one that cannot be run."""
        try:
            stat = path.stat()
        except OSError:
            return None
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in self._headers:
            if len(self._headers) >= MAX_HEADERS:
                self._headers.clear()
            self._headers[key] = self._read(path, int(stat.st_mtime))
        return self._headers[key]

    def _read(self, path: Path, changed_at: int) -> Answerable | None:
        try:
            with open_gguf(path) as gguf:
                spec = spec_from_gguf(gguf.metadata, gguf.tensors)
                template = _template(gguf.metadata)
                return Answerable(
                    self._name_of(path),
                    gguf.size_bytes,
                    created_at=changed_at,
                    context=context_of(spec, self._settings.context),
                    family=spec.family,
                    capabilities=capabilities_of(template),
                    template=template,
                    parameters=n_parameters(gguf.tensors),
                    quant=main_quant(gguf.tensors),
                )
        except SwarmError:
            return None

    def _with_default(self, found: list[Answerable], theirs: set[ModelId]) -> list[Answerable]:
        """Mark what is answered with when no name is given; it may still have to be downloaded."""
        text = self._settings.model
        wanted = slug(Path(text).stem if "/" in text else text)
        download = DOWNLOADS.get(text.lower())
        hijacked = {each for each in theirs if download is not None and each != download.manifest}
        meant = [model for model in found if model.name == wanted and model.id not in hijacked]
        if meant:
            return [replace(model, is_default=model in meant) for model in found]
        if download is None:
            return found
        size = download.size_bytes
        return [*found, Answerable(download.name, size, created_at=self._began_at, is_default=True)]


def _template(metadata: Mapping[str, object]) -> str:
    """The chat template of a file; to make a tokenizer only to see which of ours would fit takes too long."""
    source = metadata.get("tokenizer.chat_template")
    return source if isinstance(source, str) else ""


class StoredTensor(Protocol):
    """What a list of models tells of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def quant(self) -> Quant: ...


def n_parameters(tensors: Mapping[str, StoredTensor]) -> int:
    """Numbers in all tensors."""
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def main_quant(tensors: Mapping[str, StoredTensor]) -> str:
    """The type in which most bytes are stored."""
    n_bytes: Counter[str] = Counter()
    for tensor in tensors.values():
        n_bytes[tensor.quant.name] += tensor.n_bytes
    return n_bytes.most_common(1)[0][0] if n_bytes else ""
