"""The header of a model that lies elsewhere: metadata and tensor table, read by ranges, a few MB of many GB.

What is read is kept, and becomes the first pieces of the file when it is downloaded after all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swarm.architectures import architecture
from swarm.errors import UnsupportedQuant
from swarm.limits import FIRST_HEADER_BYTES, MAX_GGUF_HEADER_BYTES, PART_HEADER_BYTES
from swarm.store.gguf import check_split, merged_tensors
from swarm.store.gguf_cursor import HeaderCut
from swarm.store.gguf_header import GGUFHeader, GGUFTensor, parse_header, parse_metadata
from swarm.store.gguf_metadata import Metadata
from swarm.store.web_file import Web, WebFile


@dataclass(frozen=True)
class RemotePart:
    """One file of the model: what it is called, where its bytes are, and the first of them."""

    name: str
    file: WebFile
    beginning: bytes


class RemoteGGUF:
    """What `GGUF` tells of a model on disk, without its weights."""

    def __init__(
        self, where: str, parts: Sequence[RemotePart], headers: Sequence[GGUFHeader], bytes_per_s: float = 0.0
    ) -> None:
        """`bytes_per_s`: how fast what was read of it came; 0 when that was not seen."""
        self.bytes_per_s = bytes_per_s
        self.path = where
        self.parts = tuple(parts)
        self.size_bytes = sum(part.file.n_bytes for part in parts)
        self.metadata: Metadata = headers[0].metadata
        self.tensors: Mapping[str, GGUFTensor] = merged_tensors([part.name for part in parts], headers)
        self.header_bytes = headers[0].metadata_end

    @property
    def read_bytes(self) -> int:
        """How much of it came over the network."""
        return sum(len(part.beginning) for part in self.parts)


def read_remote(
    where: str,
    files: Sequence[tuple[str, WebFile]],
    web: Web,
    *,
    kept: Callable[[int], bytes] = lambda number: b"",
) -> RemoteGGUF:
    """Read the headers of all files of a model, in order; each comes with its name.

    `kept` gives the first bytes of a file, by its number, that came before: they are not asked for again. Raise what
    `open_gguf` raises of a broken file or one that Swarm does not run, and DownloadError.
    """
    began_at = time.monotonic()
    parts: list[RemotePart] = []
    headers: list[GGUFHeader] = []
    n_old = 0
    for number, (name, file) in enumerate(files):
        old = kept(number)
        n_old += len(old)
        header, beginning = _read_header(name, file, number, web, old)
        headers.append(header)
        parts.append(RemotePart(name, file, beginning))
    check_split([name for name, _ in files], headers)
    n_read, seconds = sum(len(part.beginning) for part in parts) - n_old, time.monotonic() - began_at
    return RemoteGGUF(where, parts, headers, n_read / seconds if seconds > 0 else 0.0)


def _read_header(name: str, file: WebFile, number: int, web: Web, old: bytes) -> tuple[GGUFHeader, bytes]:
    """The header of one file, and the bytes that it was read from: more and more of them until it is whole."""
    data = bytearray(old if file.n_bytes else b"")
    wanted = PART_HEADER_BYTES if number else FIRST_HEADER_BYTES
    while True:
        _read_on(file, data, wanted, web)
        try:
            return parse_header(bytes(data), name, number, file.n_bytes), bytes(data)
        except HeaderCut:
            if len(data) >= min(file.n_bytes, MAX_GGUF_HEADER_BYTES):
                raise
            wanted = 2 * len(data)
        except UnsupportedQuant:
            architecture(parse_metadata(bytes(data), name))  # another quant of a model that cannot run helps nobody
            raise


def _read_on(file: WebFile, data: bytearray, wanted: int, web: Web) -> None:
    """Have the first `wanted` bytes, or all that there are; what has come before a cut is not asked again."""

    def ask() -> bytes:
        end = min(wanted, MAX_GGUF_HEADER_BYTES, file.n_bytes or wanted)
        if len(data) < end:
            for part in file.read(len(data), end):
                data.extend(part)
        return b""

    web.patiently(ask)
