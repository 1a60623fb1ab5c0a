"""The block that predicts a further token: computed as its formulas say, and it changes no answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import swarm
from swarm.engine.decoder import Decoder
from swarm.engine.mtp import MAX_LAG, MtpBlock, MtpDecoder
from swarm.engine.sampling import SamplingParams
from swarm.engine.weights import load_weights
from swarm.errors import ConfigError
from swarm.kernels import reference as ops
from swarm.kernels.quants import dequantize
from swarm.models.registry import mtp_from_gguf, spec_from_gguf
from swarm.models.spec import Role
from swarm.parts import all_parts
from swarm.store.gguf import GGUF, open_gguf
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.tiny import make_tiny

IDS = [int(i) for i in np.random.default_rng(3).integers(4, 250, 40)]


@pytest.fixture
def air(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "air.gguf", "air")


def made(gguf: GGUF) -> MtpDecoder:
    spec = spec_from_gguf(gguf.metadata, gguf.tensors)
    weights = load_weights(gguf, spec, all_parts(spec.n_layers))
    mtp = mtp_from_gguf(gguf.metadata, gguf.tensors)
    assert mtp is not None
    decoder = Decoder(spec, weights, context=1024, threads=1, kv="f16")
    return MtpDecoder(decoder, MtpBlock.of_file(mtp, gguf, decoder))


class Block(NumpyDecoder):
    """The formulas in NumPy, over a whole sequence at once."""

    def drafts(self, ids: list[int]) -> np.ndarray:
        """Logits (tokens, vocab) of the block after each token."""
        mtp = mtp_from_gguf(self.model.metadata, self.model.tensors)
        assert mtp is not None
        eps = self.spec.norm_eps

        def vector(name: str) -> np.ndarray:
            return dequantize(self.model.tensors[name].quant, self.model.raw(name).reshape(1, -1)).reshape(-1)

        states = np.concatenate([np.zeros((1, self.spec.hidden), np.float32), self.states(ids)[:-1]])
        embedding = self._rows(mtp.spec.tensors[Role.EMBED])[np.asarray(ids)]
        tokens = ops.rmsnorm(embedding, vector(mtp.prefix + "enorm.weight"), eps)
        both = np.concatenate([tokens, ops.rmsnorm(states, vector(mtp.prefix + "hnorm.weight"), eps)], axis=1)
        raw = self.model.raw(mtp.prefix + "eh_proj.weight")
        x = both @ dequantize(self.model.tensors[mtp.prefix + "eh_proj.weight"].quant, raw).T
        cos, sin = self._rope_table(len(ids))
        layer = mtp.spec.layers[0]
        x = x + self._attention(layer, x, cos, sin)
        x = x + self._ffn(layer, x)
        x = ops.rmsnorm(x, vector(mtp.prefix + "shared_head_norm.weight"), eps)
        return x @ self._rows(mtp.spec.tensors[Role.LM_HEAD]).T

    def states(self, ids: list[int]) -> np.ndarray:
        """The model's (tokens, hidden), after its last norm."""
        x = self._outside(Role.EMBED)[np.asarray(ids)]
        cos, sin = self._rope_table(len(ids))
        for layer in self.spec.layers:
            x = x + self._attention(layer, x, cos, sin)
            x = x + self._ffn(layer, x)
        return ops.rmsnorm(x, self._outside(Role.OUTPUT_NORM), self.spec.norm_eps)


def test_what_it_says_is_what_the_formulas_say(air: Path) -> None:
    wanted = Block.open(air).drafts(IDS)
    with open_gguf(air) as gguf:
        decoder = made(gguf)
        kv = decoder.new_kv(128)
        seen: list[np.ndarray] = []

        def choose(logits: np.ndarray, ids: Sequence[int]) -> int:
            seen.append(logits.copy())
            return 7

        decoder.forward(np.array(IDS[:20], np.int32), kv)
        for i in range(20, len(IDS)):
            assert decoder.propose(IDS[: i + 1], choose, kv) == [7]
            decoder.forward(np.array(IDS[i : i + 1], np.int32), kv)
    for got, want in zip(seen, wanted[20:], strict=True):
        assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


def test_guesses_that_did_not_come_leave_no_trace(air: Path) -> None:
    """And where it is asked now and then only, it catches up."""

    def said(decoder: MtpDecoder, kv: object, ids: list[int]) -> np.ndarray:
        logits: list[np.ndarray] = []
        decoder.propose(ids, lambda row, _: logits.append(row.copy()) or 7, kv)  # type: ignore[arg-type, func-returns-value]
        return logits[0]

    with open_gguf(air) as gguf:
        decoder = made(gguf)
        plain, other = decoder.new_kv(128), decoder.new_kv(128)
        decoder.forward(np.array(IDS[:30], np.int32), plain)
        want = said(decoder, plain, IDS[:31])
        decoder.forward(np.array(IDS[:20], np.int32), other)
        said(decoder, other, [*IDS[:20], 9])
        decoder.forward_all(np.array([IDS[20], 8, 9], np.int32), other)
        other.truncate(21)
        said(decoder, other, [*IDS[:21], 9])
        decoder.forward_all(np.array(IDS[21:30], np.int32), other)
        assert np.array_equal(said(decoder, other, IDS[:31]), want)
        assert np.array_equal(said(decoder, other, IDS[:31]), want), "asked twice"


def test_states_do_not_pile_up(air: Path) -> None:
    with open_gguf(air) as gguf:
        decoder = made(gguf)
        kv = decoder.new_kv(1024)
        decoder.forward(np.array(IDS * 10, np.int32), kv)
        assert len(kv.states) <= 1 + MAX_LAG and len(kv.block_ids) > 100


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"temperature": 0.9, "seed": 3}], ids=["greedy", "sampled"])
def test_answers_are_the_same(air: Path, params: dict[str, float]) -> None:
    plain = swarm.load(air, threads=1, context=512, guess="never")
    guessing = swarm.load(air, threads=1, context=512, draft="mtp")
    n_guesses = 0
    for prompt in (IDS, IDS[:5], [*IDS, *IDS[:7]]):
        want = plain.generate(prompt, max_tokens=80, params=SamplingParams(**params))  # type: ignore[arg-type]
        got = guessing.generate(prompt, max_tokens=80, params=SamplingParams(**params))  # type: ignore[arg-type]
        assert got.text is not None and want.text == got.text and got.tokens == want.tokens
        n_guesses += got.stats.guesses
    assert n_guesses


def test_a_file_without_such_a_block_says_so(tmp_path: Path) -> None:
    for name in ("intellect3", "llama"):
        with pytest.raises(ConfigError, match="no block that predicts further tokens"):
            swarm.load(make_tiny(tmp_path / f"{name}.gguf", name), draft="mtp")
