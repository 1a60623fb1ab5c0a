"""mistral3: yarn whose magnitude is cancelled, and queries that sharpen with each stretch of the first context."""

from __future__ import annotations

import pytest

from swarm.errors import BadModelFile
from swarm.models.spec import Temper
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_cos_and_sin_keep_their_magnitude() -> None:
    scaling = declared(TINY["mistral3"]).rope.scaling
    assert scaling is not None and (scaling.factor, scaling.attention_factor) == (16.0, 1.0)


def test_a_multiplier_other_than_one_leaves_some_of_it() -> None:
    scaling = declared(TINY["mistral3"], rope__scaling__yarn_log_multiplier=0.5).rope.scaling
    assert scaling is not None and scaling.attention_factor == pytest.approx(1.2772589 / 1.1386294)


def test_queries_sharpen_by_stretches_of_the_first_context() -> None:
    assert declared(TINY["mistral3"]).temper == Temper(0.1, 64)
    assert declared(TINY["mistral3"], attention__temperature_scale=0.0).temper is None


def test_a_temper_without_that_context_is_named() -> None:
    with pytest.raises(BadModelFile, match=r"mistral3\.rope\.scaling\.original_context_length is missing"):
        declared(TINY["mistral3"], without=("rope.scaling.original_context_length",))
