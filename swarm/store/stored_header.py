"""The header of a model in the chunk store, read beside the node that uses the store: nothing is locked or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgpack
from blake3 import blake3

from swarm.errors import ModelError, ModelNotFound
from swarm.limits import MAX_MANIFEST_BYTES
from swarm.store.data_files import HEADER
from swarm.store.gguf_header import parse_metadata
from swarm.store.gguf_metadata import Metadata
from swarm.store.manifest import ChunkedTensor, Manifest
from swarm.store.manifest_decoding import decode_manifest
from swarm.wire.ids import ModelId


class StoredHeader:
    """What `GGUF` tells of a model on disk, of one whose parts may lie on several devices."""

    def __init__(self, manifest: Manifest, metadata: Metadata) -> None:
        self.path = f"the swarm, as model {manifest.id[:12]}"
        self.metadata = metadata
        self.tensors: Mapping[str, ChunkedTensor] = manifest.by_name
        self.size_bytes = manifest.total_bytes


def read_stored_header(root: Path, model: ModelId) -> StoredHeader:
    """The header of a model of the store at `root`. Raise ModelNotFound where it is not there."""
    directory = root / "models" / model
    try:
        with (directory / "manifest").open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES)
        if blake3(data).hexdigest() != model:
            raise ModelNotFound(f"the manifest of model {model[:12]} was damaged on disk")
        manifest = decode_manifest(data)
        with _file_with_header(directory).open("rb") as file:
            header = file.read(manifest.header_bytes)
        return StoredHeader(manifest, parse_metadata(header, manifest.name))
    except (OSError, ValueError, IndexError, TypeError, ModelError) as error:
        raise ModelNotFound(f"the header of model {model[:12]} is not on this device ({error})") from error


def _file_with_header(directory: Path) -> Path:
    """The file that the model came from, or that of its header's chunks."""
    source = directory / "source"
    if source.exists():
        return Path(str(msgpack.unpackb(source.read_bytes())[0][0]))
    return directory / f"{HEADER}.data"
