"""Kinds of broken model file: each makes one in an empty directory and returns the path to open.

`line_about` opens one as every command does: the file first, then what model it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swarm.errors import ModelError
from swarm.models import spec_from_gguf
from swarm.store.gguf import open_gguf
from tests.helpers.gguf_bytes import (
    ARCHITECTURE,
    ARRAY,
    STRING,
    U8,
    U32,
    U64,
    File,
    array,
    pair,
    string,
    tensor,
    u32,
    u64,
)
from tests.helpers.gguf_writer import write_split_gguf

Maker = Callable[[Path], Path]


@dataclass(frozen=True)
class Broken:
    """What is wrong, in words; how to make it; a part of the line that says so."""

    kind: str
    make: Maker
    says: str


def _bytes(data: bytes) -> Maker:
    def make(directory: Path) -> Path:
        path = directory / "model.gguf"
        path.write_bytes(data)
        return path

    return make


def _missing(directory: Path) -> Path:
    return directory / "model.gguf"


def _directory(directory: Path) -> Path:
    (directory / "model.gguf").mkdir()
    return directory / "model.gguf"


def _pipe(directory: Path) -> Path:
    os.mkfifo(directory / "model.gguf")
    return directory / "model.gguf"


def _endless_link(directory: Path) -> Path:
    (directory / "model.gguf").symlink_to("model.gguf")
    return directory / "model.gguf"


def _split_files(directory: Path) -> list[Path]:
    tensors = {name: (np.zeros((2, 8), np.float32), "F32") for name in "abc"}
    return write_split_gguf(directory / "model", {"general.architecture": "llama"}, tensors, 3)


def _missing_file(directory: Path) -> Path:
    paths = _split_files(directory)
    paths[1].unlink()
    return paths[0]


def _wrong_split_no(directory: Path) -> Path:
    paths = _split_files(directory)
    paths[1].write_bytes(paths[2].read_bytes())
    return paths[0]


def _lonely_file(directory: Path) -> Path:
    return _split_files(directory)[0].rename(directory / "model.gguf")


def _absurd_file_number(directory: Path) -> Path:
    return directory / "model-00007-of-00003.gguf"


def _cut(n_bytes: int) -> Maker:
    return _bytes(File().build()[:n_bytes])


def _tensors(*entries: bytes) -> Maker:
    return _bytes(File(tensors=entries).build())


def _pairs(*pairs: bytes) -> Maker:
    return _bytes(File(pairs=pairs).build())


HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 4368438944\n"
WHOLE = len(File().build())

BROKEN = (
    Broken("no such file", _missing, "there is no such file"),
    Broken("an empty file", _bytes(b""), "the file is empty"),
    Broken("a directory", _directory, "it is a directory"),
    Broken("a pipe", _pipe, "not a regular file"),
    Broken("a link to itself", _endless_link, "cannot be opened (Too many levels of symbolic links)"),
    Broken("a web page saved as .gguf", _bytes(HTML), "it is a web page"),
    Broken("a Git LFS pointer", _bytes(LFS), "it is a Git LFS pointer"),
    Broken("the JSON answer of a server", _bytes(b'{"error": "gated repo"}'), "it is a JSON text"),
    Broken("a zip or PyTorch file", _bytes(b"PK\x03\x04" + bytes(60)), "it is a zip archive"),
    Broken("a file of zeros", _bytes(bytes(4096)), "it begins with zeros"),
    Broken("wrong magic", _bytes(File(magic=b"GGUX").build()), "it begins with b'GGUX'"),
    Broken("the old GGJT format", _bytes(b"tjgg" + bytes(60)), "the old GGJT format"),
    Broken("version 1", _bytes(File(version=u32(1)).build()), "GGUF 1 is not supported"),
    Broken("version 99", _bytes(File(version=u32(99)).build()), "GGUF 99 is not supported"),
    Broken("big endian", _bytes(File(version=b"\0\0\0\3").build()), "big-endian"),
    Broken("cut in the magic", _cut(3), "magic"),
    Broken("cut in the version", _cut(6), "version"),
    Broken("cut in the counts", _cut(20), "number of tensors: 2 do not fit"),
    Broken("cut in a metadata key", _bytes(File(tensors=()).build()[:40]), "metadata key 0: the file ends"),
    Broken("cut in the tensor table", _cut(100), "of tensor"),
    Broken("cut in the last tensor", _cut(WHOLE - 1), "data of tensor 'b'"),
    Broken("2^62 tensors", _bytes(File(n_tensors=2**62).build()), "number of tensors"),
    Broken("60,000 tensors in 300 bytes", _bytes(File(n_tensors=60_000).build()), "number of tensors"),
    Broken("2^62 metadata keys", _bytes(File(n_pairs=2**62).build()), "number of metadata keys"),
    Broken("a key of 2^63 bytes", _pairs(u64(2**63) + b"general"), "length of metadata key 0"),
    Broken("a key that is not UTF-8", _pairs(pair(b"\xff\xfe", U8, b"\0")), "metadata key 0: not UTF-8"),
    Broken("a key twice", _pairs(ARCHITECTURE, ARCHITECTURE), "general.architecture: the key occurs twice"),
    Broken("an unknown value type", _pairs(pair("x", 13, b"\0")), "type of x: 13"),
    Broken("a text of 2^40 bytes", _pairs(pair("x", STRING, u64(2**40))), "length of x"),
    Broken("an array of 2^61 items", _pairs(pair("x", ARRAY, array(U64, 2**61, b""))), "length of x"),
    Broken("an array longer than the file", _pairs(pair("x", ARRAY, array(U32, 10**6, bytes(64)))), "length of x"),
    Broken(
        "a text in an array past the end",
        _pairs(pair("x", ARRAY, array(STRING, 2, string("a") + u64(2**64 - 9)))),
        "x: its 2 texts do not fit",
    ),
    Broken("an array of arrays", _pairs(pair("x", ARRAY, array(ARRAY, 1, array(U8, 1, b"\0")))), "item type of x"),
    Broken("an alignment of 0", _pairs(pair("general.alignment", U32, u32(0))), "general.alignment: 0 is not"),
    Broken(
        "an alignment that is a text", _pairs(pair("general.alignment", STRING, string("32"))), "general.alignment: its"
    ),
    Broken("a tensor name that is not UTF-8", _tensors(tensor(b"\xc3", (8,), 0, 0)), "name of tensor 0: not UTF-8"),
    Broken("a tensor twice", _tensors(tensor("a", (8,), 0, 0), tensor("a", (8,), 0, 32)), "the name occurs twice"),
    Broken("a tensor without dimensions", _tensors(tensor("a", (), 0, 0)), "number of dimensions of tensor 'a': 0"),
    Broken(
        "a tensor of 2^32-1 dimensions",
        _tensors(string("a") + u32(2**32 - 1) + bytes(200)),
        "number of dimensions of tensor 'a': 4294967295",
    ),
    Broken("a dimension of 0", _tensors(tensor("a", (8, 0), 0, 0)), "dimensions of tensor 'a'"),
    Broken("dimensions that overflow 64 bits", _tensors(tensor("a", (2**31, 2**33), 0, 0)), "dimensions of tensor 'a'"),
    Broken("a tensor larger than the file", _tensors(tensor("a", (2**30, 2**30), 0, 0)), "data of tensor 'a'"),
    Broken("rows that are not whole blocks", _tensors(tensor("a", (100,), 12, 0)), "not whole Q4_K blocks of 256"),
    Broken("an unsupported quant", _tensors(tensor("a", (256,), 15, 0)), "tensor a is stored as Q8_K; supported"),
    Broken("an unknown quant", _tensors(tensor("a", (256,), 12345, 0)), "stored as unknown type 12345; supported"),
    Broken("a misaligned offset", _tensors(tensor("a", (8,), 0, 4)), "offset of tensor 'a': 4 is not a multiple"),
    Broken("an offset past the end", _tensors(tensor("a", (8,), 0, 2**63)), "data of tensor 'a'"),
    Broken(
        "overlapping tensors",
        _tensors(tensor("a", (16,), 0, 0), tensor("b", (8,), 0, 32)),
        "offset of tensor 'b': its data overlaps that of 'a'",
    ),
    Broken("no tensors", _tensors(), "llama.block_count"),
    Broken("a missing metadata key", _pairs(pair("general.name", STRING, string("x"))), "general.architecture"),
    Broken(
        "a metadata value of the wrong type",
        _pairs(ARCHITECTURE, pair("llama.block_count", STRING, string("many"))),
        "llama.block_count",
    ),
    Broken("a family that Swarm does not run", _pairs(pair("general.architecture", STRING, string("rwkv"))), "rwkv"),
    Broken("a missing file of a split model", _missing_file, "model-00002-of-00003.gguf: there is no such file"),
    Broken("a split file under the wrong number", _wrong_split_no, "split.no: it does not say 1"),
    Broken("a split file renamed", _lonely_file, "it is one file of a split model"),
    Broken("file 7 of 3", _absurd_file_number, "the name says file 7 of 3"),
)


def line_about(path: Path) -> str:
    """What Swarm says about a file; empty when it finds nothing wrong."""
    try:
        with open_gguf(path) as file:
            spec_from_gguf(file.metadata, file.tensors)
    except ModelError as error:
        return str(error)
    return ""
