"""The models that this swarm has: what each is called, what it needs, and how to talk to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from swarm.cluster.cost import ModelCost
from swarm.errors import ModelNotFound
from swarm.models.registry import mtp_from_gguf, spec_from_gguf
from swarm.models.slices import SliceBounds, narrow
from swarm.models.spec import ModelSpec, MtpSpec, NeededTensor, tensors_needed
from swarm.node.fetch import Around, Fetcher
from swarm.node.model_cost import model_cost
from swarm.node.shared_work import SharedWork
from swarm.parts import MTP, WHOLE, Part, all_parts
from swarm.store.chunks import ChunkStore
from swarm.store.manifest import Manifest
from swarm.store.naming import MIN_ID_DIGITS, closest, offered_model, slug
from swarm.store.origins import Origin
from swarm.store.rectangles import Rectangle
from swarm.store.stored_model import StoredModel
from swarm.text.model_text import ModelText
from swarm.text.template import ChatTemplate
from swarm.text.tokenizer import Tokenizer
from swarm.wire.ids import ModelId

Bits = npt.NDArray[np.bool_]
MAX_HINTS = 8  # names that an error lists


@dataclass(frozen=True, eq=False)
class KnownModel:
    """A model whose manifest and header are here; its weights may be anywhere."""

    source: StoredModel
    spec: ModelSpec
    cost: ModelCost
    mtp: MtpSpec | None = None  # the block of its file that predicts further tokens

    @property
    def manifest(self) -> Manifest:
        return self.source.manifest

    @property
    def id(self) -> ModelId:
        return self.source.manifest.id

    @property
    def name(self) -> str:
        return slug(self.source.name)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_metadata(self.source.metadata)

    @cached_property
    def text(self) -> ModelText:
        """How it is talked to."""
        template = ChatTemplate.from_metadata(self.source.metadata, self.tokenizer)
        return ModelText(self.name, self.tokenizer, template, self.spec.vocab)

    @property
    def all_parts(self) -> frozenset[Part]:
        return frozenset(all_parts(self.spec.n_layers))

    @property
    def parts_and_beside(self) -> frozenset[Part]:
        """And what it has beside them: what whoever has the whole file holds."""
        return self.all_parts | ({MTP} if self.mtp is not None else frozenset())

    def spec_for(self, part: Part) -> ModelSpec:
        """The spec that a part is loaded with."""
        return self.mtp.spec if part == MTP and self.mtp is not None else self.spec_of(part.slice)

    def spec_of(self, cut: tuple[int, ...]) -> ModelSpec:
        """The spec of a slice (`models.slices.SliceBounds`, or `parts.WHOLE`); raise ValueError for one of no model."""
        if cut not in self._specs:
            self._specs[cut] = narrow(self.spec, self.source.tensors, SliceBounds(*cut))
        return self._specs[cut]

    def chunks_of(self, parts: Iterable[Part]) -> list[int]:
        """The chunks that these parts need."""
        cuts: dict[tuple[int, ...], list[Part]] = {}
        needed: list[NeededTensor] = []
        for part in parts:
            if part == MTP and self.mtp is not None:
                needed += tensors_needed(self.mtp.spec, [Part(0)])
            else:
                cuts.setdefault(part.slice, []).append(part)
        for cut, some in cuts.items():
            needed += tensors_needed(self.spec_of(cut), some)
        refs = {need.ref for need in needed}
        return self.manifest.chunks_of(Rectangle(ref.name, ref.rows, ref.columns, ref.slabs) for ref in refs)

    def parts_in(self, held: Bits) -> frozenset[Part]:
        """The parts of which every chunk is among `held`."""
        return frozenset(part for part, chunks in self._part_chunks.items() if held[chunks].all())

    @cached_property
    def _specs(self) -> dict[tuple[int, ...], ModelSpec]:
        return {WHOLE: self.spec}

    @cached_property
    def _part_chunks(self) -> dict[Part, list[int]]:
        return {part: self.chunks_of([part]) for part in self.parts_and_beside}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list of models: where it can be had, as far as we heard."""

    id: ModelId
    name: str
    total_bytes: int
    n_whole: int  # devices that have all of it
    origin: Origin | None = None  # where it was fetched, where this device knows that
    is_ours: bool = False  # this device offers it from a file of its own
    base_name: str = ""  # without what tells it from others of that name
    files: tuple[str, ...] = ()  # what it is called on the devices that have it as a file


