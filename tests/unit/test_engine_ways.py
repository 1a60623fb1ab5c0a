"""Ways to compute a token's products: the fastest is found and kept, and none changes a bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from swarm import cores, kernels
from swarm.engine import ways
from swarm.engine.decoder import Decoder
from swarm.engine.ways import Choice, Product, Way
from swarm.engine.weights import load_weights
from swarm.kernels.quants import QUANTS
from swarm.models import spec_from_gguf
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

ISA = kernels.isa()
IDS = np.random.default_rng(7).integers(4, 256, 20).astype(np.int32)
FOUND = {Product("Q4_K"): Choice(Way(ISA, 1, 4096), 3e10, 1.2), Product("Q6_K", True): Choice(Way(ISA), 2e10, 1.0)}


def test_the_usual_way_is_tried_first_and_none_is_of_a_set_above_the_one_in_use() -> None:
    for i, isa in enumerate(kernels.isas()):
        tried = ways.candidates(isa)
        assert tried[0] == ways.usual(isa) == Way(isa)
        assert len(set(tried)) == len(tried)
        assert {way.isa for way in tried} <= set(kernels.isas()[: i + 1])


def test_another_way_must_gain_more_than_noise() -> None:
    usual, other = Way(ISA), Way(ISA, 1, 4096)
    assert ways.choose({usual: 1.02, other: 1.0}, usual).way == usual
    assert ways.choose({usual: 1.10, other: 1.0}, usual) == Choice(other, ways.PASS_BYTES, 1.10)
    assert ways.choose({usual: 0.5, other: 1.0}, usual) == Choice(usual, 2 * ways.PASS_BYTES, 1.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[Way, float]:
    """Seconds that a pass of each way takes; nothing is really measured, and nobody else is at work."""
    took = {way: 2e-3 for way in ways.candidates(ISA)}
    monkeypatch.setattr(ways, "PASS_BYTES", 1 << 16)
    monkeypatch.setattr(ways._native, "product_seconds", lambda qtype, summed, *rest: took[Way(*rest[:3])])
    monkeypatch.setattr(cores.Others, "share", lambda self: 0.0)
    return took


def test_the_fastest_way_of_each_product_is_found(quick: dict[Way, float]) -> None:
    quick[Way(ISA, 1, 8192)] = 1e-3
    wanted = [Product("Q4_K"), Product("Q6_K", True)]
    assert ways.measure(wanted, ISA, 2) == dict.fromkeys(wanted, Choice(Way(ISA, 1, 8192), 65536 / 1e-3, 2.0))


def test_beside_busy_programs_nothing_is_found(quick: dict[Way, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.Others, "share", lambda self: 0.3)
    assert ways.measure([Product("Q4_K")], ISA, 2) == {}


def test_without_room_nothing_is_measured(quick: dict[Way, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "free_memory_bytes", lambda: ways.ROOM_BYTES - 1)
    assert ways.measure([Product("Q4_K")], ISA, 2) == {}


def test_a_question_ends_it_at_once(quick: dict[Way, float], monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([True, True, True])
    assert ways.measure([Product("Q4_K"), Product("Q6_K")], ISA, 2, lambda: next(passes, False)) == {}


def test_what_does_not_fit_in_a_second_is_left_for_another_time(
    quick: dict[Way, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.9, 1.8])
    monkeypatch.setattr(cores.Others, "seconds", property(lambda self: next(now)))
    wanted = [Product("Q4_K"), Product("Q6_K"), Product("Q4_0")]
    assert list(ways.measure(wanted, ISA, 2)) == wanted[:2]


def test_a_real_measurement_gives_a_way_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "PASS_BYTES", 1 << 20)
    monkeypatch.setattr(ways, "ROUNDS", 1)
    monkeypatch.setattr(cores.Others, "share", lambda self: 0.0)
    for isa in kernels.isas():
        for summed in (False, True):
            wanted = Product("Q5_K", summed)
            choice = ways.measure([wanted], isa, 2)[wanted]
            assert choice.way in ways.candidates(isa) and choice.gain >= 1 and 1e6 < choice.bytes_per_s < 1e13


def test_what_was_found_is_kept_for_its_set_and_threads(tmp_path: Path) -> None:
    folder = tmp_path / "not yet"
    assert ways.kept(folder, ISA, 2) == {}
    ways.keep(folder, ISA, 2, FOUND)
    lower = kernels.isas()[0]
    ways.keep(folder, lower, 1, {Product("Q8_0"): Choice(Way(lower), 1e9, 1.0)})
    assert ways.kept(folder, ISA, 2) == FOUND
    assert ways.kept(folder, lower, 1).keys() == {Product("Q8_0")}
    assert ways.kept(folder, ISA, 3) == {}


def test_another_build_or_cpu_finds_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways.keep(tmp_path, ISA, 2, FOUND)
    monkeypatch.setattr(cores, "cpu_model", lambda: "another one")
    assert ways.kept(tmp_path, ISA, 2) == {}
    ways.keep(tmp_path, ISA, 1, FOUND)
    assert ways.kept(tmp_path, ISA, 1) == FOUND and ways.kept(tmp_path, ISA, 2) == {}
    other = tmp_path / "other.so"
    other.write_bytes(b"built anew")
    monkeypatch.setattr(ways._native, "__file__", str(other))
    assert ways.kept(tmp_path, ISA, 1) == {}


@pytest.mark.parametrize(
    "row",
    [
        7,
        ["Q4_K", False, "avx9", 1, 4096, 1.0, 1.0],
        ["Q4_K", False, ISA, 1, -4096, 1.0, 1.0],
        ["Q4_K", False, ISA, 64, 4096, 1.0, 1.0],
        ["Q4_K", False, ISA, [], 4096, 1.0, 1.0],
        ["Q4_K", "no", ISA, 1, 4096, 1.0, 1.0],
        ["Q4_K", False, ISA, 1, 4096, float("nan"), 1.0],
        ["Q4_K", False, ISA, 1, 4096, 1.0, -1.0],
        ["Q9_K", False, ISA, 1, 4096, 1.0, 1.0],
        ["F16", False, ISA, 1, 4096, 1.0, 1.0],
        ["Q4_K", False, ISA, 1, 4096, 1.0],
    ],
)
def test_what_makes_no_sense_in_the_file_is_passed_over(tmp_path: Path, row: object) -> None:
    ways.keep(tmp_path, ISA, 2, FOUND)
    value = json.loads((tmp_path / ways.FILE_NAME).read_bytes())
    value["sets"][f"{ISA} 2"].insert(1, row)
    (tmp_path / ways.FILE_NAME).write_text(json.dumps(value))
    assert ways.kept(tmp_path, ISA, 2) == FOUND


@pytest.mark.parametrize("text", ["", "[" * 100000, "[]", '{"of": 3}', '{"of": "x", "sets": 4}', "\xff"])
def test_a_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ways.FILE_NAME).write_bytes(text.encode("latin-1"))
    assert ways.kept(tmp_path, ISA, 2) == {}
    ways.keep(tmp_path, ISA, 2, FOUND)
    assert ways.kept(tmp_path, ISA, 2) == FOUND


def test_only_what_is_missing_is_measured(tmp_path: Path, quick: dict[Way, float]) -> None:
    ways.keep(tmp_path, ISA, 2, FOUND)
    both = ways.renewed(tmp_path, [Product("Q4_K"), Product("Q8_0")], ISA, 2)
    assert both == {**FOUND, Product("Q8_0"): Choice(Way(ISA), 65536 / 2e-3, 1.0)}
    assert ways.kept(tmp_path, ISA, 2) == both


@pytest.mark.parametrize(("name", "mix"), [("llama", "Q4_K"), ("air", "Q4_K"), ("glm4", "Q4_0")])
def test_no_way_changes_a_bit_of_the_logits(tmp_path: Path, name: str, mix: str) -> None:
    tiny = wide(TINY[name])
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        weights = load_weights(model, spec, all_parts(spec.n_layers))
    products = ways.products_of(weights)
    assert {product.summed for product in products} == {False, True}
    decoder = Decoder(spec, weights, context=64, threads=2)

    def one_by_one() -> np.ndarray:
        kv = decoder.new_kv()
        return np.stack([decoder.forward(IDS[i : i + 1], kv) for i in range(len(IDS))])

    usual = one_by_one()
    for way in ways.candidates(ISA):
        decoder.choose(dict.fromkeys(products, Choice(way, 1.0, 1.0)))
        assert np.array_equal(one_by_one(), usual), way


def test_a_way_that_there_is_not_is_refused() -> None:
    data = np.zeros(1 << 16, np.uint8)
    quant = next(q.id for q in QUANTS.values() if q.name == "Q4_K")
    for wrong in (
        (quant, False, "avx9", 1, 0),
        (quant, False, ISA, 3, 0),
        (quant, False, ISA, 1, -1),
        (0, False, ISA, 1, 0),
    ):
        with pytest.raises(ValueError):
            ways._native.product_seconds(*wrong, data, 256, 1)
