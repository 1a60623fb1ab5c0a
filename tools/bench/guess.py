#!/usr/bin/env python3
"""What guessing brings: four kinds of text with real weights, with and without, in turns; the texts must be equal.

    python tools/bench/guess.py [MODEL] [--threads 1] [--rounds 3]            one device
    python tools/bench/guess.py [MODEL] --nodes 3 [--lan 100mbit:2]           a pipeline on this machine
    python tools/bench/guess.py [MODEL] --nodes 2 --layout slices             devices that share every layer
    python tools/bench/guess.py [MODEL] --draft SMALL | --draft-layers 10     with a draft, or one of the first layers

`--lan` puts the devices into network namespaces (needs root): rate and delay of each cable. Each row has tokens a
second (of CPU time, where one thread computes) without and with guesses (medians), the gain, the share of guesses that
came, and of tokens that were guessed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import swarm  # noqa: E402
from swarm.engine.sampling import SamplingParams  # noqa: E402
from swarm.store.naming import resolve  # noqa: E402
from swarm.text.forms import json_form  # noqa: E402

CONTEXT = 1024
CODE = """\
def area(width, height):
    if width < 0 or height < 0:
        raise ValueError("a negative size")
    result = width * height
    print("the area is", result)
    return result


def volume(width, height, depth):
    if depth < 0:
        raise ValueError("a negative size")
    result = area(width, height) * depth
    print("the volume is", result)
    return result
