"""`swarm bench`: how fast a model runs here, beside what the memory of this device allows, or in the swarm."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swarm import config, cores
from swarm.cli import loading, local, machine, options
from swarm.cli.terminal import note
from swarm.errors import ConfigError
from swarm.units import rate_text, size_text

if TYPE_CHECKING:
    from swarm.engine.decoder import Decoder

HELP = (
    "Measure how fast a model reads a prompt and writes an answer: on this device where its file is here, else (or "
    "with --swarm) by the devices of the swarm."
)
EXAMPLES = """\
  swarm bench                                    the default model
  swarm bench ./model.gguf --prompt 512 --gen 64 --threads 2
  swarm bench glm-4-9b --swarm                   all devices that hold its layers
  swarm bench --json                             for scripts
"""
SEED = 20240607  # of the made-up prompts: the speed does not depend on the words, but a mixture's routes do


@dataclass(frozen=True)
class BenchResult:
    """What `bench` prints: medians over the repetitions."""

    model: str
    cpu: str
    isa: str
    threads: int
    kv: str
    prompt_tokens: int
    generated_tokens: int
    repetitions: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    first_token_s: float
    load_s: float
    bytes_per_token: int  # weights, and the KV cache in the middle of the answer
    read_bandwidth: float  # bytes per second, measured in the same run with the same threads
    bandwidth_share: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    parser.add_argument("--prompt", metavar="N", type=options.whole(1), default=512, help="tokens to read (512)")
    parser.add_argument("--gen", metavar="N", type=options.whole(1), default=64, help="tokens to write (64)")
    parser.add_argument("--repeat", metavar="N", type=options.whole(1), default=3, help="repetitions (3)")
    parser.add_argument("--threads", metavar="N", type=options.whole(1, 1024), help="threads (default: your cores)")
    parser.add_argument("--kv", choices=config.KV_TYPES, help="how past tokens are kept (f16)")
    parser.add_argument("--swarm", action="store_true", help="through the node, also where this device has the file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = options.settings_of(args)
    size = args.prompt, args.gen, args.repeat
    model = in_the_swarm(args.model, settings) if args.swarm else loading.find_anywhere(args.model, settings)
    if isinstance(model, Path):
        result = measure(model, settings, *size)
        print(json.dumps(asdict(result)) if args.json else "\n".join(lines(result)))
    else:
        from swarm.cli import bench_swarm

        told = bench_swarm.measure(local.need(settings), model, settings, size)
        print(json.dumps(asdict(told)) if args.json else "\n".join(bench_swarm.lines(told)))
    return 0


def in_the_swarm(name: str | None, settings: config.Settings) -> local.ModelOfSwarm:
    """What MODEL means to the node of this device; a file is offered to the swarm first."""
    node = local.need(settings)
    return local.model_of_swarm(node, local.name_of_model(node, name) or settings.model)


def measure(path: Path, settings: config.Settings, n_prompt: int, n_gen: int, n_repeat: int) -> BenchResult:
    """Load the model and time it; the memory is timed before and after, and the faster reading counts."""
    from swarm import kernels
    from swarm.engine.decoder import Decoder
    from swarm.engine.ways import kept
    from swarm.engine.weights import load_weights
    from swarm.models import kv_bytes_per_token, model_sizes, spec_from_gguf
    from swarm.parts import all_parts
    from swarm.store.gguf import open_gguf

    threads = settings.threads or cores.default_threads()
    isa = kernels.isa(settings.cpu)
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        if n_prompt + n_gen > spec.context_length:
            raise ConfigError(f"{n_prompt} + {n_gen} tokens are more than the model's context of {spec.context_length}")
        note(
            f"loading {path.name}, then {n_repeat} times {n_prompt} tokens in and {n_gen} out on {threads} threads ..."
        )
        started = time.perf_counter()
        weights = load_weights(file, spec, all_parts(spec.n_layers), threads=threads)
        load_s = time.perf_counter() - started
        ways = kept(settings.home_path, isa, threads)
        decoder = Decoder(spec, weights, context=n_prompt + n_gen, threads=threads, isa=isa, kv=settings.kv, ways=ways)
        weight_bytes = model_sizes(spec, file.tensors).active_per_token
    bandwidth = kernels.read_bandwidth(threads)
    time_once(decoder, min(n_prompt, 16), 2, spec.vocab, SEED)  # threads start, pages are touched
    times = [time_once(decoder, n_prompt, n_gen, spec.vocab, SEED + 1 + i) for i in range(n_repeat)]
    bandwidth = max(bandwidth, kernels.read_bandwidth(threads))
    first_token_s, decode_s = (statistics.median(column) for column in zip(*times, strict=True))
    per_token = weight_bytes + (n_prompt + n_gen // 2) * kv_bytes_per_token(spec, settings.kv.upper())
    return BenchResult(
        model=path.name,
        cpu=machine.cpu_name(),
        isa=isa,
        threads=threads,
        kv=settings.kv,
        prompt_tokens=n_prompt,
        generated_tokens=n_gen,
        repetitions=n_repeat,
        prefill_tokens_per_s=n_prompt / first_token_s,
        decode_tokens_per_s=n_gen / decode_s,
        first_token_s=first_token_s,
        load_s=load_s,
        bytes_per_token=per_token,
        read_bandwidth=bandwidth,
        bandwidth_share=per_token * n_gen / decode_s / bandwidth,
    )


def time_once(decoder: Decoder, n_prompt: int, n_gen: int, vocab: int, seed: int) -> tuple[float, float]:
    """Seconds to read a prompt of random tokens, and to write n_gen tokens after it."""
    prompt = np.random.default_rng(seed).integers(0, vocab, n_prompt, dtype=np.int32)
    kv = decoder.new_kv(n_prompt + n_gen)
    started = time.perf_counter()
    logits = decoder.forward(prompt, kv)
    prefilled = time.perf_counter()
    for _ in range(n_gen):
        logits = decoder.forward([int(logits.argmax())], kv)
    return prefilled - started, time.perf_counter() - prefilled


def lines(result: BenchResult) -> list[str]:
    """The result as a person reads it."""
    return [
        f"{result.model} on {result.cpu} ({result.isa}, {result.threads} threads, {result.kv} KV)",
        f"  prefill  {result.prefill_tokens_per_s:8.1f} tok/s   {result.prompt_tokens} tokens in "
        f"{result.first_token_s:.3g} s",
        f"  decode   {result.decode_tokens_per_s:8.1f} tok/s   {result.generated_tokens} tokens, each reading "
        f"{size_text(result.bytes_per_token)}",
        f"  memory   {rate_text(result.read_bandwidth):>13}    of which decoding uses {result.bandwidth_share:.0%}",
        f"  load     {result.load_s:8.2f} s",
    ]
