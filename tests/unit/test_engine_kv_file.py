"""Keys and values in a file: the same bits again, from any beginning, and nothing of what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from swarm.engine import kv_file
from swarm.engine.decoder import Decoder
from swarm.engine.kv_file import DIGEST_BYTES, PANEL_TOKENS, U8, piece_of, put, read_header, read_kv, write_kv
from swarm.kernels import _native
from tests.helpers.tiny import TINY, wide
from tests.helpers.tiny_decoder import tiny_decoder

HEADER = b"whose it is"
N, CONTEXT = 160, 320
IDS = np.random.default_rng(1).integers(4, 256, N + 3).astype(np.int32)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_file, "PIECE_TOKENS", 64)


@pytest.fixture(scope="module", params=[("qwen3", "f16"), ("qwen3", "q8_0"), ("flash", "f16")], ids="-".join)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    family, kind = request.param
    with tiny_decoder(tmp_path_factory.mktemp(family), wide(TINY[family]), "Q8_0", context=CONTEXT, kv=kind) as decoder:
        yield decoder


def computed(decoder: Decoder, n: int = N, capacity: int = CONTEXT) -> _native.KvCache:
    kv = decoder.new_kv(capacity)
    decoder.forward(IDS[:n], kv)
    return kv


def kept(decoder: Decoder, folder: Path) -> Path:
    path = folder / "kept.kv"
    assert write_kv(path, HEADER, N, partial(piece_of, computed(decoder, N + 3))) == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600 and [each.name for each in folder.glob("*kept*")] == ["kept.kv"]
    return path


def read(path: Path, kv: _native.KvCache, n: int = N, header: bytes = HEADER) -> None:
    def take(first: int, end: int, piece: U8) -> bool:
        put(kv, first, end, piece)
        return True

    ends = list(read_kv(path, header, kv, n, take))
    assert ends == [min(end, n) for end in range(64, n + 64, 64)][: len(ends)]


@pytest.mark.parametrize("n", [16, 64, 80, 128, N])
@pytest.mark.parametrize("capacity", [N + 32, CONTEXT])
def test_what_is_read_has_the_bits_of_what_was_computed(
    decoder: Decoder, tmp_path: Path, n: int, capacity: int
) -> None:
    path, kv = kept(decoder, tmp_path), decoder.new_kv(capacity)
    assert read_header(path) == HEADER
    read(path, kv, n)
    assert kv.length == n
    again = computed(decoder, n)
    for layer in range(kv.n_layers):
        for ours, theirs in zip(kv.rows(layer), again.rows(layer), strict=True):
            panels = n // PANEL_TOKENS
            assert ours[:, :panels].tobytes() == theirs[:, :panels].tobytes()
    assert (decoder.forward(IDS[n : N + 3], kv) == decoder.forward(IDS[n : N + 3], again)).all()


def test_any_flipped_bit_ends_the_reading_before_what_it_spoils(decoder: Decoder, tmp_path: Path) -> None:
    path = kept(decoder, tmp_path)
    whole = path.read_bytes()
    piece = (len(whole) - len(kv_file._sealed(HEADER)) - 3 * DIGEST_BYTES) * 64 // N + DIGEST_BYTES
    starts = [len(kv_file._sealed(HEADER)) + i * piece for i in range(3)]
    for at in [0, 12, 20, starts[0] - 1, starts[0], starts[1] - 1, starts[1], starts[2] - 1, starts[2], len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        kv = decoder.new_kv()
        with pytest.raises(ValueError, match="damaged"):
            read(path, kv)
        assert kv.length == 64 * sum(start <= at for start in starts[1:])


@pytest.mark.parametrize("left", [0, 5, 60, 1000, -1, -40])
def test_a_file_that_was_cut_off_is_no_file(decoder: Decoder, tmp_path: Path, left: int) -> None:
    path = kept(decoder, tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"damaged|ends before"):
        read(path, decoder.new_kv())


def test_a_file_of_another_conversation_is_not_read(decoder: Decoder, tmp_path: Path) -> None:
    kv = decoder.new_kv()
    with pytest.raises(ValueError, match="another conversation"):
        read(kept(decoder, tmp_path), kv, header=b"somebody else's")
    assert kv.length == 0


def test_pieces_of_two_files_do_not_mix(decoder: Decoder, tmp_path: Path) -> None:
    ours, theirs = kept(decoder, tmp_path), tmp_path / "theirs.kv"
    write_kv(theirs, b"whose it was", N, partial(piece_of, computed(decoder)))
    start = len(kv_file._sealed(HEADER))
    mixed = ours.read_bytes()[:start] + theirs.read_bytes()[len(kv_file._sealed(b"whose it was")) :]
    ours.write_bytes(mixed)
    with pytest.raises(ValueError, match="positions from 0 on are damaged"):
        read(ours, decoder.new_kv())


def test_who_is_told_to_stop_leaves_nothing(decoder: Decoder, tmp_path: Path) -> None:
    kv = computed(decoder)

    def two_pieces(first: int, end: int) -> U8 | None:
        return piece_of(kv, first, end) if first < 128 else None

    assert write_kv(tmp_path / "kept.kv", HEADER, N, two_pieces) == 0
    assert not list(tmp_path.glob("*kept*"))


def test_a_full_disk_leaves_nothing(decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kv_file, "_piece_digest", full)
    with pytest.raises(OSError, match="No space"):
        write_kv(tmp_path / "kept.kv", HEADER, N, partial(piece_of, computed(decoder)))
    assert not list(tmp_path.glob("*kept*"))


def test_rows_are_put_where_they_belong_only(decoder: Decoder, tmp_path: Path) -> None:
    kv = decoder.new_kv(64)
    with pytest.raises(ValueError, match="into 0 of 64"):
        put(kv, 64, 128, np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="into 0 of 64"):
        put(kv, 0, 128, np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="0 positions in memory, 64 were to be kept"):
        piece_of(kv, 0, 64)
    with pytest.raises(ValueError, match="cannot fill"):
        kv.fill(65)
    with pytest.raises(IndexError):
        kv.rows(kv.n_layers)
