"""Options that several commands share, and what they become."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from swarm import config

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams

# Flags and the fields of SamplingParams that they set.
SAMPLING_FLAGS = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "seed": "seed"}


def add_model(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """MODEL: a path or a name."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs=None if required else "?",
        help="path of a GGUF file, or a name such as smollm2-135m"
        + ("" if required else "; without it, the default model, fetched on first use"),
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """How the model runs here."""
    group = parser.add_argument_group("running")
    group.add_argument("--threads", metavar="N", type=whole(1, 1024), help="threads that compute (default: your cores)")
    group.add_argument("--context", metavar="N", type=whole(1), help="tokens that the conversation may hold")
    group.add_argument(
        "--kv", choices=config.KV_TYPES, help="keep past tokens as f16 (default), or as q8_0 in half the memory"
    )
    group.add_argument(
        "--memory", metavar="SIZE", help="the most to use, as in 6GiB: a mixture that is larger runs from disk"
    )
    add_guess(group)
    group.add_argument(
        "--draft",
        metavar="MODEL",
        help="a small model of the same vocabulary, whose guesses MODEL checks; this device's node keeps it. `mtp`: "
        "the block of the model's own file that predicts further tokens",
    )


def add_guess(group: argparse._ActionsContainer) -> None:
    """Whether to guess."""
    group.add_argument(
        "--no-guess",
        dest="guess",
        action="store_const",
        const="never",
        help="compute one token at a time, also where the text repeats itself; the answer is the same",
    )


def add_alone(parser: argparse.ArgumentParser) -> None:
    """Whether to use the swarm that this device is in."""
    parser.add_argument(
        "--alone", action="store_true", help="run the model on this device only, also while it takes part in a swarm"
    )
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How the next token is chosen."""
    group = parser.add_argument_group("answering")
    group.add_argument("--max-tokens", metavar="N", type=whole(1), help="end the answer after N tokens")
    group.add_argument("--temp", metavar="T", type=real(0, 100), help="0 always takes the likeliest token; 1 is lively")
    group.add_argument("--top-k", metavar="K", type=whole(0), help="choose among the K likeliest tokens (0: all)")
    group.add_argument("--top-p", metavar="P", type=real(0, 1), help="choose among the likeliest that add up to P")
    group.add_argument("--min-p", metavar="P", type=real(0, 1), help="drop tokens less likely than P times the best")
    group.add_argument("--seed", metavar="N", type=whole(0, 2**63 - 1), help="the same seed gives the same answer")
    group.add_argument("--system", metavar="TEXT", help="instructions that the model reads before the conversation")


def sampling_of(args: argparse.Namespace) -> SamplingParams:
    """How tokens are chosen: the usual, with this command's flags on top."""
    from swarm.engine.sampling import SamplingParams

    flags = {field: getattr(args, flag) for flag, field in SAMPLING_FLAGS.items()}
    return replace(SamplingParams(), **{field: value for field, value in flags.items() if value is not None})


def settings_of(args: argparse.Namespace) -> config.Settings:
    """The settings with this command's flags on top."""
    flags = {name: getattr(args, name, None) for name in ("threads", "context", "kv", "guess", "home", "memory")}
    return config.load(flags)


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{value} is not {_range(low, high)}")
        return value

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if math.isnan(value) or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:g} to {high:g}")
        return value

    return parse


def _range(low: int, high: int | None) -> str:
    return f"{low} or more" if high is None else f"from {low} to {high}"
