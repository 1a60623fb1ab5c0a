"""GGUF files that were cut by bytes, or put one behind the other: what they are, and what to do with them.

Cutting by bytes is not splitting: pieces have no header of their own, and are whole again only when they are joined.
A split model is the other way round: each of its files has a header, and joined they are none.
"""

from __future__ import annotations

import re
from pathlib import Path

from swarm.plain import printable
from swarm.store.gguf_cursor import FileBytes
from swarm.store.gguf_header import GGUFHeader

# As publishers name them: x.gguf.part1of2; x.gguf-split-a, x.gguf.part-aa, x.gguf.001.
_COUNTED = re.compile(r"(?P<whole>.+\.gguf)\.part(?P<number>\d{1,4})of(?P<count>\d{1,4})", re.IGNORECASE)
_LETTERED = re.compile(r"(?P<whole>.+\.gguf)(?P<mark>-split-|\.part-?|\.)([a-z]{1,2}|\d{1,3})", re.IGNORECASE)
MAX_NAMED_PIECES = 8
JOINED = (
    "it holds the files of a split model one behind the other, as `cat` joins them; give the files themselves, "
    "or join them with `llama-gguf-split --merge`"
)


def what_piece(path: Path) -> str:
    """What to do with a piece of a file, told by its name; "" for a name of none."""
    name = printable(path.name)
    counted, lettered = _COUNTED.fullmatch(name), _LETTERED.fullmatch(name)
    if counted is not None:
        whole, number, count = counted["whole"], int(counted["number"]), int(counted["count"])
        pieces = [f"{whole}.part{n}of{count}" for n in range(1, min(count, MAX_NAMED_PIECES) + 1)]
        listed = " ".join(pieces) + (" ..." if count > MAX_NAMED_PIECES else "")
        return f"it is piece {number} of {count} of a file that was cut by bytes; join them: cat {listed} > {whole}"
    if lettered is not None:
        whole = lettered["whole"]
        return f"it is a piece of a file that was cut by bytes; join them: cat {whole}{lettered['mark']}* > {whole}"
    return ""


def is_joined(data: FileBytes, header: GGUFHeader) -> bool:
    """Whether another GGUF file follows where the data of this one end: the files of a split model, joined by `cat`."""
    end = max((tensor.offset + tensor.n_bytes for tensor in header.tensors), default=header.metadata_end)
    return re.search(rb"GGUF[\2\3]\0\0\0", data[end : end + header.alignment + 8]) is not None
