"""Experts that are read from disk: the same bits as with all of them in memory, and one clear error otherwise."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from swarm.engine import decoder, expert_cache
from swarm.engine.decoder import Keep, Rows
from swarm.engine.expert_room import ExpertRoom, MemoryLook
from swarm.engine.weights import Memory
from swarm.errors import ContextFull, ExpertUnreadable
from swarm.kernels import _native
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, fading
from tests.helpers.mixtures import MIN_SLOTS, N_EXPERTS, TOP_K, cached_experts, from_disk, from_memory, write_mixture
from tests.helpers.nodes import wait_for

IDS = np.random.default_rng(7).integers(4, 256, 80).astype(np.int32)
MIXTURES = (
    *(("air", "Q4_K"), ("qwen3moe", "Q4_0"), ("glm-groups", "Q8_0"), ("air", "Q2_K"), ("qwen3moe", "F32")),
    *(("gpt-oss", "MXFP4"), ("flash", "Q8_0"), ("granitemoe", "Q4_0")),
)
SLOTS = (MIN_SLOTS, 31, 10_000)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n_slots", SLOTS)
@pytest.mark.parametrize(("name", "mix"), MIXTURES)
def test_the_bits_are_those_of_all_experts_in_memory(
    tmp_path: Path, name: str, mix: str, n_slots: int, threads: int
) -> None:
    path = write_mixture(tmp_path, name, mix)
    whole = from_memory(path, threads=threads).logits(IDS)
    d = from_disk(path, n_slots, threads=threads)
    assert np.array_equal(d.logits(IDS), whole), "a batch"
    for cuts in (range(1, 40), (64, 67, 70)):
        kv, ends = d.new_kv(), [*cuts, len(IDS)]
        parts = [d.forward_all(IDS[a:b], kv) for a, b in zip([0, *cuts], ends, strict=True)]
        assert np.array_equal(np.concatenate(parts), whole), cuts
    use = cached_experts(d).use()
    assert use.hits and use.misses
    assert use.read_bytes == use.misses * cached_experts(d).slot_bytes, "nothing is read twice, or in vain"
    if n_slots > 1000:
        assert use.misses <= cached_experts(d).n_all


def test_several_sessions_share_a_step(tmp_path: Path) -> None:
    path = write_mixture(tmp_path)
    logits = []
    for d in (from_memory(path), from_disk(path, MIN_SLOTS)):
        caches = [d.new_kv() for _ in range(3)]
        for i, kv in enumerate(caches):
            d.store(IDS[i : 20 + i], kv)
        logits.append(d.step_logits([Rows(IDS[40 + i : 41 + i], kv, Keep.LAST) for i, kv in enumerate(caches)]))
    assert np.array_equal(*logits)


def test_a_stage_of_a_pipeline_caches_its_own_layers(tmp_path: Path) -> None:
    path = write_mixture(tmp_path, "qwen3moe", "Q4_0")
    want = from_memory(path).forward(IDS, from_memory(path).new_kv())
    first, last = from_disk(path, MIN_SLOTS, layers=range(2)), from_disk(path, MIN_SLOTS, layers=range(2, 3))
    assert (cached_experts(first).layers, cached_experts(last).layers) == ([0, 1], [2])
    assert np.array_equal(last.finish(first.embed(IDS, first.new_kv()), last.new_kv()), want)


def test_a_prompt_reads_each_expert_once(tmp_path: Path) -> None:
    path = write_mixture(tmp_path, "qwen3moe", "Q4_0")
    d = from_disk(path, MIN_SLOTS)
    d.forward(np.concatenate([IDS] * 4), d.new_kv())
    assert cached_experts(d).use().misses <= N_EXPERTS * len(cached_experts(d).layers)


@pytest.mark.parametrize("n_slots", SLOTS[:2])
def test_hits_are_those_of_the_policy_on_the_same_routing(tmp_path: Path, n_slots: int) -> None:
    d = from_disk(write_mixture(tmp_path, "qwen3moe", "Q4_0"), n_slots)
    experts, kv = cached_experts(d), d.new_kv()
    trace, before = [], experts.residents.scores()[0]
    for token in range(len(IDS)):
        d.forward(IDS[token : token + 1], kv)
        after = experts.residents.scores()[0]  # changes only where an expert was used
        trace.append([np.flatnonzero(row) for row in after != before])
        before = after
    fades = fading(FAST_HALF_LIFE), fading(SLOW_HALF_LIFE)
    replayed = _native.Residents(len(experts.layers), N_EXPERTS, n_slots, *fades).replay(np.array(trace, np.int32))
    use = experts.use()
    assert (use.hits, use.misses) == ((replayed == _native.HIT).sum(), (replayed != _native.HIT).sum())


def test_a_damaged_expert_is_one_error_and_is_written_anew(tmp_path: Path) -> None:
    path = write_mixture(tmp_path)
    d = from_disk(path, MIN_SLOTS)
    want = from_memory(path).logits(IDS)
    file = cached_experts(d).files[1]
    data = np.memmap(file.path, np.uint8, "r+")
    data[file.first + 100 :: file.shape.expert_bytes] ^= 1
    data.flush()
    kv = d.new_kv()
    with pytest.raises(ExpertUnreadable, match=r"expert \d+ of layer 1 .* differ from their checksum; .* written anew"):
        d.forward(IDS, kv)
    assert kv.length == 0 and not file.path.exists()
    assert np.array_equal(from_disk(path, MIN_SLOTS).logits(IDS), want)


def test_a_file_that_is_cut_off_while_it_is_read_is_one_error(tmp_path: Path) -> None:
    path = write_mixture(tmp_path)
    d = from_disk(path, MIN_SLOTS)
    file = cached_experts(d).files[2]
    whole = file.path.stat().st_size
    os.truncate(file.path, file.first + 8 * file.shape.expert_bytes)
    kv = d.new_kv()
    with pytest.raises(ExpertUnreadable, match=r"layer 2 .* the file ends too early"):
        d.forward(IDS, kv)
    assert kv.length == 0
    assert whole > file.first


@pytest.mark.parametrize("batch", [1, 40])
def test_a_read_error_is_one_error_and_the_next_step_may_work(tmp_path: Path, batch: int) -> None:
    path = write_mixture(tmp_path)
    want = from_memory(path).forward(IDS[:batch], from_memory(path).new_kv())
    d = from_disk(path, MIN_SLOTS)
    file = cached_experts(d).files[1]
    aside, nothing = os.dup(file.descriptor), os.open(tmp_path, os.O_RDONLY)
    os.dup2(nothing, file.descriptor)  # reading a directory is an error
    kv = d.new_kv()
    with pytest.raises(ExpertUnreadable, match="Is a directory"):
        d.forward(IDS[:batch], kv)
    assert kv.length == 0
    os.dup2(aside, file.descriptor)
    assert np.array_equal(d.forward(IDS[:batch], kv), want)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 40])
def test_a_step_that_waits_for_a_disk_hears_ctrl_c(tmp_path: Path, batch: int, threads: int) -> None:
    path = write_mixture(tmp_path)
    d = from_disk(path, MIN_SLOTS, threads=threads)
    cached_experts(d).native.pause(True)
    kv = d.new_kv()
    pressed = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        d.forward(IDS[:batch], kv)
    pressed.join()
    assert kv.length == 0
    cached_experts(d).native.pause(False)
    whole = from_memory(path)
    assert np.array_equal(d.forward(IDS[:batch], kv), whole.forward(IDS[:batch], whole.new_kv()))


def test_another_thread_cancels_a_step_that_waits(tmp_path: Path) -> None:
    path = write_mixture(tmp_path)
    d = from_disk(path, MIN_SLOTS)
    native = cached_experts(d).native
    native.pause(True)
    kv = d.new_kv()
    cancelling = threading.Timer(0.1, native.cancel)
    cancelling.start()
    with pytest.raises(InterruptedError):
        d.forward(IDS, kv)
    cancelling.join()
    assert kv.length == 0
    native.pause(False)
    assert np.array_equal(d.forward(IDS, kv), from_memory(path).forward(IDS, from_memory(path).new_kv()))


def test_what_was_learnt_is_kept_and_read_ahead_by_the_next_run(tmp_path: Path) -> None:
    path, hot_list = write_mixture(tmp_path), tmp_path / "hot"
    d = from_disk(path, 16, hot_list=hot_list)
    want = d.logits(IDS)
    cached_experts(d).close()
    again = from_disk(path, 16, hot_list=hot_list)
    experts = cached_experts(again)
    experts.warm_up()
    for thread in threading.enumerate():
        if thread.name == "expert-warm-up":
            thread.join()
    assert experts.n_resident == 16
    scores = experts.residents.scores().sum(0)
    assert scores[experts.residents.resident()].min() >= scores[~experts.residents.resident()].max()
    assert np.array_equal(again.logits(IDS), want)


def test_what_is_read_ahead_is_not_given_away_before_it_has_come(tmp_path: Path) -> None:
    path = write_mixture(tmp_path, "qwen3moe", "Q4_0")
    d = from_disk(path, MIN_SLOTS)
    native = cached_experts(d).native
    native.pause(True)
    assert all(native.fetch(2, expert) for expert in range(MIN_SLOTS)) and native.n_filling == MIN_SLOTS
    assert not native.fetch(2, MIN_SLOTS), "no slot is free"
    going_on = threading.Timer(0.2, native.pause, [False])
    going_on.start()
    assert np.array_equal(d.logits(IDS), from_memory(path).logits(IDS))
    going_on.join()
    assert native.n_filling == 0, "each piece was counted for the expert that it belongs to"
    assert not native.fetch(1, 0), "only before the first step"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 4 * (1 + 2 * N_EXPERTS)])
def test_a_hot_list_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    path, hot_list = write_mixture(tmp_path), tmp_path / "hot"
    hot_list.write_bytes(content)
    d = from_disk(path, 16, hot_list=hot_list)
    cached_experts(d).warm_up()
    assert np.array_equal(d.logits(IDS), from_memory(path).logits(IDS))


LOW, PLENTY = MemoryLook(1, 1000), MemoryLook(1 << 40, 1 << 41)


def test_slots_go_when_others_need_memory_and_come_back_and_the_bits_stay(tmp_path: Path) -> None:
    path = write_mixture(tmp_path)
    want, d = from_memory(path).logits(IDS), from_disk(path, 40)
    experts, kv, rows = cached_experts(d), d.new_kv(), []
    experts = limited(experts, MIN_SLOTS)
    looks = {10: LOW, 11: LOW, 12: LOW, 30: LOW, 50: PLENTY}
    sizes = []
    for token in range(len(IDS)):
        if token in looks:
            experts.leave_room(100.0 * token, looks[token])
        rows.append(d.forward(IDS[token : token + 1], kv))
        sizes.append(experts.n_slots)
        assert experts.n_resident <= experts.n_slots
    assert np.array_equal(np.stack(rows), want)
    assert sorted(set(sizes), reverse=True) == [40, 35, 30, 25, 20]
    assert sizes[49:51] == [20, 25], "an eighth is taken back"
    assert experts.n_bytes == experts.n_slots * experts.slot_bytes


def test_the_experts_that_are_used_most_stay_and_are_not_read_again(tmp_path: Path) -> None:
    path = write_mixture(tmp_path, "qwen3moe", "Q4_0")
    d = from_disk(path, 40)
    experts, kv = limited(cached_experts(d), MIN_SLOTS), d.new_kv()
    for token in range(60):
        d.forward(IDS[token : token + 1], kv)
    rates = experts.residents.scores().sum(0) * experts.residents.resident()
    experts.leave_room(0.0, LOW)
    kept = experts.residents.resident()
    assert kept.sum() == experts.n_slots == 35
    # Which are used most is as of now, and scores as of their last use: those at the border may change places.
    assert np.median(rates[kept]) > np.median(rates[~kept & (rates > 0)])
    before = experts.use()
    again = from_memory(path)
    assert np.array_equal(d.forward(IDS[60:61], kv), again.forward(IDS[:61], again.new_kv()))
    assert (experts.use() - before).hits > 0, "moved to another slot, and found there"


def test_memory_that_is_given_back_is_given_back(tmp_path: Path) -> None:
    arena = Memory(64 << 20)
    arena.take(64 << 20)[:] = 1
    before = rss_bytes()
    arena.give_back(8 << 20, 64 << 20)
    assert before - rss_bytes() > 50 << 20


def test_while_a_step_runs_nothing_moves(tmp_path: Path) -> None:
    d = from_disk(write_mixture(tmp_path), 40)
    experts = limited(cached_experts(d), MIN_SLOTS)
    with experts.turn:
        experts.leave_room(0.0, LOW)
        assert experts.n_slots == 40
    d.forward(IDS[:1], d.new_kv())
    assert experts.n_slots == 35


def test_a_watcher_leaves_room_by_itself_until_the_cache_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expert_cache, "LOOK_S", 0.001)
    monkeypatch.setattr(expert_cache, "look_at_memory", lambda: LOW)
    file = cached_experts(from_disk(write_mixture(tmp_path), 40)).files
    experts = expert_cache.CachedExperts(file, 40, min_slots=MIN_SLOTS)
    wait_for(lambda: experts.n_slots == MIN_SLOTS, "all that may go to go")
    experts.close()
    wait_for(lambda: "expert-room" not in {thread.name for thread in threading.enumerate()}, "the watcher to end")


def test_how_experts_are_used_is_kept_for_plans_and_counted_on(tmp_path: Path) -> None:
    path, hot_list = write_mixture(tmp_path), tmp_path / "folder" / "hot"
    hot_list.parent.mkdir()
    d = from_disk(path, 16, hot_list=hot_list)
    kv = d.new_kv()
    for token in range(20):
        d.forward(IDS[token : token + 1], kv)
    experts = cached_experts(d)
    assert experts.residents.ranks().sum() == 20 * TOP_K * len(experts.layers)
    assert expert_cache.learnt_ranks(tmp_path) == []
    experts.close()
    assert expert_cache.learnt_ranks(hot_list.parent) == experts.residents.ranks().tolist()
    again = cached_experts(from_disk(path, 16, hot_list=hot_list))
    assert again.residents.ranks().sum() == 20 * TOP_K * len(experts.layers)


@pytest.mark.parametrize("content", [b"", b"nonsense", np.full(N_EXPERTS, np.nan).tobytes(), np.ones(3).tobytes()])
def test_notes_of_uses_that_make_no_sense_are_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    path, hot_list = write_mixture(tmp_path), tmp_path / "hot"
    (tmp_path / expert_cache.HITS_FILE).write_bytes(content)
    experts = cached_experts(from_disk(path, 16, hot_list=hot_list))
    assert not experts.residents.ranks().any()


def limited(experts: expert_cache.CachedExperts, min_slots: int) -> expert_cache.CachedExperts:
    """May be made smaller by hand: without a watcher, and with a clock that is turned."""
    experts._room = ExpertRoom(experts.n_slots, min_slots, experts.slot_bytes)
    return experts


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_threads_end_with_the_cache(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/task"))
    d = from_disk(write_mixture(tmp_path), MIN_SLOTS, threads=1)
    started = set(os.listdir("/proc/self/task")) - before
    started -= {str(thread.native_id) for thread in threading.enumerate()}  # readers are none of Python's
    assert started
    cached_experts(d).close()
    cached_experts(d).close()
    # A thread that was joined is still listed for a moment.
    wait_for(lambda: not started & set(os.listdir("/proc/self/task")), "the readers to end")


@pytest.mark.parametrize("n_slots", [MIN_SLOTS, N_EXPERTS + MIN_SLOTS])
@pytest.mark.parametrize(("name", "mix"), [("air", "Q4_K"), ("qwen3moe", "Q4_0"), ("gpt-oss", "MXFP4")])
def test_a_long_prompt_goes_layer_by_layer_with_the_same_bits_and_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mix: str, n_slots: int
) -> None:
    monkeypatch.setattr(decoder, "MAX_STEP_TOKENS", 16)
    path = write_mixture(tmp_path, name, mix)
    by_batch, by_layer = from_disk(path, n_slots), from_disk(path, n_slots)
    kvs = [each.new_kv() for each in (by_batch, by_layer)]
    for each, kv in zip((by_batch, by_layer), kvs, strict=True):
        each.forward(IDS[:5], kv)
    want = by_batch.forward(IDS[5:], kvs[0])
    shares, got = pieces_of(by_layer.prompt(IDS[5:], kvs[1]))
    assert np.array_equal(got, want) and kvs[1].length == len(IDS)
    assert shares == sorted(shares) and min(shares) > 0 and max(shares) < 1
    both = [cached_experts(each) for each in (by_batch, by_layer)]
    assert np.array_equal(*(experts.residents.scores() for experts in both)), "as if it had come in any other order"
    assert np.array_equal(*(each.forward(IDS[:20], kv) for each, kv in zip((by_batch, by_layer), kvs, strict=True)))


def test_a_long_prompt_reads_each_expert_once_where_those_of_a_layer_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_STEP_TOKENS", 16)
    path = write_mixture(tmp_path, "qwen3moe", "Q4_0")
    ids = np.concatenate([IDS] * 3)
    misses = {}
    for n_slots in (N_EXPERTS, N_EXPERTS // 2):
        d = from_disk(path, n_slots)
        pieces_of(d.prompt(ids, d.new_kv()))
        misses[n_slots] = cached_experts(d).use().misses
        n_all = N_EXPERTS * len(cached_experts(d).layers)
    assert misses[N_EXPERTS] <= n_all
    assert n_all < misses[N_EXPERTS // 2] < len(ids) // 16 * n_all * 0.8, "what has room stays for the next rows"


def test_a_long_prompt_that_is_given_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_STEP_TOKENS", 16)
    path = write_mixture(tmp_path)
    d, whole = from_disk(path, MIN_SLOTS), from_memory(path)
    kv = d.new_kv()
    steps = d.prompt(IDS, kv)
    next(steps), next(steps)
    beside = d.new_kv()
    assert np.array_equal(d.forward(IDS[:7], beside), whole.forward(IDS[:7], whole.new_kv())), "others go on"
    steps.close()
    assert kv.length == 0
    assert np.array_equal(d.forward(IDS, kv), whole.forward(IDS, whole.new_kv()))
    with pytest.raises(ContextFull):
        next(d.prompt(np.zeros(kv.capacity, np.int32), kv))


def pieces_of(steps: Generator[float, None, expert_cache.F64]) -> tuple[list[float], np.ndarray]:
    """What it said on its way, and its end."""
    shares = []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as done:
            return shares, done.value
