"""Metadata and tensor tables of all kinds of nonsense: a spec, or one line that says what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import ModelError
from swarm.models import ModelSpec, model_sizes, spec_from_gguf
from tests.helpers.tiny import TINY, gguf_metadata, tensor_table

METADATA = {name: gguf_metadata(tiny) for name, tiny in TINY.items()}
TABLES = {name: tensor_table(tiny) for name, tiny in TINY.items()}
OTHER_KEYS = (
    "attention.sliding_window",
    "rope.scaling.type",
    "rope.scaling.factor",
    "expert_group_count",
    "attention.scale",
)

numbers = st.integers(-2, 300) | st.integers(-(2**63), 2**64 - 1) | st.floats(width=32) | st.floats()
arrays = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)
values = (
    numbers | st.booleans() | st.text(max_size=200) | arrays | arrays.map(np.array) | st.lists(st.text(), max_size=3)
)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_changed_metadata_gives_a_spec_or_one_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(TINY)))
    metadata: dict[str, Any] = dict(METADATA[name])
    arch = metadata["general.architecture"]
    keys = [key for key in metadata if key.startswith(arch)] + [f"{arch}.{key}" for key in OTHER_KEYS]
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=4)):
        if data.draw(st.booleans()):
            metadata.pop(key, None)
        else:
            metadata[key] = data.draw(values)
    outcome(metadata, TABLES[name])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_changed_tensor_table_gives_a_spec_or_one_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(TINY)))
    table = dict(TABLES[name])
    quants = [info.quant for info in tensor_table(TINY[name], "Q8_0").values()]
    for tensor in data.draw(st.lists(st.sampled_from(list(table)), min_size=1, max_size=3, unique=True)):
        info = table.pop(tensor)
        shape = tuple(data.draw(st.lists(st.integers(0, 2**40), max_size=4)))
        change = data.draw(st.sampled_from(["drop", "rename", "shape", "quant"]))
        if change == "rename":
            table[data.draw(st.text(max_size=20))] = info
        elif change == "shape":
            table[tensor] = replace(info, shape=shape)
        elif change == "quant":
            table[tensor] = replace(info, quant=data.draw(st.sampled_from(quants)))
    outcome(METADATA[name], table)


def outcome(metadata: dict[str, Any], table: dict[str, Any]) -> None:
    """A spec whose every tensor is in the table, or an error that fits a terminal."""
    try:
        spec = spec_from_gguf(metadata, table)
    except ModelError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        assert isinstance(spec, ModelSpec)
        assert model_sizes(spec, table).total > 0