"""
DAY = "the shop opens at 9 in the morning and closes at 5 in the evening."
TEXTS = {
    "prose": "Write a story about an old sailor who finds a strange map.",
    "code that is edited": f"```python\n{CODE}```\n\nWrite all of it again with total in place of result.",
    "a list that repeats": f"Write a line for each day of the week, as in: Monday: {DAY} Tuesday: {DAY}",
}
JSON = "a form of JSON"
PRODUCT = {"name_of_the_product": {"type": "string", "maxLength": 20}, "price_in_euros": {"type": "integer"}}
SCHEMA: dict[str, object] = {
    "type": "array",
    "items": {"type": "object", "properties": PRODUCT, "required": list(PRODUCT), "additionalProperties": False},
    "minItems": 6,
    "maxItems": 6,
}
TEXTS[JSON] = "A price list as JSON."
WAYS = {"greedy": SamplingParams(temperature=0.0), "usual": SamplingParams(seed=1)}


class Answered(NamedTuple):
    """An answer: its ids, tokens a second after the first, guesses that were computed and that came."""

    ids: list[int]
    tokens_per_s: float
    guesses: int
    guessed: int


Ask = Callable[[str, SamplingParams, int, bool], Answered]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--layout", choices=("pipeline", "slices"), default="pipeline")
    parser.add_argument("--texts", type=int, default=len(TEXTS), help="only so many of the texts")
    parser.add_argument("--draft", help="the file of a small model of the same vocabulary")
    parser.add_argument("--draft-layers", type=int, default=0, help="a draft of so many first layers of the model")
    parser.add_argument("--lan", metavar="RATE:MS", help="hosts in a LAN in a box instead of loopback: 1gbit:0.15")
    args = parser.parse_args()
    path = resolve(args.model)
    with ExitStack() as stack:
        draft = Path(args.draft) if args.draft else None
        if args.draft_layers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            draft = first_layers(path, args.draft_layers, folder / "draft.gguf")
        ask = in_a_swarm(path, args, stack, draft) if args.nodes > 1 else on_one_device(path, args.threads, draft)
        compare(ask, args.tokens, args.rounds, args.texts)


def compare(ask: Ask, n_tokens: int, rounds: int, n_texts: int) -> None:
    """Every text in every way of choosing, without and with guesses in turns."""
    for guess in (False, True):
        ask(TEXTS["prose"], WAYS["greedy"], 32, guess)
    print("| text | chosen | tok/s | with guesses | gain | guesses that came | tokens guessed |")
    print("|---|---|---|---|---|---|---|")
    for name, text in list(TEXTS.items())[:n_texts]:
        for chosen, params in WAYS.items():
            heard: dict[bool, list[Answered]] = {False: [], True: []}
            for i in range(rounds):
                for guess in (False, True) if i % 2 else (True, False):
                    heard[guess].append(ask(text, params, n_tokens, guess))
            print(row(name, chosen, heard[False], heard[True]), flush=True)


def row(name: str, chosen: str, plain: list[Answered], quick: list[Answered]) -> str:
    if any(answer.ids != plain[0].ids for answer in (*plain, *quick)):
        raise SystemExit(f"{name}, {chosen}: the texts differ")
    without, with_guesses = (statistics.median(each.tokens_per_s for each in answers) for answers in (plain, quick))
    guesses, guessed = sum(each.guesses for each in quick), sum(each.guessed for each in quick)
    came = f"{guessed / guesses:.0%} of {guesses // len(quick)}" if guesses else "none"
    share = guessed / sum(len(each.ids) for each in quick)
    gain = with_guesses / without
    return f"| {name} | {chosen} | {without:.1f} | {with_guesses:.1f} | {gain:.2f} | {came} | {share:.0%} |"


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def first_layers(path: Path, n_layers: int, out: Path) -> Path:
    """A model of the first layers of another: its head reads what they leave."""
    import gguf
    import numpy as np

    from swarm.store.gguf import open_gguf
    from tests.helpers.gguf_writer import _add_value

    with open_gguf(path) as model:
        arch = str(model.metadata["general.architecture"])
        writer = gguf.GGUFWriter(out, arch="")
        writer.kv_data = [{}]
        for key, value in {**model.metadata, f"{arch}.block_count": n_layers}.items():
            if not key.startswith("GGUF."):
                _add_value(writer, key, value)
        for name, entry in model.tensors.items():
            layer = int(name.split(".")[1]) if name.startswith("blk.") else -1
            if layer < n_layers:
                raw = np.array(model.raw(name)).reshape((*entry.shape[:-1], -1))
                writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType(entry.quant.id))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return out


def on_one_device(path: Path, threads: int, draft: Path | None) -> Ask:
    model = swarm.load(path, threads=threads, context=CONTEXT, draft=draft)

    def ask(text: str, params: SamplingParams, n_tokens: int, guess: bool) -> Answered:
        model.guess = guess
        form = json_form(SCHEMA) if text == TEXTS[JSON] else None
        answer = model.chat(asked(text), max_tokens=n_tokens, params=params, form=form)
        next(answer)
        n_first, started = answer.stats.generated_tokens, time.process_time()
        for _ in answer:
            pass
        stats, cpu_s = answer.stats, time.process_time() - started
        per_s = (stats.generated_tokens - n_first) / cpu_s if threads == 1 else stats.decode_tokens_per_s
        return Answered(answer.tokens, per_s, stats.guesses, stats.guessed_tokens)

    return ask


def in_a_swarm(path: Path, args: argparse.Namespace, stack: ExitStack, draft: Path | None) -> Ask:
    """A swarm of its own, whose devices can just hold the model together, or share every layer.

    The first one is asked, and has the draft.
    """
    from swarm import kernels
    from swarm.node import measure
    from swarm.node.home import Home
    from tests.helpers import nodes
    from tests.helpers.lan import Lan

    cost, folder = nodes.cost_of(path), Path(stack.enter_context(tempfile.TemporaryDirectory()))
    layers = [cost.n_layers // args.nodes] * args.nodes
    layers[-1] += cost.n_layers - sum(layers)
    nodes.SPEED = measure.measure(Home(folder), kernels.isa(), nodes.THREADS)
    lan = None
    if args.lan:
        rate, _, delay = args.lan.partition(":")
        lan = stack.enter_context(Lan(args.nodes, rate=rate, delay_ms=float(delay or 0)))
    memories = nodes.memories_for(cost, layers, CONTEXT)
    if args.layout == "slices":
        memories = [2 * cost.weight_bytes] * args.nodes
    if draft is not None:
        small = nodes.cost_of(draft)
        memories[0] += small.weight_bytes + small.stage_kv_bytes(0, small.n_layers, CONTEXT)
    made = nodes.Swarm(folder / "swarm", memories, model=path, context=CONTEXT, lan=lan, layout=args.layout)
    entered = stack.enter_context(made)
    if draft is not None:
        entered.nodes[0].post("/swarm/draft", {"path": str(draft), "model": entered.model})

    def ask(text: str, params: SamplingParams, n_tokens: int, guess: bool) -> Answered:
        how = {"temperature": params.temperature, "seed": params.seed or 0}
        body = {"model": entered.model, "messages": asked(text), "max_tokens": n_tokens, **how}
        body |= {} if guess else {"speculative.n_max": 0}
        if text == TEXTS[JSON]:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "list", "schema": SCHEMA}}
        heard = entered.nodes[0].ask(body)
        if heard.error:
            raise SystemExit(heard.error)
        times = heard.timings
        per_s, guesses = times["predicted_per_second"], times.get("draft_n", 0)
        return Answered(heard.tokens, per_s, int(guesses), int(times.get("draft_n_accepted", 0)))

    return ask


if __name__ == "__main__":
    main()
