"""The table of devices."""

from __future__ import annotations

import io

from rich.console import Console

from swarm.cli.status import _layers, expert_line, other_swarms, row, show, survival

WIDTH = 80


def device(name: str, first: int, end: int, *, here: bool = False) -> dict[str, object]:
    return {
        "peer": name,
        "name": name,
        "health": "here" if here else "alive",
        "excluded": "",
        "lost_why": "",
        "rtt_s": 0.0127,
        "link_bytes_per_s": 118e6,
        "capabilities": {"memory_bytes": 12.6e9},
        "state": {
            "memory_free_bytes": 1e9,
            "busy": 0.99,
            "tokens_per_s": 10.5,
            "fetching": 1.0,
            "shard_ready": True,
        },
        "shards": [{"first": first, "end": end, "embed": first == 0, "head": end == 46, "memory_bytes": 1}],
    }


def test_a_device_takes_one_line_of_a_common_terminal() -> None:
    out = io.StringIO()
    devices = [device("raspberrypi", 0, 20, here=True), device("pi5-kitchen", 20, 33), device("old-laptop", 33, 46)]
    view = {"devices": devices, "models": [], "chats": [], "discovery": ""}
    show(Console(file=out, width=WIDTH), view)
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    assert len(lines) == 2 + len(devices), out.getvalue()
    assert "embed 0-19" in lines[2] and "here" in lines[2] and "33-45 head" in lines[4]
    assert all("10.8/11.7 GiB" in line for line in lines[2:])


def test_a_part_of_every_layer_is_shown_as_one() -> None:
    assert _layers({"first": 0, "end": 46, "embed": True, "head": True, "share": 0.377}, {}) == (
        "embed 0-45 head, 38 % of each"
    )
    assert _layers({"first": 0, "end": 46, "embed": False, "head": False, "share": None}, {}) == "0-45, a part of each"


def test_it_is_said_whether_a_model_survives_the_loss_of_a_device() -> None:
    assert survival([], 3) == "; survives the loss of any one device"
    assert survival(["pi", "box"], 3) == "; lost without pi or box"
    assert survival(None, 3) == survival([], 1) == ""


def test_a_device_that_reads_experts_from_disk_says_how_that_goes() -> None:
    use = {"hits": 81, "misses": 19, "read_bytes": 700 * 2**20, "wait_s": 12.34}
    assert expert_line({"n_resident": 1840, "n_all": 5760, "n_bytes": 5 * 2**30, "use": use}) == (
        "experts here: 1840 of 5760 in memory (5 GiB), hits 81%, 700 MiB read, waited 12.3 s for them"
    )


def test_another_swarm_on_the_network_is_told_with_the_way_in() -> None:
    assert other_swarms({"other_swarms": []}) == [] == other_swarms({})
    (line,) = other_swarms({"other_swarms": ["10.77.0.2:7417"]})
    assert line.startswith("another swarm is on this network (at 10.77.0.2:7417): to enter it, `swarm invite` there")


def test_of_several_models_it_is_said_whose_each_layer_is() -> None:
    both = device("pi", 0, 30)
    other = {**both["shards"][0], "model": "b" * 64}  # type: ignore[index]
    both["shards"] = [{**both["shards"][0], "model": "a" * 64}, other]  # type: ignore[index]
    assert row(both, {"a" * 64: "glm", "b" * 64: "qwen"})[2] == "glm: embed 0-29\nqwen: embed 0-29"
    assert row(both, {})[2] == "embed 0-29\nembed 0-29"
