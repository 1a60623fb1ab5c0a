"""glm4moe: blocks that predict further tokens are no layers, and shared experts may be wider than others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.errors import UnsupportedModel
from swarm.models import spec_from_gguf
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY, StoredTensor, TinyMoe, gguf_metadata, tensor_table


def test_mtp_block_is_no_layer_present_or_absent() -> None:
    for name in ("air", "intellect3"):
        spec = declared(TINY[name])
        assert spec.n_layers == len(spec.layers) == 3
        assert not any("blk.3." in ref.name for layer in spec.layers for ref in layer.tensors.values())


def test_block_count_that_leaves_out_a_declared_mtp_block_loses_no_layer() -> None:
    tiny = replace(TINY["air"], mtp="none")
    assert declared(tiny, nextn_predict_layers=1).n_layers == 3
    assert declared(tiny, nextn_predict_layers=0).n_layers == 3


def test_mtp_block_in_the_table_is_told_by_its_tensors() -> None:
    tiny = TINY["air"]
    table: dict[str, Any] = dict(tensor_table(tiny))
    last = {name.replace("blk.2.", "blk.3."): info for name, info in table.items() if name.startswith("blk.2.")}
    table |= last | {"blk.3.nextn.eh_proj.weight": StoredTensor((64, 128), table["output.weight"].quant)}
    assert spec_from_gguf(gguf_metadata(tiny), table).n_layers == 3


def test_shared_experts_of_another_width_are_read() -> None:
    tiny = replace(TINY["air"], moe=TinyMoe(shared=2, gating="sigmoid", bias=True, dense_layers=1))
    moe = declared(tiny).layers[1].moe
    assert moe is not None
    assert moe.shared_ffn == 64


def test_the_text_of_a_model_that_sees_is_that_of_one_that_does_not() -> None:
    assert declared(TINY["air"], rope__dimension_sections=[8, 4, 4, 0]) == declared(TINY["air"])


def test_a_file_of_mtp_blocks_alone_is_called_by_its_name() -> None:
    tiny = TINY["air"]
    table: dict[str, Any] = {n: info for n, info in tensor_table(tiny).items() if not n.startswith("blk.")}
    table["blk.3.nextn.eh_proj.weight"] = StoredTensor((64, 128), table["output.weight"].quant)
    with pytest.raises(UnsupportedModel, match="predicts further tokens"):
        spec_from_gguf(gguf_metadata(tiny), table)
