"""`swarm top`: the swarm in the terminal, as it changes, until q."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from swarm import config
from swarm.cli import local, status
from swarm.cli.remote import events_of
from swarm.cli.terminal import harmless
from swarm.errors import ConfigError
from swarm.units import rate_text, size_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

HELP = "Watch the swarm: what each device holds and does, answers in progress, and what happens. q leaves."
EXAMPLES = """\
  swarm top
  swarm top --home /srv/swarm      of one of several nodes
"""
LOOK_S = 0.25  # between two looks at the keyboard and the terminal's size
SILENCE_S = 12.0  # the node writes at least a comment every five seconds
AGAIN_S = 1.0  # until a node that does not answer is asked again
HISTORY = 120  # rates that the curve can show
BAR_CELLS = 8
NAME_CELLS = 12  # of a model's name, where several are held
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"
FIXED_LINES = 7  # title, curve, head of the table, lines around it, foot
COLUMNS = ("device", "state", "layers", "memory", "used", "busy", "link", "reads", "tok/s")
WIDE = 100  # cells; fewer do not hold all columns
View = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    node = local.need(config.load({"home": args.home}))
    if not (sys.stdin.isatty() and sys.stdout.isatty() and config.moves_cursor()):
        raise ConfigError("swarm top needs a terminal; `swarm status` shows the same once")
    from rich.console import Console
    from rich.live import Live

    watch, rates = Watch(node), deque[float](maxlen=HISTORY)
    console = Console()
    seen: View | None = None
    with watch, keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            if watch.view is not seen and watch.view is not None:
                rates.append(rate_of(watch.view))
            seen = watch.view
            live.update(screen(seen, rates, console.width, console.height), refresh=True)
            if pressed(LOOK_S) in ("q", "Q", "\x1b"):
                return 0


class Watch:
    """Hears the state from the node on a thread of its own; `view` is the newest, None while it does not answer."""

    def __init__(self, node: local.LocalNode) -> None:
        self.view: View | None = None
        self._node = node
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="swarm-top", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exit_: object) -> None:
        self._ended.set()

    def _listen(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._hear()
            self.view = None
            self._ended.wait(AGAIN_S)

    def _hear(self) -> None:
        connection = self._node.connect(SILENCE_S)
        try:
            connection.request("GET", "/swarm/events", headers=self._node.headers)
            for event, value in events_of(connection.getresponse()):
                if self._ended.is_set():
                    return
                if event == "state":
                    self.view = value
        finally:
            connection.close()


@contextlib.contextmanager
def keys() -> Iterator[Any]:
    """A function that waits so long for a key and returns it, or nothing; keys are not shown meanwhile."""
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([file], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def screen(view: View | None, rates: deque[float], width: int, height: int) -> Group:
    """All that is shown, as many lines as there are."""
    from rich.console import Group
    from rich.text import Text

    if view is None:
        return Group(Text("the node on this device does not answer; trying again (q leaves)", "red"))
    there = [device for device in view["devices"] if device["health"] != "lost"]
    devices = f"{len(there)} device{'s' if len(there) != 1 else ''}"
    rate = f"{rates[-1] if rates else 0:.1f} tok/s"
    title = Text.assemble(("swarm", "bold yellow"), f"  {harmless(view['name'])}  {devices}  {rate}")
    answers = [Text(line) for line in answer_lines(view)]
    rows = sum(max(len(device.get("shards") or ()), 1) for device in view["devices"])
    left = max(height - FIXED_LINES - rows - len(answers), 0)
    events = status.event_lines(view, left) if left else []
    for line in (title, *answers, *events):
        line.truncate(width, overflow="ellipsis")
    return Group(
        title, Text(curve(list(rates), width), "yellow"), table(view, width), *answers, *events, Text("q leaves", "dim")
    )


def table(view: View, width: int) -> Table:
    """The devices; where there is little room, without what tells least."""
    from rich import box
    from rich.table import Table

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=False)
    dropped = () if width >= WIDE else ("used", "reads")
    for column in COLUMNS:
        if column not in dropped:
            is_number = column in ("used", "link", "reads", "tok/s")
            out.add_column(column, justify="right" if is_number else "left", no_wrap=True, min_width=len(column))
    names = {model: shortened(name) for model, name in status.names_of(view).items()}
    for device in view["devices"]:
        cells = [cell for column, cell in zip(COLUMNS, row(device, names), strict=True) if column not in dropped]
        out.add_row(*cells, style="dim" if device["health"] == "lost" else "")
    return out


def shortened(name: str) -> str:
    """A model's name beside its layers."""
    return name if len(name) <= NAME_CELLS else name[: NAME_CELLS - 1] + "…"


def row(device: View, names: dict[str, str]) -> list[str]:
    """One device; `names` as for `status.row`."""
    name, state, layers, _, link, _, _, rate = status.row(device, names)
    if device["health"] == "lost":
        return [name, state, *[""] * 7]
    caps, now = device.get("capabilities"), device["state"]
    total = caps["memory_bytes"] if caps else 0
    used = max(total - now["memory_free_bytes"], 0)
    reads = rate_text(caps["read_bytes_per_s"]) if caps else ""
    memory = bar(used / total) if total else ""
    return [name, state, layers, memory, size_text(used) if total else "", bar(now["busy"]), link, reads, rate]


def answer_lines(view: View) -> list[str]:
    """Answers in progress."""
    lines = []
    for chat in view["chats"]:
        if chat["phase"] != "resting":
            who = " > ".join(harmless(name) for name in chat["devices"]) or "no device yet"
            lines.append(f"answer {chat['phase']}: {chat['tokens']} tokens on {who} {chat['notice']}".rstrip())
    return lines


def rate_of(view: View) -> float:
    """Tokens per second of the swarm: each token passes every device of a pipeline, so the fastest one has them all."""
    return max(
        (device["state"]["tokens_per_s"] for device in view["devices"] if device["health"] != "lost"), default=0.0
    )


def bar(share: float) -> str:
    """A bar of BAR_CELLS cells, in eighths of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * 8 * BAR_CELLS)
    full, rest = divmod(eighths, 8)
    return (EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")).ljust(BAR_CELLS, "·")


def curve(rates: list[float], width: int) -> str:
    """The last rates, the newest at the right, each as high as its share of the highest."""
    shown = rates[-max(width - 1, 1) :]
    highest = max(shown, default=0.0)
    return "".join(HEIGHTS[round(rate / highest * (len(HEIGHTS) - 1))] if highest else HEIGHTS[0] for rate in shown)
