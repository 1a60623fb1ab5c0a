"""An embedding whose rows are read from disk as tokens need them: the bits of one in memory, and no damaged row."""

from __future__ import annotations

from collections.abc import Iterator
from os import SEEK_CUR
from pathlib import Path

import numpy as np
import pytest

from swarm.engine.decoder import Decoder
from swarm.engine.row_table import SUM_BYTES, RowTable
from swarm.engine.weights import Weights, join_weights, load_table, load_weights, packed_bytes
from swarm.errors import BadModelFile
from swarm.kernels.quants import quant_by_name
from swarm.models import Role, spec_from_gguf
from swarm.models.spec import OUTSIDE_LAYERS, ModelSpec, tensors_needed
from swarm.parts import EMBED, all_parts
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

IDS = [7, 200, 7, 31, 4, 255, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101]


def by_row_and_whole(path: Path, folder: Path) -> tuple[ModelSpec, Weights, Weights]:
    """The same model with its embedding on the disk, and in memory."""
    store = ChunkStore(folder)  # the file stays where it is: its rows are read from there
    source = store.open(store.import_gguf(path).id)
    spec = spec_from_gguf(source.metadata, source.tensors)
    rest = [load_weights(source, spec, [part]) for part in all_parts(spec.n_layers) if part != EMBED]
    layers = range(spec.n_layers)
    by_row = join_weights([load_table(source, spec, source.open_rows), *rest], layers)
    whole = join_weights([load_weights(source, spec, [EMBED]), *rest], layers)
    store.close()
    return spec, by_row, whole


@pytest.mark.parametrize(
    ("name", "mix"), [("llama", "Q4_K"), ("qwen3", "Q8_0"), ("air", "F32"), ("granite", "Q4_0"), ("llama", "IQ4_XS")]
)
def test_logits_are_those_of_an_embedding_in_memory(tmp_path: Path, name: str, mix: str) -> None:
    tiny = TINY[name] if mix == "F32" else wide(TINY[name])
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)
    spec, by_row, whole = by_row_and_whole(path, tmp_path / "store")
    one, other = (Decoder(spec, weights, context=64, threads=1) for weights in (by_row, whole))
    np.testing.assert_array_equal(one.logits(IDS), other.logits(IDS))
    kv, kv_other = one.new_kv(), other.new_kv()
    for token in IDS[:3]:  # one native call each
        np.testing.assert_array_equal(one.forward([token], kv), other.forward([token], kv_other))


def test_what_it_holds_in_memory_are_checksums(tmp_path: Path) -> None:
    tiny = wide(TINY["llama"])
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    spec, by_row, whole = by_row_and_whole(path, tmp_path / "store")
    assert (OUTSIDE_LAYERS, Role.EMBED) not in by_row.matrices and by_row.table is not None
    assert by_row.table.n_bytes == SUM_BYTES * spec.vocab
    (need,) = tensors_needed(spec, [EMBED])
    with open_gguf(path) as file:
        in_memory = packed_bytes(need, file.tensors[need.ref.name].quant)
    assert whole.n_bytes - by_row.n_bytes == in_memory - by_row.table.n_bytes


class Rows:
    """Rows in memory, of which a test may spoil one."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def verified(self) -> Iterator[np.ndarray]:
        yield from (self.rows[:5].copy(), self.rows[5:].copy())

    def read(self, row: int) -> bytes:
        return bytes(self.rows[row].tobytes())

    def damaged(self, row: int) -> Exception:
        return BadModelFile(f"row {row} is not what it was")


def table() -> tuple[Rows, RowTable]:
    rows = Rows(np.random.default_rng(1).standard_normal((9, 32)).astype("<f4").view(np.uint8))
    return rows, RowTable(rows, quant_by_name("F32"), 9, 32)


def test_rows_come_in_the_order_of_the_ids() -> None:
    rows, of_rows = table()
    at, matrix = of_rows.take([8, 0, 8])
    assert at.tolist() == [0, 1, 2]
    np.testing.assert_array_equal([matrix.row(i) for i in at], rows.rows.view("<f4")[[8, 0, 8]])


def test_a_bit_that_flips_after_loading_is_found() -> None:
    rows, of_rows = table()
    rows.rows[6, 17] ^= 1
    with pytest.raises(BadModelFile, match="row 6 is not what it was"):
        of_rows.take([2, 6])
    of_rows.take([2])


@pytest.mark.parametrize("ids", [[-1], [9], [], [0, 9]])
def test_an_id_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="9 rows"):
        table()[1].take(ids)


def test_a_step_with_a_damaged_row_fails_and_the_next_one_is_right(tmp_path: Path) -> None:
    tiny = wide(TINY["llama"])
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    spec, by_row, whole = by_row_and_whole(path, tmp_path / "store")
    decoder, other = (Decoder(spec, weights, context=64, threads=1) for weights in (by_row, whole))
    with open_gguf(path) as file:
        entry = file.tensors[spec.tensors[Role.EMBED].name]
        row_bytes = entry.quant.row_bytes(entry.shape[-1])
    with path.open("r+b") as opened:
        opened.seek(entry.offset + 9 * row_bytes + 3)
        (byte,) = opened.read(1)
        opened.seek(-1, SEEK_CUR)
        opened.write(bytes([byte ^ 16]))
    kv = decoder.new_kv()
    with pytest.raises(BadModelFile, match="is not what it was"):
        decoder.forward([9], kv)
    assert kv.length == 0
    np.testing.assert_array_equal(decoder.forward([5], kv), other.forward([5], other.new_kv()))
