"""The chunk store: all models of this device, under one directory and one quota.

    models/<model id>/manifest      its BLAKE3 hash is the directory's name
    models/<model id>/journal       which chunks are in the data files
    models/<model id>/*.data        the chunks, see data_files.py
    models/<model id>/source        the GGUF file that serves instead, with its size and time

One process at a time uses a store.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import RLock

import msgpack
import numpy as np
from blake3 import blake3

from swarm.errors import DiskFull, ModelError, ModelNotFound, RemoteProtocolError, ResourceError
from swarm.files import check_space, disk_errors, make_private, open_locked, replace_file
from swarm.limits import MAX_MANIFEST_BYTES, MAX_MODELS, MAX_NAME_BYTES, MAX_SPLIT_FILES, SYNC_BYTES
from swarm.store.gathering import Gathering, drop_stale
from swarm.store.gguf import GGUF, open_gguf
from swarm.store.importing import HashProgress, manifest_of
from swarm.store.manifest import Manifest
from swarm.store.manifest_decoding import decode_manifest
from swarm.store.model_chunks import Elsewhere, ModelChunks
from swarm.store.naming import slug
from swarm.store.origins import Origin, origin_of, record
from swarm.store.split_names import split_paths
from swarm.store.stored_model import StoredModel
from swarm.units import size_text
from swarm.wire.codec import Buffer
from swarm.wire.ids import ChunkId, ModelId
from swarm.wire.records import ModelHolding

log = logging.getLogger(__name__)
Stamp = list[list[str | int]]  # of each file: path, size, time of change


class ChunkStore:
    """Every chunk on this device; safe to use from several threads."""

    def __init__(
        self,
        root: Path,
        quota_bytes: int | None = None,
        elsewhere: Callable[[Manifest], Elsewhere | None] = lambda manifest: None,
    ) -> None:
        """`elsewhere`: where chunks of a model lie that are not in its data files."""
        self.root = root
        self._elsewhere = elsewhere
        self.quota_bytes = quota_bytes
        self._models: dict[ModelId, ModelChunks] = {}
        self._lock = RLock()
        self._importing = RLock()
        # An SD card takes a second to flush; meanwhile chunks come and go.
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._flush: Future[None] | None = None
        with disk_errors(root, "home"):
            make_private(root)
            make_private(root / "models")
            self._lock_file = open_locked(root / ".lock")
        if self._lock_file is None:
            raise ResourceError(f"another Swarm on this device uses {root}; stop it, or give this one its own")
        for directory in sorted((root / "models").iterdir()):
            self._open_directory(directory)
        drop_stale(root)

    # ---- models

    def import_gguf(self, path: Path, *, threads: int = 1, progress: HashProgress | None = None) -> Manifest:
        """Offer a GGUF file to peers. It stays where it is; it is hashed unless that was done before."""
        # One at a time: the second of two who ask for the same file finds it done, and closes nothing under the first.
        with self._importing:
            return self._import(path, _stamp(path), threads, progress)

    def adopt(self, gathering: Gathering, manifest: Manifest) -> None:
        """Take over what was brought of a model, whose manifest is known now. Raise RemoteProtocolError."""
        gathering.finish(manifest)
        with self._lock:
            present = self._models.get(manifest.id)
            if present is not None and present.held.all():
                shutil.rmtree(gathering.directory, ignore_errors=True)
                return
            self._close_model(manifest.id)
            target = self.root / "models" / manifest.id
            shutil.rmtree(target, ignore_errors=True)  # at most a header that was looked at
            with disk_errors(self.root, "home"):
                gathering.directory.replace(target)
                plan = gathering.plan
                first = plan.files[0]
                mark = Origin(plan.repository, first.path, len(manifest.encoded), first.sha256, plan.commit)
                record(target / "manifest", mark)
            self._models[manifest.id] = self._chunks_of(target, manifest)

    def origin_of(self, model: ModelId) -> Origin | None:
        """Where a model was fetched, as far as this device knows."""
        path = self.source_of(model)
        return origin_of(path if path is not None else self.root / "models" / model / "manifest")

    def add_manifest(self, data: bytes, expected: ModelId, in_use: Collection[ModelId] = ()) -> Manifest:
        """Begin to collect a model of which a peer sent the manifest; RemoteProtocolError when it is not that one.

        Of MAX_MODELS the one that holds least, neither `in_use` nor from a file of this device's user, makes way:
        what other devices made this one take note of must not keep out what somebody asks for.
        """
        if blake3(data).hexdigest() != expected:
            raise RemoteProtocolError(f"a manifest is not the one of model {expected[:12]}")
        manifest = decode_manifest(data)
        with self._lock:
            if manifest.id not in self._models:
                spare = [m for m, chunks in self._models.items() if m not in in_use and chunks.source is None]
                if len(self._models) >= MAX_MODELS and spare:
                    self.remove(min(spare, key=lambda m: (self._models[m].stored_bytes, self._used_at(m))))
                if len(self._models) >= MAX_MODELS:
                    raise DiskFull(f"the store holds {MAX_MODELS} models, the most it can; remove one")
                self._models[manifest.id] = self._chunks_of(self._write_manifest(manifest), manifest)
        return manifest

    def model(self, model: ModelId) -> ModelChunks | None:
        """The chunks of a model, None when not even its manifest is here."""
        return self._models.get(model)

    def open(self, model: ModelId) -> StoredModel:
        """A model to load from; also notes that it was used."""
        chunks = self._models.get(model)
        if chunks is None:
            raise ModelNotFound(f"model {model[:12]} is not on this device")
        os.utime(chunks.directory / "manifest")
        return StoredModel(chunks)

    def holdings(self) -> list[ModelHolding]:
        """What to tell peers: which models, and how much of each."""
        return [
            ModelHolding(
                model=model,
                name=chunks.manifest.name,
                n_chunks=chunks.manifest.n_chunks,
                n_have=int(chunks.held.sum()),
                total_bytes=chunks.manifest.total_bytes,
                file=slug(chunks.source.path.stem)[:MAX_NAME_BYTES] if chunks.source is not None else "",
            )
            for model, chunks in list(self._models.items())  # another thread may add one
        ]

    def have_bits(self, model: ModelId, start: int = 0) -> bytes:
        """One bit a chunk from number `start` on, least significant first."""
        chunks = self._models.get(model)
        return b"" if chunks is None else np.packbits(chunks.held[start:], bitorder="little").tobytes()

    def remove(self, model: ModelId) -> None:
        """Forget a model and delete its chunks; a GGUF file that it came from stays."""
        with self._lock:
            directory = self.root / "models" / model
            chunks = self._models.get(model)
            if chunks is not None and chunks.elsewhere is not None:
                chunks.elsewhere.delete()
            self._close_model(model)
            (directory / "manifest").unlink(missing_ok=True)  # first: without it the rest is no model
            shutil.rmtree(directory, ignore_errors=True)

    def source_of(self, model: ModelId) -> Path | None:
        """The GGUF file that serves a model here; None where its chunks do."""
        chunks = self._models.get(model)
        return chunks.source.path.resolve() if chunks is not None and chunks.source is not None else None

    def verify(
        self, progress: Callable[[int, int], None] = lambda done, total: None, only: ModelId | None = None
    ) -> list[tuple[str, int, int]]:
        """Hash every chunk that is here anew: of each model its name, how many are here, and how many were wrong.

        What is wrong is forgotten, and fetched again like anything that is not here. `only`: of that model.
        """
        found = []
        for chunks in [self._models[each] for each in list(self._models) if only in (None, each)]:
            held = int(chunks.held.sum())
            found.append((chunks.manifest.name, held, len(chunks.verify(progress))))
        return found

    # ---- chunks

    def put(self, model: ModelId, chunk: int, data: Buffer) -> bool:
        """Keep a chunk; False when it is not what the manifest says. Raise DiskFull when it does not fit."""
        chunks = self._models[model]
        if not chunks.held[chunk]:
            self.check_room(len(data))
        kept = chunks.put(chunk, data)
        if chunks.unsynced_bytes >= SYNC_BYTES:
            self._flush_soon(chunks)
        return kept

    def read(self, chunk: ChunkId, start: int, n_bytes: int) -> Buffer | None:
        """Bytes [start, start + n_bytes) of a chunk for a peer, None when they are not here."""
        for chunks in list(self._models.values()):
            for number in chunks.manifest.find(chunk):
                data = chunks.read(number, start, n_bytes)
                if data is not None:
                    return data
        return None

    # ---- space

    @property
    def stored_bytes(self) -> int:
        return sum(chunks.stored_bytes for chunks in list(self._models.values()))

    def check_room(self, n_bytes: int) -> None:
        """Raise DiskFull when so many bytes more would break the quota or fill the disk."""
        stored = self.stored_bytes
        if self.quota_bytes is not None and stored + n_bytes > self.quota_bytes:
            raise DiskFull(
                f"the model store may take {size_text(self.quota_bytes)}, has {size_text(stored)} and needs "
                f"{size_text(n_bytes)} more; remove a model, free some of the disk or raise `disk`"
            )
        check_space(self.root, n_bytes, "free some space or remove a model")

    def make_room(self, n_bytes: int, in_use: Collection[ModelId]) -> list[ModelId]:
        """Remove models that nobody uses, longest unused first, until n_bytes fit; DiskFull when they never do."""
        removed = []
        with self._lock:
            spare = [model for model, chunks in self._models.items() if model not in in_use and chunks.stored_bytes]
            for model in sorted(spare, key=self._used_at):
                if self._has_room(n_bytes):
                    break
                self.remove(model)
                removed.append(model)
        self.check_room(n_bytes)
        return removed

    def sync(self) -> None:
        """Flush all models: what is here now survives a power cut."""
        for chunks in list(self._models.values()):
            chunks.sync()

    def close(self) -> None:
        """Flush and let go; closing twice does nothing."""
        self._flusher.shutdown()
        with self._lock:
            for model in list(self._models):
                self._close_model(model)
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    # ---- inside

    def _flush_soon(self, chunks: ModelChunks) -> None:
        """Flush in the background, one at a time; what went wrong with the last one is told now."""
        with self._lock:
            if self._flush is None or self._flush.done():
                if self._flush is not None:
                    self._flush.result()
                self._flush = self._flusher.submit(chunks.sync)

    def _import(self, path: Path, stamp: Stamp, threads: int, progress: HashProgress | None) -> Manifest:
        models = list(self._models.values())
        imported = next((m for m in models if _read_stamp(m.directory) == stamp and m.source), None)
        if imported is not None:
            return imported.manifest
        source = open_gguf(path)
        manifest = manifest_of(source, threads=threads, progress=progress)
        with self._lock:
            offered = self._models.get(manifest.id)
            if offered is not None and _is_whole(offered):
                source.close()  # another file with the same content serves, and somebody may be reading it
                return offered.manifest
            self._close_model(manifest.id)
            directory = self._write_manifest(manifest)
            with disk_errors(self.root, "home"):
                replace_file(directory / "source", msgpack.packb(stamp))
            self._models[manifest.id] = self._chunks_of(directory, manifest, source)
        return manifest

    def _open_directory(self, directory: Path) -> None:
        """Open one model; what is broken is left alone: its manifest may come again."""
        try:
            with (directory / "manifest").open("rb") as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
            if blake3(data).hexdigest() != directory.name:
                raise RemoteProtocolError("the manifest was damaged on disk")
            manifest = decode_manifest(data)
        except (OSError, RemoteProtocolError) as error:
            log.warning("model in %s skipped: %s", directory, error)
            return
        self._models[manifest.id] = self._chunks_of(directory, manifest, _open_source(directory, manifest))

    def _chunks_of(self, directory: Path, manifest: Manifest, source: GGUF | None = None) -> ModelChunks:
        return ModelChunks(directory, manifest, source, self._elsewhere(manifest))

    def _write_manifest(self, manifest: Manifest) -> Path:
        directory = self.root / "models" / manifest.id
        with disk_errors(self.root, "home"):
            make_private(directory)
            replace_file(directory / "manifest", manifest.encoded)
        return directory

    def _close_model(self, model: ModelId) -> None:
        chunks = self._models.pop(model, None)
        if chunks is not None:
            chunks.close()

    def _used_at(self, model: ModelId) -> float:
        return (self._models[model].directory / "manifest").stat().st_mtime

    def _has_room(self, n_bytes: int) -> bool:
        try:
            self.check_room(n_bytes)
        except DiskFull:
            return False
        return True


def _is_whole(chunks: ModelChunks) -> bool:
    """The file that a model came from is there, unchanged, and nothing in it was found to be damaged."""
    stamp = _read_stamp(chunks.directory)
    if chunks.source is None or stamp is None or not chunks.held.all():
        return False
    try:
        return _stamp(Path(str(stamp[0][0]))) == stamp
    except (OSError, ModelError, IndexError, TypeError):
        return False


def _stamp(path: Path) -> Stamp:
    """What tells whether a file is still the one that was hashed."""
    stamp: Stamp = []
    for file in split_paths(path):
        try:
            status = file.stat()
        except OSError:
            open_gguf(path).close()  # says better than we could what is missing
            raise
        stamp.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    return stamp


def _read_stamp(directory: Path) -> Stamp | None:
    try:
        stamp = msgpack.unpackb((directory / "source").read_bytes(), max_array_len=MAX_SPLIT_FILES)
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, list) and stamp else None


def _open_source(directory: Path, manifest: Manifest) -> GGUF | None:
    """The GGUF file that a model came from, if it is still there and still the same."""
    stamp = _read_stamp(directory)
    if stamp is None:
        return None
    try:
        path = Path(str(stamp[0][0]))
        if _stamp(path) != stamp:
            raise ModelNotFound(f"{path}: it was changed since it was imported")
        source = open_gguf(path)
    except (OSError, ModelError, IndexError, TypeError) as error:
        log.warning("the file of %s is lost: %s", manifest.name, error)
        return None
    same = {name: (t.shape, t.quant) for name, t in source.tensors.items()}
    if same != {t.name: (t.shape, t.quant) for t in manifest.tensors} or source.header_bytes != manifest.header_bytes:
        log.warning("the file of %s is lost: it has other tensors", manifest.name)
        return None
    return source
