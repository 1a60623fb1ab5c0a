"""The same weights behind another chat template: a copy of a GGUF file with one line of its metadata changed."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGUFValueType, Keys
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata


def with_template(path: Path, copy: Path, template: str, name: str) -> Path:
    """Write `copy`: the model at `path`, called `name`, with this template."""
    reader = GGUFReader(path)
    writer = GGUFWriter(copy, arch=reader.fields[Keys.General.ARCHITECTURE].contents(), endianess=reader.endianess)
    changes = {
        Keys.Tokenizer.CHAT_TEMPLATE: MetadataDetails(GGUFValueType.STRING, template),
        Keys.General.NAME: MetadataDetails(GGUFValueType.STRING, name),
    }
    copy_with_new_metadata(reader, writer, changes, [])
    return copy
