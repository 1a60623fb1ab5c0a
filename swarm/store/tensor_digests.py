"""What a model file of a person's own held when it was first read: to see later that its disk has kept it so.

Nobody publishes a hash of such a file. So the BLAKE3 of its header and of each tensor is noted when it is first read
here, beside its path, size and time. As long as these are the same, other bytes mean that the disk has damaged it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgpack
from blake3 import blake3

from swarm.errors import BadModelFile
from swarm.files import make_private, replace_file, stamps
from swarm.limits import MAX_DIGESTS_BYTES, MAX_NOTED_FILES
from swarm.store.gguf import GGUF
from swarm.store.gguf_header import GGUFTensor
from swarm.store.rectangles import U8, Rows

HEADER = ""  # its name among those of tensors


class CheckedGGUF:
    """An open model file of which every tensor that is read is compared with what is noted, or noted.

    folder: where it is noted. Reading raises BadModelFile where the file was damaged: of a tensor that is read slab by
    slab after the last of them, so that it is read from the disk only once.
    """

    def __init__(self, gguf: GGUF, folder: Path) -> None:
        self._gguf = gguf
        self._path = folder / blake3(str(gguf.path.resolve()).encode()).hexdigest()[:32]
        self._stamps: list[list[object]] = [list(stamp) for stamp in stamps(gguf.split_files)]
        self._noted = _read(self._path, self._stamps)
        self._seen: dict[str, bytes] = {}
        self._see(HEADER, blake3(gguf.header()).digest())

    @property
    def tensors(self) -> Mapping[str, GGUFTensor]:
        return self._gguf.tensors

    def raw(self, name: str, rows: Rows | None = None, columns: range | None = None) -> U8:
        """As the file's own `raw`."""
        self._look_at(name)
        return self._gguf.raw(name, rows, columns)

    def slabs(
        self, name: str, rows: Rows | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterator[U8]:
        """As the file's own `slabs`."""
        if name in self._seen or (rows, columns, slabs) != (None, None, None):
            self._look_at(name)
            yield from self._gguf.slabs(name, rows, columns, slabs)
            return
        digest = blake3(max_threads=blake3.AUTO)
        for slab in self._gguf.slabs(name):
            digest.update(slab.data)
            yield slab
        self._see(name, digest.digest())

    def drop(self, name: str) -> None:
        """As the file's own `drop`."""
        self._gguf.drop(name)

    def damaged(self, progress: Callable[[int, int], None]) -> list[str]:
        """Read all of it; the tensors (HEADER: the header) that are not what is noted of them."""
        wrong, done = [], 0
        for name, tensor in self.tensors.items():
            try:
                self._look_at(name)
            except BadModelFile:
                wrong.append(name)
            self.drop(name)
            done += tensor.n_bytes
            progress(done, self._gguf.size_bytes)
        return wrong

    @property
    def is_known(self) -> bool:
        """True when something was noted of this very file before."""
        return bool(self._noted)

    def keep(self) -> None:
        """Note what was read now; where that cannot be written, the next run notes it."""
        digests = {**self._noted, **self._seen}
        if digests != self._noted:
            with suppress(OSError):
                make_private(self._path.parent)
                replace_file(self._path, msgpack.packb([self._stamps, digests]))
                for old in sorted(self._path.parent.iterdir(), key=lambda p: p.stat().st_mtime)[:-MAX_NOTED_FILES]:
                    old.unlink(missing_ok=True)

    def _look_at(self, name: str) -> None:
        if name not in self._seen:
            self._see(name, blake3(self._gguf.raw(name).reshape(-1).data, max_threads=blake3.AUTO).digest())

    def _see(self, name: str, digest: bytes) -> None:
        if self._noted.get(name, digest) != digest:
            what = f"tensor {name!r}" if name else "its header"
            raise BadModelFile(
                f"{self._gguf.path}: {what} is not what it was when this file was first read, and nobody has "
                "written to it since: the disk has damaged it; fetch or copy the file again"
            )
        self._seen[name] = digest


def forget(path: Path, folder: Path) -> None:
    """The file is not there any more."""
    (folder / blake3(str(path.resolve()).encode()).hexdigest()[:32]).unlink(missing_ok=True)


def _read(path: Path, file_stamps: list[list[object]]) -> dict[str, bytes]:
    """What is noted of the files with these stamps; nothing where it cannot be read, or is of other files."""
    try:
        with path.open("rb") as file:
            noted_stamps, digests = msgpack.unpackb(file.read(MAX_DIGESTS_BYTES))
    except (OSError, ValueError, TypeError):
        return {}
    if noted_stamps != file_stamps or not isinstance(digests, dict):
        return {}
    return {name: digest for name, digest in digests.items() if isinstance(name, str) and isinstance(digest, bytes)}
