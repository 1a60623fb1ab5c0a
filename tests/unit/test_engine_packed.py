"""Packed weights kept in a file: mapped the second time, never half-written, never in the way."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from swarm import kernels
from swarm.digests import bytes_before_table, table_bytes
from swarm.engine import packed
from swarm.engine.decoder import Decoder
from swarm.engine.packed import PackedFile, is_right, is_worth_it, prune
from swarm.engine.weights import Keep, Weights, load_weights
from swarm.errors import BadModelFile
from swarm.files import partial_of
from swarm.kernels import _native
from swarm.kernels.quants import quant_by_name
from swarm.limits import MAX_PACKED_FILES, MIN_PACKED_BYTES
from swarm.local.model import packed_key
from swarm.models import spec_from_gguf
from swarm.models.slices import cut_model, narrow
from swarm.parts import Part, all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, write_tiny

Usage = namedtuple("Usage", "total used free")
IDS = list(range(5, 40))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf", TINY["air"], make_weights(TINY["air"]), "Q8_0")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep files in the foreground, so that a test sees them, and let nobody look at them in between."""
    monkeypatch.setattr(PackedFile, "_watch", lambda self: None)
    monkeypatch.setattr(PackedFile, "finish", lambda self: None if self.is_filled else self._keep())


def keeper(folder: Path) -> Keep:
    return lambda n_bytes, _: PackedFile.open(folder, "key", n_bytes, "all", always=True)


def load(path: Path, keep: Keep | None) -> tuple[Weights, np.ndarray]:
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        weights = load_weights(file, spec, all_parts(spec.n_layers), keep=keep)
    return weights, Decoder(spec, weights, context=64, threads=1).logits(IDS)


