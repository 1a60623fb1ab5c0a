"""The GGUF reader on hostile bytes: a header or one ModelError, in little time and memory, and never anything else.

Every case prints its seed when it fails; those that once failed are kept in FAILED.
SWARM_FUZZ_RUNS=50 runs fifty times as many.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import ModelError
from swarm.store.gguf_cursor import FileBytes
from swarm.store.gguf_header import parse_header
from tests.helpers.gguf_bytes import ARCHITECTURE, ARRAY, STRING, U8, File, array, pair, string, tensor, u32, u64
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.models import real_model

RUNS = int(os.environ.get("SWARM_FUZZ_RUNS", "1"))
NUMBERS = (0, 1, 2, 8, 9, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 9, 2**64 - 1)
# (file, seed) that gave something else while a check was missing: bounds of a read, of a text, overlap of tensors.
FAILED = (("hand_made", 19), ("hand_made", 28), ("hand_made", 663))


def check(data: FileBytes) -> bool:
    """Parse and use `data`; True when it was taken for a good file. Whatever is wrong must be a ModelError."""
    try:
        header = parse_header(data, "fuzzed")
        for key in header.metadata:
            assert header.metadata[key] is not None
    except ModelError as error:
        assert len(str(error).splitlines()) == 1
        return False
    end = header.data_start
    for item in sorted(header.tensors, key=lambda item: item.offset):
        assert end <= item.offset <= item.offset + item.n_bytes <= len(data), item
        assert item.n_bytes == np.prod(item.shape[:-1], dtype=object) * item.quant.row_bytes(item.shape[-1])
        end = item.offset + item.n_bytes
    return True


def mutate(data: bytearray, header_bytes: int, rng: random.Random, *, resize: bool = True) -> None:
    """Damage the header in place in one to four places."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, min(header_bytes, len(data) - 8)))
        kind = rng.randrange(7 if resize else 4)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            data[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif kind == 3:
            data[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
        elif kind == 4:
            del data[at : at + rng.choice((1, 8, 64))]
        elif kind == 5:
            data[at:at] = data[at : at + rng.choice((1, 8, 64))]
        else:
            del data[at:]
        if len(data) <= 8:
            return


# ---- small files


def hand_made() -> bytes:
    pairs = (ARCHITECTURE, pair("n", U8, b"\7"), pair("names", ARRAY, array(STRING, 2, string("a") + string("bc"))))
    return File(pairs=(*pairs, pair("numbers", ARRAY, array(5, 3, bytes(12))))).build()


def written(tmp_path: Path) -> bytes:
    metadata = {
        "general.architecture": "glm4",
        "tokens": [f"t{i}" for i in range(20)],
        "x": 0.5,
        "general.alignment": 64,
    }
    tensors = {f"blk.{i}.w": (np.ones((4, 256), np.float32), quant) for i, quant in enumerate(("F32", "Q4_K", "Q8_0"))}
    return write_gguf(tmp_path / "a.gguf", metadata, tensors).read_bytes()


@pytest.fixture(params=["hand_made", "written"])
def small_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, bytes]:
    return request.param, hand_made() if request.param == "hand_made" else written(tmp_path)


def fuzz_small(name: str, data: bytes, seeds: range | list[int]) -> int:
    n_good = 0
    for seed in seeds:
        damaged = bytearray(data)
        mutate(damaged, len(data), random.Random(f"{name} {seed}"))
        try:
            n_good += check(bytes(damaged))
        except BaseException:
            print(f"FAILED: ({name!r}, {seed})")
            raise
    return n_good


def test_damaged_small_files_give_a_header_or_a_model_error(small_file: tuple[str, bytes]) -> None:
    name, data = small_file
    assert check(data)
    n_good = fuzz_small(name, data, range(10_000 * RUNS))
    # Damage to a number or to the data goes unnoticed, damage to the structure does not: else the loop tests nothing.
    assert 0.02 < n_good / (10_000 * RUNS) < 0.7, n_good


def test_what_once_failed_stays_mended(small_file: tuple[str, bytes]) -> None:
    name, data = small_file
    fuzz_small(name, data, [seed for failed, seed in FAILED if failed == name])


@pytest.mark.parametrize("n_bytes", range(0, len(hand_made()), 1))
def test_a_file_cut_at_any_byte_is_refused(n_bytes: int) -> None:
    assert not check(hand_made()[:n_bytes])


# ---- the header of a real model


@pytest.fixture
def real_file() -> Iterator[mmap.mmap]:
    """A private copy of the default model, on write."""
    with real_model().open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as data:
        yield data


def test_the_damaged_header_of_a_real_model_gives_a_header_or_a_model_error(real_file: mmap.mmap) -> None:
    header_bytes = parse_header(real_file, "real").data_start
    original = real_file[: header_bytes + 64]
    structure = [*range(3000), *range(header_bytes - 16_000, header_bytes)]
    for seed in range(200 * RUNS):
        rng = random.Random(f"real {seed}")
        head = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            at = rng.choice(structure) if rng.random() < 0.8 else rng.randrange(header_bytes)
            window = bytearray(head[at : at + 16])
            mutate(window, 8, rng, resize=False)
            head[at : at + len(window)] = window
        real_file[: len(head)] = bytes(head)
        try:
            check(real_file)
        except BaseException:
            print(f"FAILED: ('real', {seed})")
            raise


# ---- files that follow the grammar, with any numbers in them

number = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(NUMBERS), st.integers(0, 64))
number32 = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 40))
texts = st.binary(max_size=12).map(string) | number.map(u64)
arrays = st.builds(array, number32, number | st.integers(0, 3), st.binary(max_size=40))
values = st.binary(max_size=12) | texts | arrays
pairs = st.builds(lambda key, kind, value: key + u32(kind) + value, texts, st.integers(0, 14), values)
tensors = st.builds(
    tensor, st.binary(max_size=8), st.lists(number, max_size=5), number32, number | st.sampled_from((0, 32, 64, 96))
)
files = st.builds(
    File,
    pairs=st.lists(pairs, max_size=4),
    tensors=st.lists(tensors, max_size=4),
    data=st.binary(max_size=300),
    version=st.sampled_from((u32(2), u32(3))) | number32.map(u32),
    n_tensors=st.none() | number,
    n_pairs=st.none() | number,
)


@settings(max_examples=600 * RUNS, deadline=1000, derandomize=RUNS == 1)
@given(files)
def test_any_numbers_in_a_well_formed_header_give_a_header_or_a_model_error(file: File) -> None:
    check(file.build())


@settings(max_examples=200 * RUNS, deadline=1000, derandomize=RUNS == 1)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_give_a_header_or_a_model_error(tail: bytes) -> None:
    check(b"GGUF\3\0\0\0" + tail)


# ---- memory


HUGE: dict[str, Callable[[], File]] = {
    "tensors": lambda: File(n_tensors=65_536),
    "keys": lambda: File(n_pairs=65_536),
    "numbers": lambda: File(pairs=(pair("x", ARRAY, array(10, 2**22, b"")),)),
    "texts": lambda: File(pairs=(pair("x", ARRAY, array(STRING, 2**22, b"")),)),
    "a text": lambda: File(pairs=(pair("x", STRING, u64(2**26)),)),
    "dimensions": lambda: File(tensors=(tensor("a", (2**31 - 1,) * 4, 0, 0),)),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_huge_number_in_a_small_file_costs_no_memory(what: str) -> None:
    data = HUGE[what]().build()
    tracemalloc.start()
    try:
        assert not check(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000, peak
