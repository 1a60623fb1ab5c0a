"""Every type x instruction set x odd size: the bits of the NumPy reference, and nothing written outside."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from swarm.kernels import reference_matmul as reference
from tests.kernels import cases
from tests.kernels.build import Library, guards_intact, library


def rng_of(*key: object) -> np.random.Generator:
    seed = zlib.crc32(repr(key).encode())
    print(f"seed {seed} {key}")
    return np.random.default_rng(seed)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
@pytest.mark.parametrize("name", cases.NAMES)
def test_a_product_has_the_bits_of_the_reference(name: str, shape: cases.Shape, isa: str) -> None:
    lib, kernels = library(), library().kernels(isa)
    assert kernels is not None
    cols = shape.cols(name)
    for blocks_of, x_of in (
        (cases.random_blocks, cases.random_activations),
        (cases.extreme_blocks, cases.extreme_activations),
    ):
        rng = rng_of(name, shape, blocks_of.__name__)
        blocks, x = blocks_of(name, shape.rows, cols, rng), x_of(shape.tokens, cols, rng)
        packed = lib.pack(cases.TYPES[name], blocks, shape.rows, cols, shape.tile_cols(name))
        acts = lib.activations(kernels, x)
        got = lib.matmul(kernels, packed, acts)
        want = reference.matmul(name, blocks, x)
        assert same_bits(got, want), np.abs(got - want).max()
        assert all(guards_intact(*g) for g in acts.guards)


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.QUANTS)
def test_one_token_of_either_sign_in_any_lane_overflows_nothing(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    cols = 2 * max(cases.BLOCK[name], 32)
    blocks = np.concatenate([cases.extreme_blocks(name, 16, cols, rng), cases.random_blocks(name, 16, cols, rng)])
    packed = lib.pack(cases.TYPES[name], blocks, 32, cols, cols)
    for pattern in cases.lane_activations(cols):
        for x in (pattern[None], -pattern[None]):
            got = lib.matmul(kernels, packed, lib.activations(kernels, x))
            assert same_bits(got, reference.matmul(name, blocks, x))


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.NAMES)
def test_ranges_of_panels_and_tokens_give_the_same_bits_and_touch_nothing_else(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    rows, tokens, fill = 16 * 7 + 5, 9, -77.5
    for tile_blocks in (0, 1):
        shape = cases.Shape(rows, 3, tile_blocks, tokens)
        cols = shape.cols(name)
        blocks = cases.random_blocks(name, rows, cols, rng)
        packed = lib.pack(cases.TYPES[name], blocks, rows, cols, shape.tile_cols(name))
        acts = lib.activations(kernels, cases.random_activations(tokens, cols, rng))
        whole = lib.matmul(kernels, packed, acts)
        for (t0, t1), (p0, p1) in (
            ((0, 1), (2, 7)),
            ((3, 8), (7, 8)),
            ((0, 9), (1, 2)),
            ((4, 4), (0, 8)),
            ((8, 9), (3, 3)),
        ):
            part = lib.matmul(kernels, packed, acts, tokens=(t0, t1), panels=(p0, p1), fill=fill)
            inside = np.zeros(part.shape, bool)
            inside[t0:t1, 16 * p0 : 16 * p1] = True
            assert (part[~inside] == fill).all()
            assert same_bits(part[inside], whole[inside])


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.NAMES)
def test_any_number_of_tokens_together_gives_the_bits_of_each_alone(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    rows, tokens, fill = 16 * 2 + 11, 18, -77.5
    cols = (3 if cases.BLOCK[name] == 256 else 19) * max(32, cases.BLOCK[name])  # more than a batch unpacks at once
    packed = lib.pack(cases.TYPES[name], cases.random_blocks(name, rows, cols, rng), rows, cols)
    acts = lib.activations(kernels, cases.random_activations(tokens, cols, rng))
    alone = [lib.matmul(kernels, packed, acts, tokens=(t, t + 1))[t] for t in range(tokens)]
    for n in range(2, tokens):
        some = lib.matmul(kernels, packed, acts, tokens=(1, 1 + n), fill=fill)
        assert all(same_bits(some[t], alone[t]) for t in range(1, 1 + n)), n
        assert (some[:1] == fill).all() and (some[1 + n :] == fill).all()


WAYS_TO_READ = [(streams, ahead) for streams in (1, 4) for ahead in (0, 64, 4096, 1 << 20)]


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.NAMES)
def test_how_it_is_read_changes_no_bit(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    columns = lib.lib.sw_group_cols(cases.TYPES[name], 64)
    rows, cols = 16 * 6 + 5, 5 * max(32, cases.BLOCK[name])
    packed = lib.pack(cases.TYPES[name], cases.random_blocks(name, rows, cols, rng), rows, cols)
    acts = lib.activations(kernels, cases.random_activations(1, cols, rng))
    factor = np.exp2(rng.integers(4, 14, 1)).astype(np.float32)

    def results() -> list[np.ndarray]:
        plain = lib.matmul(kernels, packed, acts)
        cut = lib.matmul(kernels, packed, acts, panels=(1, 6))
        own = [lib.sums(kernels, packed, acts, columns=columns, factor=factor, own=own) for own in (False, True)]
        return [plain.view(np.uint32), cut.view(np.uint32), *own]

    usual = results()
    for packed.mat.streams, packed.mat.ahead in WAYS_TO_READ:
        assert all(map(np.array_equal, results(), usual)), (packed.mat.streams, packed.mat.ahead)


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q4_K", "Q6_K"])
def test_a_row_too_wide_for_one_span_of_activations_has_the_bits_of_a_batch(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    rows, cols, columns = 16 + 3, 256 * 133, lib.lib.sw_group_cols(cases.TYPES[name], 192)
    packed = lib.pack(cases.TYPES[name], cases.random_blocks(name, rows, cols, rng), rows, cols)
    acts = lib.activations(kernels, cases.random_activations(20, cols, rng))
    factor = np.exp2(rng.integers(4, 14, 20)).astype(np.float32)
    many = lib.matmul(kernels, packed, acts)
    many_sums = lib.sums(kernels, packed, acts, columns=columns, factor=factor)
    for packed.mat.streams, packed.mat.ahead in ((0, 0), *WAYS_TO_READ):
        assert same_bits(lib.matmul(kernels, packed, acts, tokens=(3, 4))[3], many[3])
        one = lib.sums(kernels, packed, acts, columns=columns, factor=factor, tokens=(3, 4))
        assert np.array_equal(one[3], many_sums[3])


@pytest.mark.parametrize("name", cases.QUANTS)
def test_rounding_stays_within_1e5_of_the_int8_reference_in_double(name: str) -> None:
    lib, rng = library(), rng_of(name)
    rows, cols = 64, 4096
    blocks, x = cases.random_blocks(name, rows, cols, rng), cases.random_activations(4, cols, rng)
    packed = lib.pack(cases.TYPES[name], blocks, rows, cols)
    kernels = lib.lib.sw_kernels_best().contents
    got = lib.matmul(kernels, packed, lib.activations(kernels, x))
    q = reference.quantize(x)
    x8 = (q.q * q.scale[:, :, None].astype(np.float64)).reshape(4, -1)
    w = np.stack([lib.dequant_row(packed, r) for r in range(rows)]).astype(np.float64)
    want = x8 @ w.T
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("cols", [1, 31, 32, 33, 63, 64, 96, 160, 4096, 4097])
def test_quantised_activations_have_the_bits_of_the_reference(cols: int, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(cols)
    assert kernels is not None
    x = rng.standard_normal((6, cols), dtype=np.float32) * np.exp(rng.normal(0, 8, (6, cols))).astype(np.float32)
    x[1] = np.round(x[1] * 2) / 2  # ties
    x[2] = 0
    x[3] *= np.float32(1e-36)
    check_quantize(lib, kernels, x)
    x[4, cols // 2], x[5, 0] = np.inf, np.nan
    check_quantize(lib, kernels, x)


def check_quantize(lib: Library, kernels: object, x: np.ndarray) -> None:
    got, want = lib.activations(kernels, x), reference.quantize(x)  # type: ignore[arg-type]
    tokens = len(x)
    assert np.array_equal(got.q, want.q.reshape(tokens, -1))
    assert np.array_equal(got.scale, want.scale, equal_nan=True)
    assert np.array_equal(got.sum, want.sum.reshape(tokens, -1))
    assert all(guards_intact(*g) for g in got.guards)
    assert (got.guards[1][1].view(np.int8).reshape(tokens, -1)[:, want.q.shape[1] * 32 :] == np.int8(-91)).all()
