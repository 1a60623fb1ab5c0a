"""The compiled decoder: the same as the NumPy one, and the same bits however the work is cut."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from swarm import kernels
from swarm.engine.decoder import Decoder, Rows
from swarm.engine.weights import load_weights
from swarm.errors import ContextFull, ExpertAbsent, ModelError
from swarm.kernels import _native, reference_matmul
from swarm.models import spec_from_gguf
from swarm.models.spec import Role
from swarm.parts import parts_of
from swarm.store.gguf import open_gguf
from tests.helpers.families import same_rounding
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

IDS = np.random.default_rng(7).integers(4, 256, 70).astype(np.int32)
MIXED = (("llama", "Q4_K"), ("glm4", "Q4_0"), ("air", "Q4_K"), ("qwen3moe", "Q4_0"), ("glm-groups", "Q8_0"))


def write(tmp_path: Path, name: str, mix: str) -> Path:
    tiny = TINY[name] if mix == "F32" else wide(TINY[name])
    return write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)


def decoder(
    path: Path, *, layers: range | None = None, threads: int = 2, kv: str = "f32", isa: str = "", context: int = 512
) -> Decoder:
    """The model, or some of its layers with the embedding before the first and the head after the last."""
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        layers = layers or range(spec.n_layers)
        weights = load_weights(model, spec, parts_of(layers.start, layers.stop, spec.n_layers))
    return Decoder(spec, weights, context=context, threads=threads, kv=kv, isa=isa)


def in_pieces(d: Decoder, cuts: list[int], ids: np.ndarray = IDS) -> np.ndarray:
    kv = d.new_kv()
    ends = [*cuts, len(ids)]
    return np.concatenate([d.forward_all(ids[a:b], kv) for a, b in zip([0, *cuts], ends, strict=True)])


@pytest.mark.parametrize("name", TINY)
def test_float_weights_give_the_logits_of_the_numpy_decoder(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, "F32")
    got, want = decoder(path).logits(IDS), NumpyDecoder.open(path).logits(list(IDS))
    # The grid of exact sums; and with the same grid nothing, but where a sum is rounded to its other side.
    assert np.abs(got - want).max() <= 1e-3 * np.abs(want).max()
    assert same_rounding(path, rounded=False) <= 1e-5


@pytest.mark.parametrize("name", TINY)
def test_the_hidden_state_behind_the_last_norm_is_that_of_the_numpy_decoder(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, "F32")
    d, want = decoder(path), NumpyDecoder.open(path).hidden(list(IDS))
    d.forward(IDS, d.new_kv())
    assert np.abs(d.normed(0) - want[-1]).max() <= 1e-3 * np.abs(want).max()
    d.forward_all(IDS, d.new_kv())
    assert np.abs(d.normed(3) - want[3]).max() <= 1e-3 * np.abs(want).max(), "of a row among others"


@pytest.mark.parametrize(("name", "mix"), MIXED)
def test_the_hidden_state_has_the_same_bits_everywhere(tmp_path: Path, name: str, mix: str) -> None:
    path = write(tmp_path, name, mix)
    found = []
    for isa in kernels.isas():
        d = decoder(path, isa=isa)
        d.forward(IDS, d.new_kv())
        found.append(d.normed(0))
        cache = d.new_kv()
        d.store(IDS[:-1], cache)
        d.forward(IDS[-1:], cache)  # in one native call
        found.append(d.normed(0))
    assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize(("name", "mix"), MIXED)
def test_a_row_depends_on_neither_batch_nor_threads(tmp_path: Path, name: str, mix: str) -> None:
    path = write(tmp_path, name, mix)
    whole = decoder(path, threads=1).logits(IDS)
    for threads in (1, 2, 3):
        d = decoder(path, threads=threads)
        assert np.array_equal(in_pieces(d, []), whole)
        assert np.array_equal(in_pieces(d, list(range(1, len(IDS)))), whole), "one token at a time"
        assert np.array_equal(in_pieces(d, [3, 40, 41]), whole), "mixed pieces"


@pytest.mark.parametrize(("name", "mix"), MIXED)
def test_every_instruction_set_gives_the_same_bits(tmp_path: Path, name: str, mix: str) -> None:
    path = write(tmp_path, name, mix)
    for kv in ("f16", "q8_0"):
        first, *others = [decoder(path, isa=isa, kv=kv).logits(IDS) for isa in kernels.isas()]
        assert all(np.array_equal(first, other) for other in others), kernels.isas()


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
@pytest.mark.parametrize(("name", "mix"), MIXED)
def test_what_a_last_layer_leaves_out_changes_nothing(tmp_path: Path, name: str, mix: str, kv: str) -> None:
    path = write(tmp_path, name, mix)
    d = decoder(path, kv=kv, threads=2)
    whole = d.logits(IDS)  # of every token: nothing is left out
    assert np.array_equal(d.forward(IDS, d.new_kv()), whole[-1])
    cache = d.new_kv()
    d.store(IDS[:20], cache)
    d.store(IDS[20:21], cache)
    assert np.array_equal(d.forward(IDS[21:30], cache), whole[29])
    assert np.array_equal(d.forward_all(IDS[30:], cache), whole[30:])


@pytest.mark.parametrize(("name", "mix"), MIXED)
def test_a_pipeline_of_stages_gives_the_bits_of_one_device(tmp_path: Path, name: str, mix: str) -> None:
    path = write(tmp_path, name, mix)
    want = decoder(path).forward(IDS, decoder(path).new_kv())
    first, middle, last = (decoder(path, layers=range(i, i + 1)) for i in range(3))
    caches = [d.new_kv() for d in (first, middle, last)]
    for ids in (IDS[:30], IDS[30:31], IDS[31:]):
        hidden = first.embed(ids, caches[0])
        logits = last.finish(middle.extend(hidden, caches[1]), caches[2])
    assert np.array_equal(logits, want)


@pytest.mark.parametrize("kv", ["f16", "q8_0", "f32"])
def test_long_contexts_agree_across_segments_and_blocks(tmp_path: Path, kv: str) -> None:
    path = write(tmp_path, "glm4", "F32")
    ids = np.random.default_rng(3).integers(4, 256, 1100).astype(np.int32)
    d = decoder(path, kv=kv, context=2048)
    whole = d.logits(ids)
    assert np.array_equal(in_pieces(d, [1000, 1020, *range(1021, 1030), 1090], ids), whole)
    if kv == "f32":
        want = NumpyDecoder.open(path, exact=True).logits(list(ids))
        by_position = np.abs(whole - want).max(axis=1) / np.abs(want).max()
        assert by_position.max() <= 1e-3


@pytest.mark.parametrize(("kv", "bound"), [("f16", 2e-3), ("q8_0", 5e-2)])
def test_a_smaller_kv_cache_costs_little(tmp_path: Path, kv: str, bound: float) -> None:
    path = write(tmp_path, "llama", "F32")
    want = decoder(path).logits(IDS)
    got = decoder(path, kv=kv).logits(IDS)
    assert 0 < np.abs(got - want).max() <= bound * np.abs(want).max()


def test_an_outlier_among_keys_costs_a_q8_0_cache_little(tmp_path: Path) -> None:
    tiny = TINY["qwen3"]
    weights = {**make_weights(tiny)}
    for layer in range(tiny.n_layers):  # one channel of every key is thirty times the others, and matters as much
        channel = np.arange(tiny.head_dim) == 5
        weights[layer, "k_norm"] = np.where(channel, 30 * weights[layer, "k_norm"], weights[layer, "k_norm"])
        weights[layer, "q_norm"] = np.where(channel, weights[layer, "q_norm"] / 30, weights[layer, "q_norm"])
    path = write_tiny(tmp_path / "outlier.gguf", tiny, weights)
    want = decoder(path).logits(IDS)
    got = decoder(path, kv="q8_0").logits(IDS)
    assert np.abs(got - want).max() <= 5e-2 * np.abs(want).max()


def test_a_truncated_cache_is_as_good_as_a_new_one(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"))
    want = d.logits(IDS)
    kv = d.new_kv()
    d.forward(np.concatenate([IDS[:20], IDS[:30]]), kv)
    kv.truncate(20)
    assert np.array_equal(d.forward_all(IDS[20:], kv), want[20:])


def test_a_context_that_would_overflow_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"), context=64)
    kv = d.new_kv()
    with pytest.raises(ContextFull, match=r"70 tokens .* context of 64"):
        d.forward(IDS, kv)
    assert kv.length == 0


def test_token_ids_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"))
    for bad in (-1, d.spec.vocab):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            d.forward([5, bad], d.new_kv())


@pytest.mark.parametrize("kv", ["f16", "q8_0", "f32"])
def test_a_kv_cache_that_grows_keeps_what_it_holds(tmp_path: Path, kv: str) -> None:
    d = decoder(write(tmp_path, "glm4", "Q8_0"), kv=kv)
    large, small = d.new_kv(256), d.new_kv(64)
    for cache in (large, small):
        d.forward(IDS[:50], cache)
    small.resize(200)
    assert small.length == 50 and small.capacity >= 200
    for token in IDS:
        assert np.array_equal(d.forward([token], small), d.forward([token], large))


@pytest.mark.parametrize("name", ["glm4", "deepseek-lite"])
@pytest.mark.parametrize("kv", ["f16", "q8_0", "f32"])
def test_a_copy_of_a_kv_cache_goes_on_as_the_first_would(tmp_path: Path, kv: str, name: str) -> None:
    d = decoder(write(tmp_path, name, "Q8_0"), kv=kv)
    first, other, never = d.new_kv(256), d.new_kv(64), d.new_kv(64)
    d.forward(IDS[:50], first)
    d.forward(IDS[10:30], other)  # what it held before is gone
    other.copy(first, 37)
    d.forward(IDS[:37], never)
    for token in (5, 9, *IDS[:20]):
        assert np.array_equal(d.forward([token], other), d.forward([token], never))
    assert first.length == 50, "which lends, and keeps"
    for lender, n in ((first, 51), (first, -1), (other, 5), (d.new_kv(64, "f32" if kv != "f32" else "f16"), 0)):
        with pytest.raises(ValueError, match=r"copy|other"):
            other.copy(lender, n)


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_kv_cache_takes_memory_only_for_what_it_holds(tmp_path: Path, kv: str) -> None:
    d = decoder(write(tmp_path, "llama", "F32"), kv=kv, context=1 << 19)
    d.forward(IDS, d.new_kv(128))
    cache = d.new_kv()
    before = resident_bytes()
    d.forward(IDS, cache)
    assert resident_bytes() - before < 4 << 20, "of 100 MB and more that a full one takes"


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no /proc here")
    return int(statm.read_text().split()[1]) * mmap.PAGESIZE


def test_a_kv_cache_beyond_all_memory_is_a_memory_error(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"), context=1 << 28)
    with pytest.raises(MemoryError):
        for _ in range(1 << 10):
            d.new_kv()


MIXTURES = (("air", "Q4_K"), ("qwen3moe", "Q4_0"), ("glm-groups", "Q8_0"))
Expert = tuple[_native.Mat, _native.Mat, _native.Mat]


def experts_of(d: Decoder) -> list[tuple[_native.Ffn, int, Expert]]:
    """Every expert of every layer: the half it belongs to, its number, its matrices."""
    found = []
    for (_, ffn), layer in zip(d.layers, d.weights.layers, strict=True):
        lists = [
            d.weights.experts.get((layer, role), []) for role in (Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN)
        ]
        found += [(ffn, i, expert) for i, expert in enumerate(zip(*lists, strict=True))]
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "mix"), MIXTURES)
def test_experts_that_come_later_in_any_order_give_the_same_bits(
    tmp_path: Path, name: str, mix: str, threads: int
) -> None:
    d = decoder(write(tmp_path, name, mix), threads=threads)
    whole = d.logits(IDS)
    experts = experts_of(d)
    for ffn, i, _ in experts:
        ffn.set_expert(i, None, None, None)
    for place in np.random.default_rng(1).permutation(len(experts)):
        ffn, i, expert = experts[place]
        ffn.set_expert(i, *expert)
    assert np.array_equal(in_pieces(d, [1, 2, 40, 41]), whole)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "mix"), MIXTURES)
def test_a_step_fails_only_when_it_needs_an_absent_expert_and_can_be_repeated(
    tmp_path: Path, name: str, mix: str, threads: int
) -> None:
    d = decoder(write(tmp_path, name, mix), threads=threads)
    layer_of = {id(ffn): layer for (_, ffn), layer in zip(d.layers, d.weights.layers, strict=True)}
    for ids in (IDS[40:41], IDS[40:43]):  # inside one parallel region, and half by half
        kv = d.new_kv()
        d.forward(IDS[:40], kv)
        want = d.forward(ids, kv)
        kv.truncate(40)
        needed = 0
        for ffn, i, expert in experts_of(d):
            ffn.set_expert(i, None, None, None)
            try:
                assert np.array_equal(d.forward(ids, kv), want), "an expert that nothing needs made a difference"
            except ExpertAbsent as absent:
                needed += 1
                assert (absent.layer, absent.experts) == (layer_of[id(ffn)], (i,))
                assert str(absent).startswith(f"layer {absent.layer} needs experts that are not in memory ({i})")
                assert kv.length == 40, "a step that failed stored nothing"
                ffn.set_expert(i, *expert)
                assert np.array_equal(d.forward(ids, kv), want)
            ffn.set_expert(i, *expert)
            kv.truncate(40)
        assert 0 < needed < len(experts_of(d))


def test_all_experts_of_a_layer_may_be_absent_when_it_is_made(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "glm-groups", "Q8_0"))
    want = d.logits(IDS)
    layer = max(d.weights.layers)
    moe = d.spec.layers[layer].moe
    assert moe is not None
    m, v = d.weights.matrices, d.weights.vectors
    ffn = _native.Ffn(
        d.dims,
        norm=v[layer, Role.FFN_NORM],
        layer=layer,
        post_norm=v.get((layer, Role.FFN_POST_NORM)),
        gate=m.get((layer, Role.SHARED_GATE)),
        up=m.get((layer, Role.SHARED_UP)),
        down=m.get((layer, Role.SHARED_DOWN)),
        router=m[layer, Role.ROUTER],
        router_bias=v.get((layer, Role.ROUTER_BIAS)),
        experts=[None] * moe.n_experts,
        top_k=moe.top_k,
        sigmoid=moe.gating == "sigmoid",
        normalise=moe.normalise,
        scale=moe.scale,
        n_group=moe.n_group,
        top_group=moe.top_group,
    )
    experts = [(i, expert) for owner, i, expert in experts_of(d) if owner is d.layers[-1][1]]
    d.layers[-1] = (d.layers[-1][0], ffn)
    with pytest.raises(ExpertAbsent):
        d.logits(IDS)
    for i, expert in reversed(experts):
        ffn.set_expert(i, *expert)
    assert np.array_equal(d.logits(IDS), want)


def test_an_expert_that_does_not_fit_the_others_is_refused(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "glm-groups", "Q8_0"))
    ffn, i, (gate, up, down) = experts_of(d)[0]
    with pytest.raises(ValueError, match="expert_gate is"):
        ffn.set_expert(i, down, up, gate)
    with pytest.raises(ValueError, match="some of its matrices only"):
        ffn.set_expert(i, gate, None, down)
    with pytest.raises(IndexError):
        ffn.set_expert(len(experts_of(d)), gate, up, down)


@pytest.mark.parametrize("name", ["llama", "qwen3moe", "glm4"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_ends_the_step_with_an_error_and_leaves_nothing(
    tmp_path: Path, name: str, n: int, value: float
) -> None:
    d = decoder(write(tmp_path, name, "Q8_0"))
    kv, ids = d.new_kv(), np.arange(5, 12, dtype=np.int32)
    hidden = np.random.default_rng(0).standard_normal((n, d.spec.hidden), dtype=np.float32)
    hidden[-1, 3] = value
    with pytest.raises(ModelError, match="no numbers: its file may be damaged"):
        d.step_logits([Rows(hidden, kv)])
    assert kv.length == 0
    assert np.array_equal(d.forward(ids, kv), decoder(write(tmp_path, name, "Q8_0")).forward(ids, d.new_kv()))


def test_sums_count_steps_that_follow_from_x_or_where_they_are_normed_a_fixed_unit(tmp_path: Path) -> None:
    for name in ("llama", "glm4"):
        d = decoder(write(tmp_path, name, "F32"))
        x = np.random.default_rng(1).standard_normal((9, d.spec.hidden), dtype=np.float32)
        x *= np.exp2(np.arange(-12, 60, 8, dtype=np.float32))[:, None]
        x[0] = 0
        d.engine.share()
        d.engine.begin([(d.new_kv(), len(x))], *d.rope.at(0, len(x)))
        d.engine.set_hidden(x)
        d.engine.attention(d.layers[0][0])
        want = reference_matmul.step_of(x, d.spec.norm_eps)[:, 0] if name == "llama" else np.full(9, 2.0**-24)
        assert np.array_equal(d.engine.units(), want)