def _told_apart(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Several quants of a model have one name: each gets the first digits of its id."""
    entries = list(entries)
    count = Counter(entry.name for entry in entries)
    for entry in entries:
        name = entry.name if count[entry.name] == 1 else f"{entry.name}-{entry.id[:MIN_ID_DIGITS]}"
        yield replace(entry, name=name, base_name=entry.name)


class Library:
    """Finds models by name, here and on peers, and gets to know them."""

    def __init__(self, around: Around, rng: Random) -> None:
        self.fetcher = Fetcher(around, rng)
        self.known: dict[ModelId, KnownModel] = {}
        self._store: ChunkStore = around.store
        self._run_io = around.run_io
        self._learning: SharedWork[ModelId, KnownModel] = SharedWork()
        self._importing: SharedWork[Path, ModelId] = SharedWork()

    async def know(self, model: ModelId) -> KnownModel:
        """Get the manifest and the header of a model; raise SwarmError when they cannot be had or not be run."""
        if model in self.known:
            return self.known[model]
        return await self._learning.get(model, lambda: self._learn(model))

    async def add_file(self, path: Path, threads: int) -> ModelId:
        """Offer a GGUF file to the swarm; it stays where it is. It is hashed once for all who offer it now."""
        return await self._importing.get(path.absolute(), lambda: self._import(path, threads))

    def entries(self) -> list[Entry]:
        """All models that this device or a peer has something of, by name; no two have the same."""
        found: dict[ModelId, Entry] = {}
        catalogs = [{h.model: h for h in self._store.holdings()}, *self.fetcher.catalogs.values()]
        for catalog in catalogs:
            for model, holding in catalog.items():
                if not holding.n_have:
                    continue
                whole = int(holding.n_have == holding.n_chunks) + (found[model].n_whole if model in found else 0)
                origin = found[model].origin if model in found else self._store.origin_of(model)
                chunks = self._store.model(model)
                is_ours = chunks is not None and chunks.source is not None
                files = (*(found[model].files if model in found else ()), *([holding.file] if holding.file else ()))
                name = slug(holding.name)
                found[model] = Entry(model, name, holding.total_bytes, whole, origin, is_ours, files=files)
        return sorted(_told_apart(found.values()), key=lambda entry: (entry.name, entry.id))

    def find(self, text: str) -> ModelId | None:
        """The model of the swarm that somebody means: by name, a beginning of it, or id; None when none or several."""
        return offered_model(text, self.entries())

    def not_found(self, text: str, names: Sequence[str] | None = None) -> ModelNotFound:
        """The error for a name that nothing here has; `names`: what can be asked for, where more is known of that."""
        names = [entry.name for entry in self.entries()] if names is None else names
        close = closest(text, names)
        some = ", ".join(names[:MAX_HINTS]) + (", ..." if len(names) > MAX_HINTS else "")
        hint = f"did you mean {close}?" if close else f"there is {some}" if names else "there is none"
        return ModelNotFound(f"no device here has a model called {text[:80]!r}; {hint}")

    async def _import(self, path: Path, threads: int) -> ModelId:
        manifest = await self._run_io(lambda: self._store.import_gguf(path, threads=threads))
        if manifest.id in self.known and self.known[manifest.id].source.manifest is not manifest:
            del self.known[manifest.id]  # what was known read from chunks that are closed now
        return manifest.id

    async def _learn(self, model: ModelId) -> KnownModel:
        manifest = await self.fetcher.manifest(model)
        await self.fetcher.fetch(model, manifest.header_chunks)
        self.known[model] = await self._run_io(self._read, model)
        return self.known[model]

    def _read(self, model: ModelId) -> KnownModel:
        source = self._store.open(model)
        spec = spec_from_gguf(source.metadata, source.tensors)
        mtp = mtp_from_gguf(source.metadata, source.tensors)
        return KnownModel(source, spec, model_cost(slug(source.name), spec, source.tensors, mtp), mtp)
