"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from swarm.cli import options
from swarm.engine.sampling import SamplingParams


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    options.add_model(parser)
    options.add_engine(parser)
    options.add_sampling(parser)
    options.add_alone(parser)
    return parser.parse_args(words)


def test_without_flags_everything_is_as_usual(own_home: Path) -> None:
    assert options.sampling_of(parsed()) == SamplingParams()
    assert options.settings_of(parsed()).threads == 0 and parsed().model is None


def test_a_flag_changes_its_own_setting_and_nothing_else(own_home: Path) -> None:
    args = parsed(
        "m.gguf", "--temp", "0", "--top-k", "5", "--threads", "3", "--kv", "q8_0", "--no-guess", "--home", "x"
    )
    assert options.sampling_of(args) == SamplingParams(temperature=0.0, top_k=5)
    settings = options.settings_of(args)
    assert (args.model, settings.threads, settings.kv, settings.home) == ("m.gguf", 3, "q8_0", "x")
    assert (settings.guess, options.settings_of(parsed("m.gguf")).guess) == ("never", "auto")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threads", "0"], "0 is not from 1 to 1024"),
        (["--context", "0"], "0 is not 1 or more"),
        (["--top-k", "many"], "'many' is not a whole number"),
        (["--top-p", "1.5"], "1.5 is not from 0 to 1"),
        (["--temp", "nan"], "nan is not from 0 to 100"),
        (["--min-p", "x"], "'x' is not a number"),
    ],
)
def test_a_value_out_of_range_says_the_range(words: list[str], says: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=says):
        parsed(*words)
