"""The block beside a model's last layers: what it says depends on what is certain alone, however that was told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.engine.decoder import Decoder, Rows
from swarm.engine.mtp import MtpBlock, normed
from swarm.engine.mtp_follower import MAX_WAITING, MtpFollower
from swarm.engine.weights import load_weights
from swarm.models.registry import mtp_from_gguf, spec_from_gguf
from swarm.models.spec import OUTSIDE_LAYERS, Role
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.counting import N_COUNTED, after, make_counting
from tests.helpers.tiny import make_tiny

IDS = [int(i) for i in np.random.default_rng(3).integers(4, 250, 100)]


class Followed:
    """A model with its block, and the states that it has after its last norm."""

    def __init__(self, path: Path) -> None:
        with open_gguf(path) as gguf:
            spec = spec_from_gguf(gguf.metadata, gguf.tensors)
            weights = load_weights(gguf, spec, all_parts(spec.n_layers))
            self.decoder = Decoder(spec, weights, context=256, threads=1)
            mtp = mtp_from_gguf(gguf.metadata, gguf.tensors)
            assert mtp is not None
            self.block = MtpBlock.of_file(mtp, gguf, self.decoder)

    def states(self, ids: list[int]) -> np.ndarray:
        hidden = self.decoder.step_hidden([Rows(np.array(ids, np.int32), self.decoder.new_kv())])
        norm = self.decoder.weights.vectors[OUTSIDE_LAYERS, Role.OUTPUT_NORM]
        return normed(hidden, norm, self.decoder.spec.norm_eps)

    def follower(self) -> MtpFollower:
        return MtpFollower(self.block, 256, "f16")

    def said(self, ids: list[int]) -> np.ndarray:
        """After all these at once, of which the last one is not computed yet."""
        follower = self.follower()
        follower.saw(0, ids[:-1], self.states(ids[:-1]))
        return logits(follower, ids[-1])


def logits(follower: MtpFollower, token: int) -> np.ndarray:
    found = follower.logits(token)
    assert found is not None
    return found


@pytest.fixture
def air(tmp_path: Path) -> Followed:
    return Followed(make_tiny(tmp_path / "air.gguf", "air"))


def test_it_knows_what_comes_where_that_can_be_known(tmp_path: Path) -> None:
    counting = Followed(make_counting(tmp_path / "counting.gguf"))
    for token in (7, 100, N_COUNTED - 1):
        assert int(counting.said([3, 9, token]).argmax()) == after(token)


def test_token_by_token_asked_or_not_it_says_the_same(air: Followed) -> None:
    states, follower = air.states(IDS), air.follower()
    for i in range(len(IDS) - 1):
        follower.saw(i, IDS[i : i + 1], states[i : i + 1])
        if i > 20 and i % 3 == 0:  # and now and then twice
            assert np.array_equal(logits(follower, IDS[i + 1]), air.said(IDS[: i + 2]))
            assert np.array_equal(logits(follower, IDS[i + 1]), air.said(IDS[: i + 2]))
    assert follower.cache.length > len(IDS) - MAX_WAITING, "entries do not wait for ever"


def test_another_token_than_the_one_that_it_was_asked_of_leaves_no_trace(air: Followed) -> None:
    states, follower = air.states(IDS), air.follower()
    follower.saw(0, IDS[:30], states[:30])
    logits(follower, 9)
    follower.saw(30, IDS[30:40], states[30:40])
    assert np.array_equal(logits(follower, IDS[40]), air.said(IDS[:41]))


def test_cut_back_it_goes_on_with_what_is_before(air: Followed) -> None:
    """But for one entry, whose state is not known any more."""
    states, follower = air.states(IDS), air.follower()
    follower.saw(0, IDS[:30], states[:30])
    logits(follower, IDS[30])
    follower.cut(20)
    assert follower.end == 20 and follower.logits(5) is None, "there is no state to go on from"
    follower.saw(20, IDS[20:40], states[20:40])
    said = logits(follower, IDS[40])
    assert follower.cache.length == 40 and np.isfinite(said).all()
    follower.cut(0)
    follower.saw(0, IDS[:40], states[:40])
    assert np.array_equal(logits(follower, IDS[40]), air.said(IDS[:41]))


def test_cut_back_entries_that_wait_go_as_those_that_were_made(air: Followed) -> None:
    states, said = air.states(IDS), []
    for asked in (False, True):  # only then are they made
        follower = air.follower()
        follower.saw(0, IDS[:30], states[:30])
        if asked:
            logits(follower, IDS[30])
        follower.cut(20)
        follower.saw(20, IDS[20:40], states[20:40])
        said.append(logits(follower, IDS[40]))
        assert follower.cache.length == 40
    assert np.array_equal(*said)


def test_behind_what_it_was_not_told_of_it_begins_anew(air: Followed) -> None:
    states, follower = air.states(IDS), air.follower()
    follower.saw(0, IDS[:10], states[:10])
    follower.saw(50, IDS[50:60], states[50:60])
    logits(follower, IDS[60])
    assert follower.cache.length == 10
    follower.cut(55)
    follower.saw(55, IDS[55:60], states[55:60])
    logits(follower, IDS[60])
    assert follower.cache.length == 10
    follower.cut(40)
    assert follower.cache.length == 0 and follower.end == 40


def test_a_full_cache_says_nothing(air: Followed) -> None:
    follower = MtpFollower(air.block, 64, "f16")
    follower.saw(0, IDS[:65], air.states(IDS[:65]))
    assert follower.logits(3) is None
    follower.resize(128)
    assert follower.logits(3) is not None
