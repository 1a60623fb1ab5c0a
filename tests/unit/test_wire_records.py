"""The nouns inside messages say what they mean."""

from __future__ import annotations

import pytest

from swarm import limits
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.records import WHOLE, Address, Placement, Sampling, Shard, Slice, TensorInfo, Version
from swarm.wire.schema import Violation, pack, unpack

ANN = PeerId("a" * 32)
MODEL = ModelId("0" * 64)
SHARD = Shard(ANN, 0, 1, True, True)


def test_versions_are_written_with_a_dot() -> None:
    assert str(Version(1, 2)) == "1.2"


def test_addresses_are_written_as_urls_have_them_and_are_in_order() -> None:
    assert str(Address("192.168.1.7", 7417)) == "192.168.1.7:7417"
    assert str(Address("fe80::1%eth0", 7417)) == "[fe80::1%eth0]:7417"
    assert sorted([Address("b", 1), Address("a", 2), Address("a", 1)])[0] == Address("a", 1)


def test_a_slice_without_ends_is_all_of_a_layer() -> None:
    assert WHOLE.whole and SHARD.slice is WHOLE
    assert not Slice(ffn_start=0, ffn_end=4).whole


@pytest.mark.parametrize(("dtype", "shape", "n_bytes"), [("f32", (2, 3), 24), ("f16", (2, 3), 12), ("i32", (), 4)])
def test_a_tensor_knows_how_long_its_frame_is(dtype: str, shape: tuple[int, ...], n_bytes: int) -> None:
    assert TensorInfo(dtype, shape).n_bytes == n_bytes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    [
        Version(limits.MAX_VERSION + 1, 0),
        Address("host", 0),
        Address("h" * (limits.MAX_HOST_BYTES + 1), 1),
        Sampling(temperature=limits.MAX_TEMPERATURE * 1.01),
        Sampling(presence_penalty=-limits.MAX_PENALTY * 1.01),
        Sampling(seed=-1),
        Sampling(seed=2**64),
        TensorInfo("f32", (1,) * (limits.MAX_TENSOR_DIMS + 1)),
        TensorInfo("f64", (1,)),  # type: ignore[arg-type]
        Placement(MODEL, 1, ANN, 0, "f16", (SHARD,) * (limits.MAX_SHARDS + 1)),
    ],
)
def test_what_is_beyond_a_limit_does_not_travel(record: Version) -> None:
    with pytest.raises(Violation):
        pack(record)


def test_the_largest_seed_travels() -> None:
    sampling = Sampling(seed=2**64 - 1)
    assert unpack(Sampling, pack(sampling)) == sampling


def test_records_are_values() -> None:
    with pytest.raises(AttributeError):
        WHOLE.head_end = 3  # type: ignore[misc]
    assert {Version(1, 0): "one"}[Version(1, 0)] == "one"
