"""Manifests from peers: nothing but a well-formed one is ever taken."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import msgpack
import numpy as np
import pytest
from blake3 import blake3

from swarm.errors import RemoteProtocolError
from swarm.limits import MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from swarm.store.manifest import HEADER_STEP, Manifest
from swarm.store.manifest_decoding import decode_manifest
from tests.helpers.chunked import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture(scope="module")
def manifest(model: Path) -> Manifest:
    with open_gguf(model) as file:
        return manifest_of(file, threads=2)


def test_a_manifest_survives_its_encoding(manifest: Manifest) -> None:
    again = decode_manifest(manifest.encoded)
    assert again == manifest and again.id == manifest.id == blake3(manifest.encoded).hexdigest()
    assert manifest.name == "Tiny chunked"


def fields(manifest: Manifest) -> list:
    return msgpack.unpackb(manifest.encoded)


def broken(manifest: Manifest, index: int, value: object) -> bytes:
    changed = fields(manifest)
    changed[index] = value
    return msgpack.packb(changed)


def table_with(manifest: Manifest, column: int, value: int) -> bytes:
    table = np.frombuffer(fields(manifest)[4], "<u8").reshape(-1, 8).copy()
    table[3, column] = value
    return table.tobytes()


@pytest.mark.parametrize(
    ("index", "value", "says"),
    [
        (0, 2, "its format is 2"),
        (0, "1", "wrong types"),
        (1, "x" * 65, "its name"),
        (1, "two\nlines", "its name"),
        (2, 2**40, "a header of"),
        (2, HEADER_STEP * 40, "digests for"),
        (3, "a", "names and a table"),
        (3, b"a", "wrong types"),
        (4, b"", "names and a table"),
        (5, b"", "digests for"),
        (5, b"x" * 33, "its digests take"),
        (5, [], "a value begins with 0x90"),
        (5, {}, "a value begins with 0x80"),
        (5, None, "a value begins with 0xc0"),
        (5, 1.5, "a value begins with 0xcb"),
    ],
)
def test_a_broken_field_is_named(manifest: Manifest, index: int, value: object, says: str) -> None:
    with pytest.raises(RemoteProtocolError, match=says):
        decode_manifest(broken(manifest, index, value))


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (0, 15, "bad type"),
        (0, 2**63, "bad type"),
        (1, 2, "bad type, cut"),
        (2, 0, "is cut every 0"),
        (2, 2**60, "is cut every"),
        (2, 1, "more than|digests for"),
        (3, 0, "number of dimensions"),
        (3, 5, "number of dimensions"),
        (4, 0, "bad dimensions"),
        (4, 2**40, "bad dimensions"),
        (4, 2**31 - 1, "more than 1048576 chunks|digests for"),
        (5, 2**31 - 1, "bad dimensions|chunks of more than"),
        (7, 1, "number of dimensions"),
    ],
)
def test_a_broken_line_of_the_table_is_named(manifest: Manifest, column: int, value: int, says: str) -> None:
    with pytest.raises(RemoteProtocolError, match=says):
        decode_manifest(broken(manifest, 4, table_with(manifest, column, value)))


def test_only_the_canonical_form_is_taken(manifest: Manifest) -> None:
    format_in_two_bytes = manifest.encoded[:1] + b"\xcc\x01" + manifest.encoded[2:]
    for data in (format_in_two_bytes, manifest.encoded + b"\0", manifest.encoded[:-1], b"", b"\x96"):
        with pytest.raises(RemoteProtocolError):
            decode_manifest(data)


def test_a_tensor_named_twice_is_refused(manifest: Manifest) -> None:
    names = fields(manifest)[3].split("\0")
    with pytest.raises(RemoteProtocolError, match="occurs twice"):
        decode_manifest(broken(manifest, 3, "\0".join([names[1], *names[1:]])))


def test_a_hostile_manifest_costs_no_memory() -> None:
    tensor = np.array([0, 0, 1, 2, 2**31 - 1, 1, 0, 0], "<u8").tobytes()
    hostile = [
        b"\x96" + b"\x96" * 400_000,
        b"\x96\x01\xdf\xff\xff\xff\xff" + bytes(100_000),
        b"\x96\x01\xdd\xff\xff\xff\xff" + b"\x90" * 400_000,
        msgpack.packb([1, "x", 0, "a", tensor, bytes(64)]),
        bytes(MAX_MANIFEST_BYTES + 1),
    ]
    for data in hostile:
        tracemalloc.start()
        try:
            with pytest.raises(RemoteProtocolError):
                decode_manifest(data)
            assert tracemalloc.get_traced_memory()[1] < len(data) + 2_000_000
        finally:
            tracemalloc.stop()


def test_damaged_manifests_are_refused_and_never_more(manifest: Manifest) -> None:
    for seed in range(3000):
        rng = random.Random(seed)
        data = bytearray(manifest.encoded)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(data), 1500))
            data[at] = rng.randrange(256)
        try:
            again = decode_manifest(bytes(data))
        except RemoteProtocolError:
            continue
        except BaseException:
            print(f"seed {seed}")
            raise
        assert again.encoded == bytes(data) and again.chunk_sizes.max() <= MAX_CHUNK_BYTES
