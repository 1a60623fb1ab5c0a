"""`swarm bench` of a model that several devices run: how fast its answers come through the node of this device."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from swarm.answers import Stats
from swarm.cli import loading
from swarm.cli.local import LocalNode, ModelOfSwarm
from swarm.cli.remote import RemoteModel
from swarm.cli.terminal import harmless, note
from swarm.config import Settings
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError

SEED = 20240607  # of the made-up prompts, as on one device
GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True)
class SwarmBenchResult:
    """What `bench` prints of a swarm: medians over the repetitions."""

    model: str
    devices: list[str]  # that hold its layers
    prompt_tokens: int
    generated_tokens: int
    repetitions: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    first_token_s: float


def measure(node: LocalNode, model: ModelOfSwarm, settings: Settings, size: tuple[int, int, int]) -> SwarmBenchResult:
    """Ask the swarm; a first, short question has the model loaded before. Raise ConfigError, SwarmError.

    `size`: tokens in, tokens out, how often.
    """
    n_prompt, n_gen, n_repeat = size
    if n_prompt + n_gen > model.context:
        raise ConfigError(f"{n_prompt} + {n_gen} tokens are more than the model's context of {model.context} here")
    vocab = vocabulary(model, settings)
    remote = RemoteModel(node, model.id, loading.Quiet(), guess=False)
    note(f"asking the swarm, {n_repeat} times {n_prompt} tokens in and {n_gen} out ...")
    ask(remote, min(n_prompt, 16), 2, vocab, SEED)
    told = [ask(remote, n_prompt, n_gen, vocab, SEED + 1 + i) for i in range(n_repeat)]
    first_token_s = statistics.median(stats.first_token_s for stats in told)
    return SwarmBenchResult(
        model=model.name,
        devices=holders(node.get("/swarm/status"), model.id),
        prompt_tokens=n_prompt,
        generated_tokens=round(statistics.median(stats.generated_tokens for stats in told)),
        repetitions=n_repeat,
        prefill_tokens_per_s=n_prompt / first_token_s,
        decode_tokens_per_s=statistics.median(stats.decode_tokens_per_s for stats in told),
        first_token_s=first_token_s,
    )


def ask(remote: RemoteModel, n_prompt: int, n_gen: int, vocab: int, seed: int) -> Stats:
    """The figures of one answer to random tokens, as the node tells them."""
    prompt = np.random.default_rng(seed).integers(0, vocab, n_prompt).tolist()
    answer = remote.generate(prompt, max_tokens=n_gen, params=GREEDY)
    for _ in answer:
        pass
    return answer.stats


def vocabulary(model: ModelOfSwarm, settings: Settings) -> int:
    """Token ids that the model knows, by its header."""
    from swarm.models import spec_from_gguf

    header = loading.header_of(model, settings)
    return spec_from_gguf(header.metadata, header.tensors).vocab


def holders(status: dict[str, Any], model: str) -> list[str]:
    """Names of the devices that hold layers of it, in the order of the layers."""
    shards = [(shard["first"], device["name"], shard) for device in status["devices"] for shard in device["shards"]]
    return [name for _, name, shard in sorted(shards, key=lambda each: each[:2]) if shard.get("model") == model]


def lines(result: SwarmBenchResult) -> list[str]:
    """The result as a person reads it."""
    where = f"in the swarm, on {', '.join(map(harmless, result.devices))}" if result.devices else "in the swarm"
    return [
        f"{harmless(result.model)} {where}",
        f"  prefill  {result.prefill_tokens_per_s:8.1f} tok/s   {result.prompt_tokens} tokens in "
        f"{result.first_token_s:.3g} s",
        f"  decode   {result.decode_tokens_per_s:8.1f} tok/s   {result.generated_tokens} tokens",
    ]