def test_the_second_load_packs_nothing_and_gives_the_same_logits(
    model: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, want = load(model, None)
    _, first = load(model, keeper(tmp_path / "kept"))

    def never(*_: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr(_native, "pack", never)
    _, second = load(model, keeper(tmp_path / "kept"))
    assert np.array_equal(first, want)
    assert np.array_equal(second, want)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["key-all.packed"]


def test_a_file_of_another_size_is_packed_anew(model: Path, tmp_path: Path, here: None) -> None:
    (tmp_path / "key-all.packed").write_bytes(b"cut off")
    weights, _ = load(model, keeper(tmp_path))
    assert (tmp_path / "key-all.packed").stat().st_size == weights.n_bytes + table_bytes(weights.n_bytes)


def test_what_a_killed_run_left_is_overwritten(model: Path, tmp_path: Path, here: None) -> None:
    partial_of(tmp_path / "key-all.packed").write_bytes(b"\xff" * 100_000)
    _, want = load(model, None)
    load(model, keeper(tmp_path))
    _, got = load(model, keeper(tmp_path))
    assert np.array_equal(got, want)


def test_a_file_that_another_process_fills_is_left_alone(model: Path, tmp_path: Path, here: None) -> None:
    unfinished = partial_of(tmp_path / "key-all.packed")
    with unfinished.open("wb") as other:
        other.write(b"theirs")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        load(model, keeper(tmp_path))
    assert unfinished.read_bytes() == b"theirs"
    assert not (tmp_path / "key-all.packed").exists()


def test_a_full_disk_means_memory(model: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    _, got = load(model, keeper(tmp_path))
    assert np.array_equal(got, load(model, None)[1])
    assert not (tmp_path / "key-all.packed").exists()


def test_only_large_models_on_disks_with_room_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Usage(100 * 2**30, 0, 50 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    monkeypatch.setattr(packed, "is_slow_disk", lambda _: False)
    assert is_worth_it(tmp_path, MIN_PACKED_BYTES)
    assert is_worth_it(tmp_path / "not" / "yet", MIN_PACKED_BYTES)
    assert not is_worth_it(tmp_path, MIN_PACKED_BYTES - 1)
    assert not is_worth_it(tmp_path, 41 * 2**30), "a tenth of the disk stays free"
    monkeypatch.setattr(packed, "is_slow_disk", lambda _: True)
    assert not is_worth_it(tmp_path, MIN_PACKED_BYTES)


def test_the_files_used_longest_ago_are_deleted(tmp_path: Path) -> None:
    for age in range(MAX_PACKED_FILES + 2):
        path = tmp_path / f"{age}.packed"
        path.write_bytes(b"x")
        os.utime(path, (1000 - age, 1000 - age))
    prune(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{age}.packed" for age in range(MAX_PACKED_FILES)]


def test_the_key_changes_with_the_file(model: Path) -> None:
    with open_gguf(model) as file:
        before = packed_key(file)
        os.utime(model, (1, 1))
        assert packed_key(file) != before


def test_slices_of_equal_size_are_kept_apart(tmp_path: Path, here: None) -> None:
    tiny = replace(TINY["llama"], ffn=128)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "F32")
    keep = partial(PackedFile.open, tmp_path / "kept", "key", always=True)
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        halves = [narrow(spec, file.tensors, bounds) for bounds in cut_model(spec, file.tensors, (1.0, 1.0))]
        layer = [Part(1)]
        fresh = [load_weights(file, half, layer) for half in halves]
        for _ in range(2):
            kept = [load_weights(file, half, layer, keep=keep) for half in halves]
            for one, other in zip(fresh, kept, strict=True):
                assert one.n_bytes == other.n_bytes == fresh[0].n_bytes
                assert all(
                    np.array_equal(mat.unpack(), other.matrices[key].unpack()) for key, mat in one.matrices.items()
                )
    assert len(list((tmp_path / "kept").iterdir())) == 2


PACKED_AS_LAYOUT_3 = {
    "F32": "19c1158b",
    "F16": "4cbdd499",
    "Q4_0": "aadd5f9c",
    "Q4_1": "2011160f",
    "Q5_0": "d13d470a",
    "Q5_1": "636bcfe7",
    "Q8_0": "fe64e319",
    "Q2_K": "2a5ec089",
    "Q3_K": "3e2a9694",
    "Q4_K": "2131ba15",
    "Q5_K": "bf0fe63a",
    "Q6_K": "c923d55d",
    "IQ4_NL": "aadd5f9c",
    "IQ4_XS": "40797ded",
    "BF16": "4cbdd499",
}


@pytest.mark.parametrize("name", PACKED_AS_LAYOUT_3)
def test_the_layout_has_the_number_that_kept_files_are_named_by(name: str) -> None:
    """When this fails, the layout has changed: raise PACKED_LAYOUT, then write down the new digests."""
    quant = quant_by_name(name)
    cols = 2 * quant.block_cols if quant.block_cols > 1 else 5
    raw = (np.arange(20 * quant.row_bytes(cols), dtype=np.uint32) * 2654435761 >> 13).astype(np.uint8)
    n_bytes = _native.packed_bytes(quant.id, 20, cols, cols)
    out = np.zeros(n_bytes + 64, np.uint8)
    out = out[-out.ctypes.data % 64 :][:n_bytes]
    _native.pack(quant.id, raw.reshape(20, -1), cols, out)
    assert (kernels.PACKED_LAYOUT, blake3(out.tobytes()).hexdigest(4)) == (3, PACKED_AS_LAYOUT_3[name])


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("at", [0, 1000, -1, -40])
def test_a_kept_file_with_a_flipped_bit_is_named_and_packed_anew(
    model: Path, tmp_path: Path, here: None, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    _, want = load(model, keeper(tmp_path))
    kept = tmp_path / "key-all.packed"
    right = kept.read_bytes()
    flip(kept, at % len(right))
    assert is_right(kept) is False
    _, got = load(model, keeper(tmp_path))
    assert np.array_equal(got, want)
    assert f"{kept} was damaged on the disk: it is packed anew" in caplog.text
    assert kept.read_bytes() == right
    assert is_right(kept) is True


def test_damage_of_what_is_in_use_is_found_and_ends_the_next_step(model: Path, tmp_path: Path, here: None) -> None:
    load(model, keeper(tmp_path))
    with open_gguf(model) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        weights = load_weights(file, spec, all_parts(spec.n_layers), keep=keeper(tmp_path))
    decoder = Decoder(spec, weights, context=64, threads=1)
    decoder.logits(IDS)
    (kept,) = weights.mapped
    assert isinstance(kept, PackedFile)
    kept.scrub(0)
    decoder.logits(IDS)
    flip(tmp_path / "key-all.packed", 5000)
    kept.scrub(7)  # the pieces are counted on and on
    with pytest.raises(BadModelFile, match="was damaged on the disk while it was used; start again"):
        decoder.logits(IDS)
    assert not (tmp_path / "key-all.packed").exists()


def test_a_file_that_was_packed_anew_meanwhile_stays(model: Path, tmp_path: Path, here: None) -> None:
    load(model, keeper(tmp_path))
    path = tmp_path / "key-all.packed"
    size = path.stat().st_size
    old = PackedFile.open(tmp_path, "key", bytes_before_table(size) or 0, "all")
    assert old is not None
    flip(path, 5000)
    other = path.with_name("new")
    other.write_bytes(path.read_bytes())
    other.replace(path)
    old.scrub(0)
    assert old.is_damaged and path.exists()


def test_a_file_that_is_none_of_ours_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "x.packed").write_bytes(b"short")
    assert is_right(tmp_path / "x.packed") is None
