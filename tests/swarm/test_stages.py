"""Members of a stage that exchange over real sockets give the logits of the whole model, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swarm import kernels
from swarm.engine.decoder import Decoder, Keep, Rows
from swarm.engine.weights import load_weights
from swarm.errors import ContextFull, ModelError, StageLost
from swarm.models import spec_from_gguf
from swarm.parts import all_parts
from swarm.store.gguf import GGUF, open_gguf
from tests.helpers.joined import Joined, decoders_of, joined_logits
from tests.helpers.stages import links, together
from tests.helpers.tiny import TINY, Tiny, make_weights, wide, write_tiny

IDS = np.random.default_rng(7).integers(4, 256, 60).tolist()
STEPS = (17, 1, 1, 33, 3, 1, 1, 1, 2)  # parts of the tokens, and all of them at once
UNEVEN = ((1.0, 1.0), (1.0, 3.0, 2.0), (1.0, 2.0, 1.0, 1.5, 2.5))


def sliceable(name: str) -> Tiny:
    """The checkpoint with enough columns for five slices."""
    tiny = TINY[name]
    return replace(wide(tiny, ffn=1280), n_layers=max(2, tiny.moe.dense_layers + 1 if tiny.moe else 0))


def write(tmp_path: Path, name: str, mix: str) -> Path:
    tiny = sliceable(name)
    return write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)


def whole(model: GGUF) -> Decoder:
    spec = spec_from_gguf(model.metadata, model.tensors)
    return Decoder(spec, load_weights(model, spec, all_parts(spec.n_layers)), context=128, threads=1, kv="f32")


@pytest.mark.parametrize("name", TINY)
def test_members_of_every_family_are_the_whole_model(tmp_path: Path, name: str) -> None:
    with open_gguf(write(tmp_path, name, "F32")) as model:
        want = whole(model).logits(IDS)
        assert np.isfinite(want).all()
        for shares in UNEVEN:
            if len(shares) <= spec_from_gguf(model.metadata, model.tensors).n_heads:
                assert np.array_equal(joined_logits(decoders_of(model, shares), IDS, STEPS), want), shares


@pytest.mark.parametrize(("name", "mix"), [("glm4-fused", "Q4_0"), ("air", "Q8_0"), ("qwen3moe", "Q4_0")])
def test_members_with_other_processors_are_the_whole_model(tmp_path: Path, name: str, mix: str) -> None:
    with open_gguf(write(tmp_path, name, mix)) as model:
        want = whole(model).logits(IDS)
        decoders = decoders_of(model, UNEVEN[1], kernels.isas())
        assert np.array_equal(joined_logits(decoders, IDS, STEPS), want)


@pytest.mark.parametrize(("name", "mix", "shares"), [("glm4", "Q4_0", UNEVEN[1]), ("air", "Q8_0", UNEVEN[2])])
def test_members_in_processes_of_their_own_are_the_whole_model(
    tmp_path: Path, name: str, mix: str, shares: tuple[float, ...]
) -> None:
    path = write(tmp_path, name, mix)
    isas = [kernels.isas()[j % len(kernels.isas())] for j in range(len(shares))]
    joined = Joined(path, shares, isas)
    with open_gguf(path) as model:
        assert np.array_equal(joined.logits(IDS, STEPS, tmp_path), whole(model).logits(IDS))
    joined.close()


def test_only_wanted_rows_and_rows_of_several_sessions_are_exchanged_too(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "glm4", "Q4_0")) as model:
        decoder, decoders = whole(model), decoders_of(model, (1.0, 2.0))

        def run(each: Decoder) -> np.ndarray:
            first, second = each.new_kv(), each.new_kv()
            ids = np.asarray(IDS, np.int32)
            found = [each.step_logits([Rows(ids[:20], first, Keep.NONE)])]
            found.append(each.step_logits([Rows(ids[20:50], second)]))
            found.append(each.step_logits([Rows(ids[50:51], first), Rows(ids[51:52], second)]))
            return np.concatenate(found)

        want = run(decoder)
        with links(2) as stage:

            def member(j: int) -> np.ndarray:
                decoders[j].meet(stage[j].native, 1)
                return run(decoders[j])

            got = together(member, 2)
        assert np.array_equal(np.concatenate([g for g in got if isinstance(g, np.ndarray)], axis=1), want)


def test_hidden_states_of_a_stage_are_the_same_at_every_member(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "air", "Q8_0")) as model:
        decoder, decoders = whole(model), decoders_of(model, (1.0, 2.0, 1.0))
        ids = np.asarray(IDS, np.int32)
        want = decoder.embed(ids, decoder.new_kv())
        with links(3) as stage:

            def member(j: int) -> np.ndarray:
                decoders[j].meet(stage[j].native, 1)
                return decoders[j].embed(ids, decoders[j].new_kv())

            for found in together(member, 3):
                assert isinstance(found, np.ndarray) and np.array_equal(found, want)


def test_a_step_that_fails_at_one_member_ends_at_all_and_stores_nothing(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "llama", "Q8_0")) as model:
        want = whole(model).logits(IDS[:4])
        decoders = decoders_of(model, (1.0, 1.0, 1.0))
        caches = [d.new_kv(16 if j == 1 else 128) for j, d in enumerate(decoders)]
        ids = np.asarray([*IDS, *IDS], np.int32)
        with links(3) as stage:

            def member(j: int) -> tuple[BaseException | None, int, np.ndarray]:
                failed: BaseException | None = None
                decoders[j].meet(stage[j].native, 1)
                try:
                    decoders[j].step_logits([Rows(ids, caches[j])])
                except (ContextFull, StageLost) as error:
                    failed = error
                length = caches[j].length
                decoders[j].meet(stage[j].native, 2)
                return failed, length, decoders[j].forward_all(IDS[:4], caches[j])

            found = together(member, 3)
        for j, each in enumerate(found):
            assert isinstance(each, tuple), each
            failed, length, _ = each
            assert length == 0
            assert isinstance(failed, ContextFull if j == 1 else StageLost)
            if isinstance(failed, StageLost):
                assert (failed.member, failed.stage_over) == (1, False) and "do not fit" in failed.text
        assert np.array_equal(np.concatenate([each[2] for each in found if isinstance(each, tuple)], axis=1), want)


def test_a_member_that_goes_ends_the_step_of_the_others(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "llama", "Q8_0")) as model:
        decoders = decoders_of(model, (1.0, 1.0))
        with links(2) as stage:
            stage[1].close()
            kv = decoders[0].new_kv()
            decoders[0].meet(stage[0].native, 1)
            with pytest.raises(StageLost) as lost:
                decoders[0].forward(IDS[:8], kv)
            assert (lost.value.member, lost.value.stage_over, kv.length) == (1, True, 0)


def test_a_decoder_leaves_a_stage_and_has_whole_layers_again(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "glm4", "Q4_0")) as model:
        decoder = whole(model)
        want = decoder.logits(IDS)
        with links(2) as stage:
            decoder.meet(stage[0].native, 1)
            decoder.meet(None, 0)
            assert np.array_equal(decoder.logits(IDS), want)


def test_sums_that_are_no_numbers_are_an_error_at_every_member(tmp_path: Path) -> None:
    tiny = sliceable("llama")
    weights = make_weights(tiny)
    name = next(key for key in weights if key[1] == "down")
    weights[name][:, 0] = np.nan  # column 0 is the first member's
    with open_gguf(write_tiny(tmp_path / "tiny.gguf", tiny, weights, "F32")) as model:
        decoders = decoders_of(model, (1.0, 1.0))
        for ids in (IDS[:1], IDS[:20]):
            with links(2) as stage:

                def member(j: int, ids: list[int] = ids) -> np.ndarray:
                    decoders[j].meet(stage[j].native, 1)
                    return decoders[j].forward(ids, decoders[j].new_kv())

                assert [type(found) for found in together(member, 2)] == [ModelError] * 2
