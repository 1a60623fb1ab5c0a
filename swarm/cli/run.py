"""`swarm run`: one prompt, one answer on standard output."""

from __future__ import annotations

import argparse
import json
import sys

from swarm.cli import answers, loading, options
from swarm.cli.conversation import Conversation
from swarm.errors import ConfigError
from swarm.limits import MAX_PIPED_PROMPT_BYTES
from swarm.units import size_text

HELP = "Answer one prompt and leave. Only the answer is written to standard output, so it can be piped on."
EXAMPLES = """\
  swarm run smollm2-135m "Why is the sky blue?"
  cat letter.txt | swarm run ./model.gguf "Summarise this:" -
  swarm run smollm2-135m --raw "Once upon a time" --max-tokens 50
  swarm run smollm2-135m "Name three colours." --temp 0 --json
  swarm run ./GLM-4.5-Air.gguf "Hello" --memory 6GiB     experts that do not fit stay on disk
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser, required=True)
    parser.add_argument(
        "prompt", metavar="PROMPT", nargs="*", help="what to say; `-`, or nothing, reads it from standard input"
    )
    parser.add_argument("--raw", action="store_true", help="continue the text as it is, without a chat template")
    parser.add_argument("--json", action="store_true", help="print one JSON object with text and figures")
    options.add_sampling(parser)
    options.add_engine(parser)
    options.add_alone(parser)


def run(args: argparse.Namespace) -> int:
    if args.raw and args.system:
        raise ConfigError("--system needs the chat template that --raw leaves out; put the text into the prompt")
    settings = options.settings_of(args)
    prompt = read_prompt(args.prompt)
    model, name = loading.open_model(args, settings)
    params = options.sampling_of(args)
    stream = (
        model.generate(prompt, max_tokens=args.max_tokens, params=params)
        if args.raw
        else model.chat(Conversation(args.system or "").messages(prompt), max_tokens=args.max_tokens, params=params)
    )
    if args.json:
        print(as_json(name, stream))
    else:
        answers.show_answer(stream, sys.stdout, stoppable=False)
    return 0


def read_prompt(words: list[str]) -> str:
    """The prompt from the command line, with standard input where `-` stands, or all of standard input."""
    if not words:
        if sys.stdin.isatty():
            raise ConfigError('there is no prompt; write it in quotes: swarm run MODEL "your question"')
        words = ["-"]
    text = " ".join(words) if "-" not in words else "\n\n".join(_filled(words))
    if not text.strip():
        raise ConfigError('the prompt is empty; write it in quotes: swarm run MODEL "your question"')
    return text


def as_json(model: str, stream: answers.AnswerStream) -> str:
    """The whole answer as one JSON object."""
    text, thinking = "", ""
    for piece in stream:
        if piece.thinking:
            thinking += piece.text
        else:
            text += piece.text
    stats = stream.stats
    answer: dict[str, object] = {
        "model": model,
        "text": text,
        "thinking": thinking,
        "finish_reason": stream.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "generated_tokens": stats.generated_tokens,
        "guessed_tokens": stats.guessed_tokens,
        "first_token_s": round(stats.first_token_s, 4),
        "tokens_per_s": round(stats.decode_tokens_per_s, 2),
    }
    if stats.experts.misses:
        answer["experts"] = {
            "hits": stats.experts.hits,
            "misses": stats.experts.misses,
            "read_bytes": stats.experts.read_bytes,
            "wait_s": round(stats.experts.wait_s, 3),
        }
    return json.dumps(answer, ensure_ascii=False)


def _filled(words: list[str]) -> list[str]:
    piped = sys.stdin.read(MAX_PIPED_PROMPT_BYTES + 1)
    if len(piped) > MAX_PIPED_PROMPT_BYTES:
        raise ConfigError(f"standard input is longer than {size_text(MAX_PIPED_PROMPT_BYTES)}; no context holds that")
    at = words.index("-")
    around = [" ".join(words[:at]), piped.strip("\n"), " ".join(words[at + 1 :])]
    return [part for part in around if part]
