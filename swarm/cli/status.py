"""`swarm status`: the devices of the swarm, what each holds and does."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from swarm import config
from swarm.answers import ExpertUse
from swarm.cli import local
from swarm.cli.terminal import harmless
from swarm.units import part_text, rate_text, size_text

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

HELP = "Show the devices of the swarm: what each holds, memory, links, who is busy, tokens per second."
EXAMPLES = """\
  swarm status
  swarm status --watch        until Ctrl-C
  swarm status --json         for scripts
"""
REFRESH_S = 1.0
COLUMNS = ("device", "state", "layers", "memory", "link", "speed", "busy", "tok/s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="go on showing it, once a second")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    node = local.need(config.load({"home": args.home}))
    if args.json:
        print(json.dumps(node.get("/swarm/status")))
        return 0
    from rich.console import Console

    console = Console()
    if args.watch and sys.stdout.isatty():
        return watch(node, console)
    show(console, node.get("/swarm/status"))
    return 0


def watch(node: local.LocalNode, console: Any) -> int:
    from rich.console import Group
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            view = node.get("/swarm/status")
            live.update(Group(table(view), *event_lines(view, 8)), refresh=True)
            time.sleep(REFRESH_S)


def show(console: Any, view: dict[str, Any]) -> None:
    console.print(table(view))
    for model in view["models"]:
        whole = model["n_whole"]
        where = f"whole on {whole} device{'s' if whole != 1 else ''}" if whole else "nowhere whole"
        where += survival(model.get("lost_with"), len(view["devices"]))
        console.print(f"model {harmless(model['name'])}: {size_text(model['total_bytes'])}, {where}", highlight=False)
    for chat in view["chats"]:
        if chat["phase"] != "resting":
            who = " > ".join(harmless(name) for name in chat["devices"]) or "no device yet"
            console.print(f"answer {chat['phase']}: {chat['tokens']} tokens on {who} {chat['notice']}", highlight=False)
    if view.get("experts"):
        console.print(expert_line(view["experts"]), highlight=False)
    if view["discovery"]:
        console.print(f"looking for devices: {view['discovery']}", highlight=False)
    for line in other_swarms(view):
        console.print(line, highlight=False)


def other_swarms(view: dict[str, Any]) -> list[str]:
    """How a device that is alone comes into the swarm that it hears; nothing where it hears none."""
    places = [harmless(place) for place in view.get("other_swarms", ()) if place]
    if not places:
        return []
    return [f"another swarm is on this network (at {places[0]}): to enter it, `swarm invite` there shows a CODE, "
            "and `swarm join CODE` here uses it"]  # fmt: skip


def expert_line(experts: dict[str, Any]) -> str:
    """How this device does with a model that is larger than its memory."""
    use = ExpertUse(**experts["use"])
    return (
        f"experts here: {experts['n_resident']} of {experts['n_all']} in memory ({size_text(experts['n_bytes'])}), "
        f"hits {use.hit_rate:.0%}, {size_text(use.read_bytes)} read, waited {use.wait_s:.1f} s for them"
    )


def survival(lost_with: list[str] | None, n_devices: int) -> str:
    """Whether a model is still there when any one device is gone."""
    if lost_with is None or n_devices < 2:
        return ""
    if not lost_with:
        return "; survives the loss of any one device"
    return f"; lost without {' or '.join(map(harmless, lost_with))}"


def table(view: dict[str, Any]) -> Table:
    """The devices as a table."""
    from rich import box
    from rich.table import Table

    out = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for column in COLUMNS:
        is_number = column in ("memory", "link", "speed", "busy", "tok/s")
        out.add_column(column, justify="right" if is_number else "left", no_wrap=is_number)
    names = names_of(view)
    for device in view["devices"]:
        out.add_row(*row(device, names))
    return out


def names_of(view: dict[str, Any]) -> dict[str, str]:
    """What models are called, by id; nothing where only one is held, for then it is clear whose layers are meant."""
    held = {shard.get("model", "") for device in view["devices"] for shard in device["shards"]}
    return {model["id"]: harmless(model["name"]) for model in view["models"]} if len(held) > 1 else {}


def row(device: dict[str, Any], names: dict[str, str]) -> list[str]:
    """One device: what it is called, whether it is there, what it holds, and how it does."""
    caps, state = device.get("capabilities"), device["state"]
    total = caps["memory_bytes"] if caps else 0
    used = max(total - state["memory_free_bytes"], 0)
    memory = part_text(used, total) if caps else ""
    rtt = device["rtt_s"]
    link = "here" if device["health"] == "here" else "" if rtt is None else f"{rtt * 1e3:.1f} ms"
    speed = device.get("link_bytes_per_s") or 0
    alive = device["health"] not in ("lost",)
    return [
        harmless(device["name"]),
        _state(device),
        "\n".join(_layers(shard, names) for shard in device["shards"]) if alive else "",
        memory if alive else "",
        link if alive else "",
        rate_text(speed) if speed and alive else "",
        f"{state['busy']:.0%}" if alive else "",
        f"{state['tokens_per_s']:.1f}" if alive else "",
    ]


def _state(device: dict[str, Any]) -> str:
    if device.get("excluded"):
        return harmless(device["excluded"])
    if device["health"] == "lost":
        return f"gone: {harmless(device['lost_why'])}"
    state, caps = device["state"], device.get("capabilities") or {}
    if caps.get("rests"):
        return f"rests: {harmless(caps['rests'])}"
    if state["fetching"] < 1:
        return f"fetching {state['fetching']:.0%}"
    if device["shards"] and not state["shard_ready"]:
        return "loading"
    ready = "ready" if device["shards"] else "free"
    return harmless(caps.get("condition") or ("quiet for a moment" if device["health"] == "suspect" else ready))


def _layers(shard: dict[str, Any], names: dict[str, str]) -> str:
    """What is held of a model; `names` are empty where there is only one."""
    model = shard.get("model", "")
    whose = f"{names.get(model, model[:8])}: " if names and model else ""
    share = shard.get("share", 1.0)  # of each layer; an older node shares none
    part = ", a part of each" if share is None else f", {100 * share:.0f} % of each" if share < 1.0 else ""
    return f"{whose}{'embed ' * shard['embed']}{shard['first']}-{shard['end'] - 1}{' head' * shard['head']}{part}"


def event_lines(view: dict[str, Any], n: int) -> list[Text]:
    """The last events, dim."""
    from rich.text import Text

    lines = []
    for event in view["events"][-n:]:
        at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
        words = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("at", "event"))
        lines.append(Text(harmless(f"{at} {event['event']} {words}"), "dim"))
    return lines
