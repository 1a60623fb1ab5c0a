"""Breaking one rule at a time: a simulator that finds nothing proves nothing."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Sabotage:
    """A method whose source says `old`, made to say `new`; `seed` is where it was found last (tried first)."""

    owner: type
    method: str
    old: str
    new: str
    seed: int = 0


def shown_by(sabotage: Sabotage, play: Callable[[int], object], seeds: range, monkeypatch: pytest.MonkeyPatch) -> str:
    """Break the rule; return the first seed that shows it and what it says, or fail."""
    monkeypatch.setattr(sabotage.owner, sabotage.method, rewritten(sabotage))
    for seed in [sabotage.seed, *seeds]:
        try:
            play(seed)
        except Exception as error:
            return f"seed {seed}: {type(error).__name__}: {str(error)[:150]}"
    pytest.fail(f"{len(seeds)} seeds show nothing")


def rewritten(sabotage: Sabotage) -> object:
    """The method with one piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(getattr(sabotage.owner, sabotage.method)))
    assert sabotage.old in source, f"{sabotage.method} does not say {sabotage.old!r} any more"
    namespace = dict(vars(sys.modules[sabotage.owner.__module__]))
    exec(compile(source.replace(sabotage.old, sabotage.new), f"<{sabotage.method}>", "exec"), namespace)
    return namespace[sabotage.method]
