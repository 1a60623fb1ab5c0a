"""Whoever carries effects out knows all of them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import get_args

import pytest

from swarm.net.link_effects import Effect
from swarm.net.reactor import Reactor
from tests.helpers.link_sim import Run


@pytest.mark.parametrize("carry_out", [Reactor._do, Run.do])
def test_every_effect_has_its_case(carry_out: Callable[..., None]) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(carry_out)))
    cases = {
        node.cls.id for node in ast.walk(tree) if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name)
    }
    assert cases == {effect.__name__ for effect in get_args(Effect)}
