"""Rows of several sessions in one step: each has the bits that it has alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from swarm.engine.decoder import Decoder, Keep, Rows
from swarm.errors import ContextFull, ExpertAbsent
from swarm.kernels import _native
from tests.helpers.tiny import TINY
from tests.unit.test_engine_decoder import decoder, experts_of, write

LENGTHS = (1, 70, 17, 64, 33)  # of the sessions' histories: inside, at and past the 64 positions of a block
STEPS = 3
PIECE = 23  # of a prompt that comes beside them


def ids_of(session: int, n: int) -> np.ndarray:
    return np.random.default_rng(session).integers(4, 256, n).astype(np.int32)


class Sessions:
    """Sessions with histories of different lengths, of which each knows what comes next."""

    def __init__(self, d: Decoder, lengths: Sequence[int], *, extra: int = STEPS + PIECE) -> None:
        self.d = d
        self.ids = [ids_of(i, length + extra) for i, length in enumerate(lengths)]
        self.caches = [d.new_kv() for _ in lengths]
        for ids, cache, length in zip(self.ids, self.caches, lengths, strict=True):
            d.forward(ids[:length], cache)

    def rows(self, i: int, n: int = 1, keep: Keep = Keep.LAST) -> Rows:
        at = self.caches[i].length
        return Rows(self.ids[i][at : at + n], self.caches[i], keep)


def alone(d: Decoder, sessions: Sessions) -> list[np.ndarray]:
    """After every token of every session, the logits of it alone."""
    return [d.logits(ids) for ids in sessions.ids]


@pytest.mark.parametrize(
    ("name", "mix", "kv"),
    [("llama-tied", "F32", "f16"), *((name, "Q8_0", kv) for name in TINY for kv in ("f16", "q8_0"))],
)
def test_decode_steps_of_several_sessions_have_the_bits_of_each_alone(
    tmp_path: Path, name: str, mix: str, kv: str
) -> None:
    path = write(tmp_path, name, mix)  # heads of 16 in the first one: less than a block
    for threads in (1, 2):
        d = decoder(path, threads=threads, kv=kv)
        for n in (1, 2, 3, 5):
            sessions = Sessions(d, LENGTHS[:n])
            want = alone(d, sessions)
            for _ in range(STEPS):
                places = [cache.length for cache in sessions.caches]
                got = d.step_logits([sessions.rows(i) for i in range(n)])
                assert all(np.array_equal(got[i], want[i][places[i]]) for i in range(n)), (threads, n, places)
                assert [cache.length for cache in sessions.caches] == [place + 1 for place in places]


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
@pytest.mark.parametrize("name", TINY)
def test_a_prompt_beside_decode_steps_changes_no_bits(tmp_path: Path, name: str, kv: str) -> None:
    path = write(tmp_path, name, "Q8_0")
    for threads in (1, 2):
        d = decoder(path, threads=threads, kv=kv)
        for n, prompt, keep in ((2, 0, Keep.LAST), (3, 1, Keep.NONE), (5, 4, Keep.ALL), (1, 0, Keep.ALL)):
            sessions = Sessions(d, LENGTHS[:n])
            want = alone(d, sessions)
            places = [cache.length for cache in sessions.caches]
            got = d.step_logits([sessions.rows(i, *((PIECE, keep) if i == prompt else ())) for i in range(n)])
            rows = [range(place, place + 1) for place in places]
            first, end = places[prompt], places[prompt] + PIECE
            rows[prompt] = {Keep.ALL: range(first, end), Keep.LAST: range(end - 1, end), Keep.NONE: range(0)}[keep]
            expected = np.concatenate([logits[list(places)] for logits, places in zip(want, rows, strict=True)])
            assert np.array_equal(got, expected), (threads, n)
            after = d.step_logits([sessions.rows(i) for i in range(n)])
            places = [cache.length - 1 for cache in sessions.caches]
            assert all(np.array_equal(after[i], want[i][places[i]]) for i in range(n)), "what was stored differs"


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
@pytest.mark.parametrize("name", TINY)
def test_a_token_with_guesses_after_it_has_the_bits_of_one_after_the_other(tmp_path: Path, name: str, kv: str) -> None:
    path = write(tmp_path, name, "Q8_0")
    for threads in (1, 2):
        d = decoder(path, threads=threads, kv=kv)
        for n, length in ((2, 63), (4, 17), (8, 60), (16, 1)):
            sessions = Sessions(d, (length,))
            want = alone(d, sessions)[0]
            wrong = np.concatenate([sessions.ids[0][length : length + 1], ids_of(9, n - 1)])
            got = d.step_logits([Rows(wrong, sessions.caches[0], Keep.ALL)])
            assert np.array_equal(got[0], want[length])
            sessions.caches[0].truncate(length + 1)  # none of the guesses came
            got = d.step_logits([sessions.rows(0, n, Keep.ALL)])
            assert np.array_equal(got, want[length + 1 : length + 1 + n]), (threads, n)


@pytest.mark.parametrize(("name", "mix"), [("llama", "Q4_K"), ("air", "Q4_K")])
def test_stages_pass_on_the_rows_of_several_sessions(tmp_path: Path, name: str, mix: str) -> None:
    path = write(tmp_path, name, mix)
    whole = decoder(path)
    want = [whole.logits(ids_of(i, 20)) for i in range(3)]
    first, middle, last = (decoder(path, layers=range(i, i + 1)) for i in range(3))
    caches = [[d.new_kv() for _ in range(3)] for d in (first, middle, last)]
    for lengths in ((9, 1, 4), (1, 1, 1), (1, 5, 1)):
        starts = [cache.length for cache in caches[0]]
        ids = [ids_of(i, 20)[at : at + n] for i, (at, n) in enumerate(zip(starts, lengths, strict=True))]
        hidden = first.step_hidden([Rows(part, cache) for part, cache in zip(ids, caches[0], strict=True)])
        parts = np.split(hidden, np.cumsum(lengths)[:-1])
        hidden = middle.step_hidden([Rows(part, cache) for part, cache in zip(parts, caches[1], strict=True)])
        parts = np.split(hidden, np.cumsum(lengths)[:-1])
        logits = last.step_logits([Rows(part, cache) for part, cache in zip(parts, caches[2], strict=True)])
        for i, (at, n) in enumerate(zip(starts, lengths, strict=True)):
            assert np.array_equal(logits[i], want[i][at + n - 1])


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
@pytest.mark.parametrize("threads", [1, 4])
def test_long_and_short_contexts_share_a_step(tmp_path: Path, kv: str, threads: int) -> None:
    d = decoder(write(tmp_path, "glm4", "Q8_0"), kv=kv, context=4096, threads=threads)
    sessions = Sessions(d, (2100, 5, 1023, 1500), extra=4)
    want = alone(d, sessions)
    for _ in range(3):
        got = d.step_logits([sessions.rows(i) for i in range(4)])
        places = [cache.length - 1 for cache in sessions.caches]
        assert all(np.array_equal(got[i], want[i][places[i]]) for i in range(4)), places


def test_more_long_contexts_than_can_be_cut_by_segment_share_a_step(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"), kv="f16", context=1088)
    sessions = Sessions(d, (1030,) * 36, extra=1)  # two segments each; 33 of them are cut
    want = alone(d, sessions)
    got = d.step_logits([sessions.rows(i) for i in range(36)])
    assert all(np.array_equal(got[i], want[i][1030]) for i in range(36))


def test_no_session_is_stored_when_one_of_them_has_no_room(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"), context=64)
    sessions = Sessions(d, (5, 63), extra=0)
    caches = sessions.caches
    with pytest.raises(ContextFull, match=r"65 tokens .* context of 64"):
        d.step_logits([Rows(ids_of(0, 1), caches[0]), Rows(ids_of(1, 2), caches[1])])
    assert [cache.length for cache in caches] == [5, 63]


def test_an_absent_expert_fails_the_step_of_all_its_sessions(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "qwen3moe", "Q4_0"))
    sessions = Sessions(d, (9, 4))
    want = alone(d, sessions)
    for ffn, i, _ in experts_of(d):
        ffn.set_expert(i, None, None, None)
    for n in (1, 3):
        with pytest.raises(ExpertAbsent):
            d.step_logits([sessions.rows(0, n), sessions.rows(1)])
    assert [cache.length for cache in sessions.caches] == [9, 4]
    for ffn, i, expert in experts_of(d):
        ffn.set_expert(i, *expert)
    got = d.step_logits([sessions.rows(0), sessions.rows(1)])
    assert np.array_equal(got, [want[0][9], want[1][4]])


def test_one_cache_twice_or_too_many_tokens_are_refused(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"), context=64)
    kv, other = d.new_kv(), d.new_kv()
    with pytest.raises(ValueError, match="two runs of one KV cache"):
        d.step_logits([Rows(ids_of(0, 1), kv), Rows(ids_of(1, 1), kv)])
    with pytest.raises(ValueError, match="at most 64"):
        d.step_logits([Rows(ids_of(0, 40), kv), Rows(ids_of(1, 40), other)])
    with pytest.raises(ValueError, match="without rows"):
        d.engine.begin([], *d.rope.at(0, 1))
    assert (kv.length, other.length) == (0, 0)


def test_calls_in_another_order_are_refused(tmp_path: Path) -> None:
    d = decoder(write(tmp_path, "llama", "F32"))
    e, kv, ids = d.engine, d.new_kv(), ids_of(0, 2)
    with pytest.raises(RuntimeError, match="only after share"):
        e.sums()
    e.share()
    attention, ffn = d.layers[0]
    table, norm = d._embedding, d._output_norm

    def begin() -> _native.Engine:
        e.begin([(kv, 2)], *d.rope.at(0, 2))
        return e

    def refused(*calls: object) -> None:
        for call in calls:
            with pytest.raises(RuntimeError, match="out of order: a step is begin"):
                call()  # type: ignore[operator]

    inputs = (lambda: e.embed(table, ids), lambda: e.set_hidden(np.zeros((2, d.spec.hidden), np.float32)))
    outputs = (e.hidden, e.end, lambda: e.lm_head(norm, table))
    halves = (
        lambda: e.attention(attention),
        lambda: e.ffn(ffn),
        lambda: e.keys(attention, [1]),
        e.sums,
        e.units,
        lambda: e.set_sums(np.zeros((2, d.spec.hidden), np.int64)),
    )
    refused(*inputs, *halves, *outputs, lambda: e.step(d._stack, ids=ids, table=table))
    begin()
    refused(*halves, *outputs, lambda: e.step(d._stack))
    e.embed(table, ids)
    refused(*inputs, halves[1], *halves[2:], *outputs)
    e.attention(attention)
    assert e.sums().shape == (2, d.spec.hidden)
    refused(*inputs, halves[0], halves[2], *outputs, lambda: e.step(d._stack))
    e.ffn(ffn)
    for attention, ffn in d.layers[1:]:
        e.attention(attention)
        e.ffn(ffn)
    refused(halves[0], *inputs)
    assert kv.length == 0, "only the end of a step stores it"
    want = e.lm_head(norm, d._output)
    assert kv.length == 2
    refused(*halves, *outputs)
    kv.truncate(0)
    assert np.array_equal(d.forward_all(ids, kv), want)
    begin()  # and a step under way gives way to the next one
    kv.truncate(0)
    assert np.array_equal(d.forward_all(ids, kv), want)
