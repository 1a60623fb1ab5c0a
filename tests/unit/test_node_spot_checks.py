"""Tokens computed again layer by layer are those of the model as it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import swarm
from swarm.cluster.effects import CheckTokens
from swarm.engine.sampling import SamplingParams
from swarm.engine.weights import Weights, load_weights
from swarm.models import spec_from_gguf
from swarm.node.sampling import sampling_of
from swarm.node.spot_checks import CheckStopped, tokens_again
from swarm.parts import Part
from swarm.store.gguf import open_gguf
from swarm.wire.ids import ModelId
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

PROMPT = list(range(5, 5 + 70))
PARAMS = SamplingParams(temperature=1.5, top_p=0.95, seed=11, presence_penalty=0.5)


def answered(path: Path, kv: str = "f16", prompt: Sequence[int] = PROMPT, n_tokens: int = 40) -> list[int]:
    """What the model says after the prompt."""
    answer = swarm.load(path, threads=1, context=256, kv=kv).generate(prompt, max_tokens=n_tokens, params=PARAMS)
    list(answer)
    return answer.tokens


def check(ids: list[int], first: int, kv: str) -> CheckTokens:
    return CheckTokens(1, ModelId("a" * 64), tuple(ids), first, sampling_of(PARAMS), kv, 0)


def again(path: Path, work: CheckTokens, most_steps: int = 10**9) -> tuple[int, ...]:
    steps = 0

    def pause() -> None:
        nonlocal steps
        steps += 1
        if steps > most_steps:
            raise CheckStopped

    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)

        def weights_of(parts: tuple[Part, ...]) -> list[Weights]:
            return [load_weights(model, spec, [part]) for part in parts]

        return tokens_again(work, spec, weights_of, pause)


@pytest.mark.parametrize(
    ("name", "kv"),
    [*((name, "f16") for name in ("llama", "llama-tied", "air", "gpt-oss", "flash")), ("llama-wide", "q8_0")],
)
def test_they_are_those_of_the_model(tmp_path: Path, name: str, kv: str) -> None:
    tiny = replace(wide(TINY["llama"]) if name == "llama-wide" else TINY[name], n_layers=3)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    tokens = answered(path, kv)
    assert len(tokens) > 3
    for n_known in (0, 1, len(tokens) - 1):
        work = check([*PROMPT, *tokens], len(PROMPT) + n_known, kv)
        assert again(path, work) == tuple(tokens[n_known:])


def test_a_false_token_differs_from_what_comes_there(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", TINY["llama"], make_weights(TINY["llama"]), "Q8_0")
    tokens = answered(path)
    false = [*tokens[:4], tokens[4] ^ 1, *tokens[5:]]
    found = again(path, check([*PROMPT, *false], len(PROMPT), "f16"))
    assert found[:5] == tuple(tokens[:5]) and found[4] != false[4]


def test_the_first_token_of_the_shortest_prompt_can_be_checked(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", TINY["llama"], make_weights(TINY["llama"]), "Q8_0")
    tokens = answered(path, prompt=[9], n_tokens=2)
    assert again(path, check([9, *tokens], 1, "f16")) == tuple(tokens)


def test_it_stops_between_two_steps(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", TINY["llama"], make_weights(TINY["llama"]), "Q8_0")
    with pytest.raises(CheckStopped):
        again(path, check([*PROMPT, 5, 6], len(PROMPT), "f16"), most_steps=1)
