"""Teams of devices that share layers: who, with which slices, and when a pipeline is better."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from random import Random

import pytest

from swarm.cluster.cost import Device, Exchange, LayerCost, LinkOf, LinkSpeed, ModelCost, StageSums, exchange_s, joint_s
from swarm.cluster.cuts import FFN, HEADS, Cuts
from swarm.cluster.explain import explain
from swarm.cluster.pipeline import Stage, is_cut
from swarm.cluster.planner import Demand, NoPlan, Plan, instead, one_more, plan
from swarm.cluster.prediction import decode_s
from swarm.cluster.teams import Terms, best_teams, cut_stage, water_fill
from swarm.units import GIB
from swarm.wire.ids import PeerId
from tests.helpers.cuts import cut

MB = 1_000_000
LAYER = LayerCost(
    116 * MB, 206 * MB, 1024, query_bytes=19 * MB, key_bytes=1 * MB, ffn_bytes=95 * MB, context_macs=2 * 32 * 128
)
GLM = ModelCost(
    "GLM-4-9B",
    (LAYER,) * 40,
    350 * MB,
    350 * MB,
    4096,
    620 * MB,
    151552,
    Cuts((32, 13696, 0, 0, 151552), (1, 64, 64, 64, 16), 2),
)
WIRED, WIFI = LinkSpeed(0.3e-3, 117e6), LinkSpeed(4e-3, 25e6)


def device(i: int, rate: float = 20e9, memory: float = 16.0, **more: object) -> Device:
    made = Device(PeerId(f"{i:032x}"), f"d{i}", int(memory * GIB), 64 * GIB, rate, 5 * rate, slices=True)
    return replace(made, **more)  # type: ignore[arg-type]


def wired(a: PeerId, b: PeerId) -> LinkSpeed:
    return WIRED


def planned(devices: list[Device], link: LinkOf = wired, **more: object) -> Plan:
    found = plan(Demand(GLM, 2048, **more), devices, link)  # type: ignore[arg-type]
    assert isinstance(found, Plan)
    return found


def test_shares_are_as_rates_up_to_what_each_holds() -> None:
    assert water_fill([2, 1, 1], [1, 1, 1]) == pytest.approx([0.5, 0.25, 0.25])
    assert water_fill([2, 1, 1], [0.2, 1, 1]) == pytest.approx([0.2, 0.4, 0.4])
    assert water_fill([8, 1, 1], [0.2, 0.3, 1]) == pytest.approx([0.2, 0.3, 0.5])
    assert water_fill([1, 1], [0.4, 0.5]) is None


def test_every_slice_fits_its_device_and_all_make_up_the_model() -> None:
    rng = Random(3)
    for _ in range(20):
        team = tuple(device(i, rng.uniform(5e9, 60e9), rng.uniform(0.9, 4)) for i in range(rng.randint(2, 8)))
        stage = cut_stage(Terms(GLM, wired, 2048, 1), team, 0, 40)
        if stage is None:
            assert sum(d.memory_bytes for d in team) < 1.5 * GLM.weight_bytes
            continue
        assert GLM.cuts is not None and GLM.cuts.are_whole([d.slice for d in stage.members])
        for member in stage.members:
            kv = GLM.sliced(member.slice).stage_kv_bytes(0, 40, 2048)
            assert GLM.stage_weight_bytes(0, 40, member.slice) + kv <= member.memory_bytes


def test_a_tight_team_fits_whatever_its_ids() -> None:
    """Nine heads of three key heads: in some orders a cut falls within a key head, whose keys are held twice then."""
    layer = LayerCost(2_216_448, 3_538_944, 768, query_bytes=414_720, key_bytes=138_240, ffn_bytes=1_658_880)
    cuts = Cuts((9, 1536, 0, 0, 49152), (1, 64, 64, 64, 16), 3)
    small = ModelCost("small", (layer,) * 30, 30 * MB, 30 * MB, 576, 28_311_552, 49152, cuts)
    for ids in permutations(range(3)):
        memories = zip(ids, (79_625_472, 56_853_248, 68_239_360), strict=True)
        team = [replace(device(i, 4e9), memory_bytes=memory) for i, memory in memories]
        by_id = tuple(sorted(team, key=lambda each: each.id))
        for context in (105, 256):  # of which the keys that are held twice are more and less
            assert cut_stage(Terms(small, wired, context, 1), by_id, 0, 30) is not None, (ids, context)


@pytest.mark.parametrize("n", [2, 3])
def test_a_team_with_a_twelfth_to_spare_fits_whatever_its_memories(n: int) -> None:
    rng = Random(n)
    layer = LayerCost(2_216_448, 3_538_944, 768, query_bytes=414_720, key_bytes=138_240, ffn_bytes=1_658_880)
    cuts = Cuts((12, 1536, 0, 0, 49152), (1, 64, 64, 64, 16), 12)
    small = ModelCost("small", (layer,) * 30, 30 * MB, 30 * MB, 576, 28_311_552, 49152, cuts)
    sums = StageSums.of(small, 0, 30)
    for _ in range(100):
        parts = [rng.uniform(0.3, 1.0) for _ in range(n)]
        rooms = [13 / 12 * sum(sums.cut_bytes(256)) * part / sum(parts) for part in parts]
        team = [device(i, rng.uniform(1e9, 20e9), (sums.whole_bytes + room) / GIB) for i, room in enumerate(rooms)]
        stage = cut_stage(Terms(small, wired, 256, 1), tuple(team), 0, 30)
        assert stage is not None, team
        assert all(sums.memory_bytes(d.slice, cuts, 256) <= d.memory_bytes for d in stage.members)


def test_the_busiest_is_within_a_tenth_of_the_mean_where_units_allow() -> None:
    rng = Random(1)
    for _ in range(20):
        team = tuple(device(i, rng.uniform(10e9, 40e9)) for i in range(rng.randint(2, 5)))
        stage = cut_stage(Terms(GLM, wired, 2048, 1), team, 0, 40)
        assert stage is not None and GLM.cuts is not None
        total = sum(d.read_bytes_per_s for d in team)
        assert max(GLM.cuts.share(d.slice, FFN) * total / d.read_bytes_per_s for d in stage.members) < 1.1
        ideal = (GLM.weight_bytes - GLM.embed_bytes) / total
        overhead = 40 * team[0].layer_s + team[0].step_s
        assert joint_s(GLM, stage, 0) < 1.2 * ideal + overhead, "there are only 32 heads"


def test_heads_of_one_key_head_stay_together_where_that_is_faster() -> None:
    stage = cut_stage(Terms(GLM, wired, 8192, 1), tuple(device(i) for i in range(3)), 0, 40)
    assert stage is not None and GLM.cuts is not None
    assert max(GLM.cuts.key_share(d.slice) for d in stage.members) <= 1.0


def test_wired_devices_share_layers_and_over_wifi_they_do_not() -> None:
    found = planned([device(i) for i in range(3)])
    (stage,) = found.stages
    assert is_cut(stage) and {shard.name for shard in stage.members} == {"d0", "d1", "d2"}
    assert found.prediction.exchange_s > 0
    over_wifi = planned([device(i) for i in range(3)], lambda a, b: WIFI)
    assert not any(map(is_cut, over_wifi.stages))


def test_a_pipeline_is_made_where_somebody_wants_one() -> None:
    assert not any(map(is_cut, planned([device(i) for i in range(3)], layout="pipeline").stages))
    assert any(map(is_cut, planned([device(i) for i in range(2)], lambda a, b: WIFI, layout="slices").stages))


def test_who_cannot_share_layers_is_not_asked_to() -> None:
    found = planned([device(0), device(1), device(2, 60e9, slices=False)])
    assert all(shard.name != "d2" for stage in found.stages if is_cut(stage) for shard in stage.members)


def test_devices_of_two_rooms_make_teams_with_a_pipeline_between() -> None:
    rooms = {f"{i:032x}": i < 3 for i in range(6)}

    def link(a: PeerId, b: PeerId) -> LinkSpeed:
        return WIRED if rooms[a] == rooms[b] else WIFI

    found = planned([device(i, memory=1.2) for i in range(6)], link)
    assert [len(stage.members) for stage in found.stages] == [3, 3]
    assert {len({rooms[shard.device] for shard in stage.members}) for stage in found.stages} == {1}


def test_a_plan_says_which_share_of_each_layer_a_device_has_and_what_another_one_would_bring() -> None:
    devices = [device(0), device(1, 10e9)]
    found = planned(devices)
    text = "\n".join(explain(found))
    assert "d0  layers 0-39 + embedding + head, 69 % of each:" in text and "d1  layers 0-39" in text
    assert "of a token is read by 2 devices, 30 GB/s together" in text
    more = one_more(found.demand, devices, wired, found)
    assert more.startswith("another device like d0 would make it ") and more.endswith(" tok/s")
    many = [device(i, 60e9) for i in range(8)]
    assert one_more(found.demand, many, wired, planned(many)) == "another device like d3 would not make it faster"


def test_a_plan_says_what_the_other_way_would_bring() -> None:
    devices = [device(0), device(1)]
    found = planned(devices)
    (text,) = instead(found.demand, devices, wired, found)
    assert text.startswith("with whole layers one after the other: ") and text.endswith(" tok/s")
    over_wifi = planned(devices, lambda a, b: WIFI)
    (text,) = instead(over_wifi.demand, devices, lambda a, b: WIFI, over_wifi)
    assert text.startswith("with a part of every layer on each: ") and "would pass in exchanges" in text
    only = planned([device(0)])
    assert instead(only.demand, [device(0)], wired, only) == []


def test_with_experts_on_disk_devices_that_share_layers_read_from_all_disks_at_once() -> None:
    expert = 20 * len(GLM.layers) * MB
    layer = replace(LAYER, ffn_bytes=0, dense_bytes=21 * MB, expert_bytes=expert, expert_share=1 / 16)
    cuts = Cuts((32, 0, 1408, 0, 151552), (1, 64, 64, 64, 16), 2)
    mixture = replace(GLM, layers=(layer,) * 40, cuts=cuts)
    devices = [device(i, memory=6.5) for i in range(4)]
    found = plan(Demand(mixture, 2048), devices, wired)
    in_a_row = plan(Demand(mixture, 2048, layout="pipeline"), devices, wired)
    assert isinstance(found, Plan) and isinstance(in_a_row, Plan)
    assert found.demand.model.resident_share < 1 and any(map(is_cut, found.stages))
    assert found.prediction.tokens_per_s > 1.5 * in_a_row.prediction.tokens_per_s


def test_more_devices_than_help_are_left_out_and_it_is_said_what_they_would_cost() -> None:
    found = planned([device(i, 60e9) for i in range(8)])
    assert 2 <= len(found.stages[0].members) < 8
    assert all("longer" in out.reason for out in found.left_out) and found.left_out


def test_a_device_follows_one_leader_only() -> None:
    devices = [device(0), device(1), device(2, led_by=PeerId(f"{1:032x}"))]
    found = planned(devices)
    (stage,) = found.stages
    assert stage.leader.name == "d1"
    elsewhere = [replace(d, led_by=PeerId("f" * 32)) for d in devices]
    assert not any(map(is_cut, planned(elsewhere).stages))


def test_a_model_that_cannot_be_cut_is_not() -> None:
    whole = replace(GLM, cuts=None)
    assert best_teams(Terms(whole, wired, 2048, 1), [device(0), device(1)], lambda stages: 0.0) is None


def test_slices_hold_what_a_pipeline_of_whole_layers_cannot() -> None:
    one = replace(GLM, layers=(replace(LAYER, dense_bytes=1160 * MB, ffn_bytes=1139 * MB),))
    devices = [device(i, memory=1.2) for i in range(2)]
    assert isinstance(plan(Demand(one, 512, layout="pipeline"), devices, wired), NoPlan)
    assert isinstance(plan(Demand(one, 512), devices, wired), Plan)


def test_an_exchange_costs_latency_wire_and_cpu() -> None:
    members = tuple(device(i, exchange=1.0) for i in range(4))
    wire_s = 3 * (4096 * 12.5 / 8 + 106) / 117e6
    assert exchange_s(members, wired, 4096) == pytest.approx(0.15e-3 + wire_s + 34e-6)
    assert exchange_s(members, wired, 4096, 256) < 256 * exchange_s(members, wired, 4096)
    with pytest.raises(ValueError, match="does not reach"):
        exchange_s(members, lambda a, b: None, 4096)


def test_a_team_reads_in_the_time_of_its_busiest_member() -> None:
    assert GLM.cuts is not None
    left, right = cut(GLM.cuts, [1, 1])
    even = Stage(0, 40, (device(0, slice=left), device(1, slice=right)))
    assert joint_s(GLM, even, 0) == pytest.approx(decode_s(GLM, [Stage(0, 40, (device(0),))], wired, 0) / 2, rel=0.05)
    slower = Stage(0, 40, (device(0, slice=left), device(1, 10e9, slice=right)))
    assert joint_s(GLM, slower, 0) == pytest.approx(2 * joint_s(GLM, even, 0), rel=0.05)
    assert GLM.cuts.share(left, HEADS) == 0.5


@pytest.mark.parametrize(
    ("way", "shares"),
    [
        (LinkSpeed(0.3e-3, 117e6, None, may_share=False), False),
        (LinkSpeed(0.3e-3, 117e6, Exchange(0.2e-3, 100e6)), True),
        (LinkSpeed(3e-3, 117e6, Exchange(0.2e-3, 100e6)), True),
        (LinkSpeed(0.3e-3, 117e6, Exchange(3e-3, 25e6)), False),
    ],
    ids=["not rehearsed", "wired", "wired, and slow to answer", "wireless"],
)
def test_a_link_is_believed_when_an_exchange_over_it_was_seen(way: LinkSpeed, shares: bool) -> None:
    found = planned([device(0), device(1)], lambda a, b: way)
    assert any(map(is_cut, found.stages)) is shares


def test_what_is_best_for_one_reader_need_not_be_for_many() -> None:
    """Over 100 mbit, sums of eight readers take long; the stages of a pipeline have a reader each meanwhile."""
    slow = LinkSpeed(0.3e-3, 12e6, Exchange(0.2e-3, 12e6))
    devices = [device(i, rate=5e9, macs_per_s=1e13) for i in range(4)]
    one, many = (planned(devices, lambda a, b: slow, sessions=n) for n in (1, 8))
    assert [len(stage.members) for stage in one.stages] == [4]
    assert [len(stage.members) for stage in many.stages] == [2, 2]
    as_one = planned(devices, lambda a, b: slow, sessions=8, layout="pipeline")
    assert many.prediction.pace > as_one.prediction.pace and many.prediction.pace > 4 * one.prediction.tokens_per_s
    assert "with 8 chats at once" in "\n".join(explain(many))


def test_several_readers_over_a_good_network_share_layers_still() -> None:
    found = planned([device(i, macs_per_s=1e13) for i in range(3)], sessions=3)
    assert any(map(is_cut, found.stages))


def test_a_tight_team_fits_only_with_the_embedding_on_the_disk() -> None:
    layer = LayerCost(2_216_448, 3_538_944, 768, query_bytes=414_720, key_bytes=138_240, ffn_bytes=1_658_880)
    cuts = Cuts((9, 1536, 0, 0, 49152), (1, 64, 64, 64, 16), 3)
    held = ModelCost("small", (layer,) * 30, 30 * MB, 30 * MB, 576, 28_311_552, 49152, cuts)
    by_row = replace(held, embed_bytes=4 * 49152, embed_stored_bytes=30 * MB)
    sums = StageSums.of(by_row, 0, 30)
    room = sums.whole_bytes + 1.2 * sum(sums.cut_bytes(256)) / 3
    team = tuple(replace(device(i, 4e9), memory_bytes=int(room)) for i in range(3))
    assert cut_stage(Terms(by_row, wired, 256, 1), team, 0, 30) is not None
    assert cut_stage(Terms(held, wired, 256, 1), team, 0, 30) is None
    assert by_row.all_stored_bytes == held.weight_bytes, "as much is fetched"
