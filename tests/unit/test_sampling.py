"""Sampling: what each step keeps, how often each token comes, and that the same arguments give the same token."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.sampling import GREEDY, MAX_SEED, SamplingParams, exponential, sample, told
from swarm.errors import ConfigError, ModelError

F32 = np.ndarray[tuple[int], np.dtype[np.float32]]
PLAIN = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)


def plain(**changes: float | int) -> SamplingParams:
    """Sampling from the bare probabilities, with changes."""
    return SamplingParams(**({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1} | changes))  # type: ignore[arg-type]


def logits_of(*values: float) -> F32:
    return np.array(values, np.float32)


def counts(logits: F32, params: SamplingParams, n: int = 4000) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    drawn = [sample(logits, params, position, ()) for position in range(n)]
    return np.bincount(drawn, minlength=len(logits))


def seen(logits: F32, params: SamplingParams, n: int = 400) -> set[int]:
    return set(np.flatnonzero(counts(logits, params, n)).tolist())


def random_logits(seed: int, n: int = 151_936, scale: float = 3.0) -> F32:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def test_frequencies_follow_the_probabilities() -> None:
    probabilities = np.array([0.5, 0.25, 0.125, 0.1, 0.025])
    n = 20_000
    got = counts(np.log(probabilities).astype(np.float32), PLAIN, n)
    # Chi-square with 4 degrees of freedom: 23.5 is passed once in 10,000 seeds; ours is fixed.
    assert np.sum((got - n * probabilities) ** 2 / (n * probabilities)) < 23.5


def test_temperature_sharpens_and_flattens() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1])).astype(np.float32)
    for temperature in (0.5, 2.0):
        p = np.array([0.6, 0.3, 0.1]) ** (1 / temperature)
        p /= p.sum()
        got = counts(logits, plain(temperature=temperature), 20_000) / 20_000
        assert np.abs(got - p).max() < 0.015


def test_temperature_zero_takes_the_likeliest_and_the_lowest_id_among_equals() -> None:
    assert sample(logits_of(1, 5, 5, 2), GREEDY, 0, ()) == 1
    assert {sample(random_logits(1), GREEDY, position, ()) for position in range(5)} == {int(random_logits(1).argmax())}


def test_tiny_temperatures_are_like_zero() -> None:
    assert seen(logits_of(1, 5, 4.9, 2), plain(temperature=1e-6)) == {1}
    assert seen(logits_of(1, 5, -3e38, 2), plain(temperature=1e-300)) == {1}


def test_top_k_keeps_k_and_the_lower_ids_among_equals() -> None:
    assert seen(logits_of(0, 1, 2, 1, 1), plain(top_k=1)) == {2}
    assert seen(logits_of(0, 1, 2, 1, 1), plain(top_k=2)) == {1, 2}
    assert seen(logits_of(0, 1, 2, 1, 1), plain(top_k=3)) == {1, 2, 3}
    assert seen(logits_of(0, 1, 2, 1, 1), plain(top_k=99)) == {0, 1, 2, 3, 4}


def test_top_k_keeps_the_same_tokens_as_sorting_a_large_vocabulary() -> None:
    from swarm.engine import sampling

    logits = np.round(random_logits(2, 20_000), 1)  # many equals
    order = np.lexsort((np.arange(len(logits)), -logits))
    for k in (2, 7, 40, 500, 19_999):
        assert sampling._kept(logits, logits.max(), plain(top_k=k)).tolist() == order[:k].tolist()


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.25])).astype(np.float32)
    assert seen(logits, plain(top_p=0.0)) == {1}
    assert seen(logits, plain(top_p=0.49)) == {1}
    assert seen(logits, plain(top_p=0.7)) == {1, 3}
    assert seen(logits, plain(top_p=0.8)) == {1, 2, 3}
    assert seen(logits, plain(top_p=0.95)) == {0, 1, 2, 3}


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_top_p_of_a_large_vocabulary_agrees_with_sorting_all_of_it(scale: float, top_p: float) -> None:
    from swarm.engine import sampling

    logits = random_logits(3, 30_000, scale)
    best = logits.max()
    ids = sampling._kept(logits, best, plain(top_p=top_p))
    order = np.lexsort((np.arange(len(logits)), -logits))
    mass = np.cumsum(np.exp(logits[order].astype(np.float64) - best))
    size = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    assert ids.tolist() == order[:size].tolist()


def test_min_p_keeps_what_is_likely_enough_beside_the_best() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05])).astype(np.float32)
    assert seen(logits, plain(min_p=0.59)) == {0, 1}
    assert seen(logits, plain(min_p=0.61)) == {0}
    assert seen(logits, plain(min_p=1.0)) == {0}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = logits_of(2.0, 1.5, -1.0, -1.4)
    assert sample(logits, SamplingParams(temperature=0, repetition_penalty=2.0), 9, [0]) == 1
    only_negative = logits_of(-1.0, -1.4)
    assert sample(only_negative, SamplingParams(temperature=0, repetition_penalty=2.0), 9, [0]) == 1


def test_frequency_counts_occurrences_and_presence_does_not() -> None:
    logits = logits_of(2.0, 1.9)
    once, often = [0], [0] * 9 + [1]
    assert sample(logits, SamplingParams(temperature=0, presence_penalty=0.5), 9, often) == 0
    assert sample(logits, SamplingParams(temperature=0, presence_penalty=0.5), 9, once) == 1
    assert sample(logits, SamplingParams(temperature=0, frequency_penalty=0.5), 9, often) == 1


def test_penalties_look_back_as_far_as_they_are_told() -> None:
    logits = logits_of(2.0, 1.9, 1.0)
    recent = [0] + [2] * 64
    assert sample(logits, SamplingParams(temperature=0, presence_penalty=1), 65, recent) == 0
    assert sample(logits, SamplingParams(temperature=0, presence_penalty=1, repeat_last_n=65), 65, recent) == 1
    assert sample(logits, SamplingParams(temperature=0, presence_penalty=1, repeat_last_n=-1), 65, recent) == 1
    assert sample(logits, SamplingParams(temperature=0, presence_penalty=1, repeat_last_n=0), 65, [0]) == 0


def test_the_arguments_stay_as_they_are() -> None:
    logits = random_logits(4, 1000)
    before = logits.copy()
    sample(logits, SamplingParams(seed=1, repetition_penalty=1.3), 3, [1, 2, 3, 5000, -7])
    assert np.array_equal(logits, before)


any_params = st.builds(
    SamplingParams, temperature=st.floats(0.05, 5), top_k=st.integers(0, 200), top_p=st.floats(0, 1),
    min_p=st.floats(0, 1), seed=st.integers(0, MAX_SEED),
)  # fmt: skip


@given(params=any_params, position=st.integers(0, 10**6), data=st.integers(0, 99))
def test_the_same_arguments_give_the_same_likely_token(params: SamplingParams, position: int, data: int) -> None:
    logits = random_logits(data, 3000)
    token = sample(logits, params, position, ())
    assert token == sample(logits.copy(), params, position, [])
    assert 0 <= token < 3000
    if params.top_k:
        assert np.sum(logits > logits[token]) < params.top_k
    assert np.exp(float(logits[token]) - float(logits.max())) >= params.min_p * (1 - 1e-6)


def test_the_seed_and_the_position_change_what_comes() -> None:
    logits = np.zeros(1000, np.float32)
    by_position = [sample(logits, PLAIN, position, ()) for position in range(100)]
    by_seed = [sample(logits, plain(seed=seed), 0, ()) for seed in range(100)]
    assert len(set(by_position)) > 80
    assert len(set(by_seed)) > 80


def test_draws_are_the_same_on_every_machine() -> None:
    """Ids written down on x86-64: an Arm machine, or another numpy, must give them too."""
    logits = (np.arange(2000) % 97 / 8).astype(np.float32)
    got = [
        sample(logits, params, position, [5, 6, 7])
        for params in (
            PLAIN,
            SamplingParams(seed=7),
            plain(top_p=0.9, temperature=1.7),
            plain(min_p=0.1, seed=MAX_SEED),
        )
        for position in (0, 1, 1000)
    ]
    assert got == KNOWN_DRAWS


KNOWN_DRAWS = [658, 1808, 192, 1259, 290, 872, 966, 81, 1842, 1838, 1743, 955]


def test_the_exponential_is_exact_to_ten_digits_and_does_not_depend_on_its_place() -> None:
    x = -np.random.default_rng(5).random(50_000) * 46
    y = exponential(x)
    assert np.abs(y / np.exp(x) - 1).max() < 1e-10
    assert exponential(np.zeros(1))[0] == 1.0
    for n in (1, 2, 3, 7, 8, 9, 31):
        assert np.array_equal(exponential(x[:n]), y[:n])
        assert np.array_equal(exponential(x[n:]), y[n:])


def test_the_exponential_has_known_bits() -> None:
    x = np.array([0.0, -1e-9, -0.5, -1.0, -2.5, -10.0, -30.0, -46.0, -1000.0])
    assert [float(y).hex() for y in exponential(x)] == KNOWN_EXPONENTIALS


KNOWN_EXPONENTIALS = [
    "0x1.0000000000000p+0",
    "0x1.fffffff768fa1p-1",
    "0x1.368b2fc6f8caep-1",
    "0x1.78b56362c3957p-2",
    "0x1.50385c094e968p-4",
    "0x1.7cd79b563d515p-15",
    "0x1.a56e0c2ac7f7ap-44",
    "0x1.8dd5e1bb027c9p-67",
    "0x1.24b6031b3bc80p-68",
]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("params", [GREEDY, PLAIN, SamplingParams(seed=1)])
def test_a_logit_that_is_no_number_is_an_error_that_says_where(bad: float, params: SamplingParams) -> None:
    logits = random_logits(6, 500)
    logits[77] = bad
    with pytest.raises(ModelError, match="at position 12"):
        sample(logits, params, 12, ())


def test_impossible_tokens_never_come() -> None:
    logits = logits_of(-np.inf, 0, -np.inf, 0)
    assert seen(logits, PLAIN) == {1, 3}
    with pytest.raises(ModelError, match="-inf"):
        sample(logits_of(-np.inf, -np.inf), GREEDY, 0, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", "1"), ("temperature", True),
        ("top_k", -1), ("top_k", 1.5), ("top_p", 1.1), ("top_p", -0.1), ("min_p", 2), ("repetition_penalty", 0),
        ("repeat_last_n", -2), ("frequency_penalty", float("inf")), ("presence_penalty", 1000),
        ("seed", -1), ("seed", 2**63), ("seed", 1.5), ("seed", True),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{field} is "):
        SamplingParams(**{field: value})  # type: ignore[arg-type]


def test_sampling_without_a_seed_is_refused_and_seeded_gives_one() -> None:
    with pytest.raises(ConfigError, match="seed"):
        sample(logits_of(0, 0), SamplingParams(top_k=0), 0, ())
    assert SamplingParams().seeded().seed is not None
    assert SamplingParams().seeded() != SamplingParams().seeded()
    assert PLAIN.seeded() is PLAIN


def test_a_large_vocabulary_takes_little_time() -> None:
    logits = random_logits(7)
    params = SamplingParams(seed=1, repetition_penalty=1.1)
    times = []
    for position in range(20):
        start = time.perf_counter()
        sample(logits, params, position, range(4000))
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3, f"{min(times) * 1e3:.2f} ms"


@pytest.mark.slow
def test_fewer_instructions_of_the_processor_give_the_same_draws() -> None:
    """numpy picks its loops by processor; with the plain ones the ids are the same."""
    program = (
        "import json, numpy as np\n"
        "from swarm.engine.sampling import SamplingParams, sample\n"
        "l = (np.random.default_rng(8).standard_normal(151936) * 3).astype(np.float32)\n"
        "p = [SamplingParams(1.3, 0, top_p, 0.0, seed=2) for top_p in (0.97, 1.0)] + [SamplingParams(seed=1)]\n"
        "print(json.dumps([sample(l, q, i, [1, 2]) for q in p for i in range(8)]))\n"
    )
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # numpy tells it nowhere else

    outputs = []
    for off in ("", " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))):
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], env={"NPY_DISABLE_CPU_FEATURES": off, "PATH": ""},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        outputs.append(json.loads(result.stdout))
    assert outputs[0] == outputs[1]


def test_biases_come_before_everything_else() -> None:
    logits = np.array([1.0, 3.0, 2.0, 0.0], np.float32)
    assert sample(logits, SamplingParams(temperature=0, logit_bias=((3, 100.0),)), 0, []) == 3
    assert sample(logits, SamplingParams(temperature=0, logit_bias=((1, -100.0), (9, 100.0))), 0, []) == 2
    assert logits[3] == 0  # they are the caller's


def test_only_allowed_tokens_come() -> None:
    logits = np.arange(100, dtype=np.float32)
    allowed = np.zeros(100, np.bool_)
    allowed[[3, 5]] = True
    assert sample(logits, SamplingParams(temperature=0), 0, [], allowed) == 5
    for params in (SamplingParams(temperature=50, top_p=1, min_p=0), SamplingParams(temperature=50, top_k=0, min_p=0)):
        found = {sample(logits, replace(params, seed=seed), 0, [], allowed) for seed in range(40)}
        assert found == {3, 5}


def test_log_probabilities_are_those_of_the_model_and_add_up() -> None:
    logits = np.random.default_rng(1).normal(0, 3, 1000).astype(np.float32)
    expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    chosen, *likeliest = told(logits, 7, 6)
    assert chosen[0] == 7 and abs(chosen[1] - expected[7]) < 1e-9
    order = np.argsort(-logits, kind="stable")[:5]
    assert [token for token, _ in likeliest] == list(order)
    assert all(abs(logprob - expected[token]) < 1e-9 for token, logprob in likeliest)
    assert told(logits, 7, 1) == (chosen,)
    everything = told(logits, 7, 1001)
    assert abs(sum(np.exp(logprob) for _, logprob in everything[1:]) - 1) < 1e-9


def test_biases_and_counts_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="logit_bias of 3 is 101"):
        SamplingParams(logit_bias=((3, 101.0),))
    with pytest.raises(ConfigError, match="n_told is 22"):
        SamplingParams(n_told=22)
