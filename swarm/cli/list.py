"""`swarm list`: the models that are here and in the swarm, how large they are, and where each lies."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarm import config
from swarm.cli import local
from swarm.cli.terminal import harmless
from swarm.units import part_text, size_text

HELP = "List the models of this device and of its swarm: size, where each lies, where it came from, what is on its way."
EXAMPLES = """\
  swarm list
  swarm list --json           for scripts
"""


@dataclass
class Row:
    """One model."""

    name: str
    n_bytes: int
    path: str = ""  # on this device, as a file
    origin: str = ""
    kept_bytes: int | None = None  # of a download that was cut off
    whole_on: list[str] = field(default_factory=list)  # devices that have all of it, beside a file here
    part_on: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    rows = collect(settings)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print("\n".join(lines(rows, settings.models_path)))
    return 0


def collect(settings: config.Settings) -> list[Row]:
    """All models that are known here, those of the swarm included where a node runs."""
    from swarm.store import shelf

    folder = settings.models_path
    rows = [
        Row(model.name, model.n_bytes, path=str(model.path), origin=str(model.origin or ""))
        for model in shelf.kept(folder)
    ]
    rows += [Row(model.name, model.n_bytes, kept_bytes=model.kept_bytes) for model in shelf.coming(folder)]
    node = local.find(settings)
    if node is not None:
        add_swarm(rows, node.get("/swarm/status"), node.get("/swarm/files"))
    return rows


def add_swarm(rows: list[Row], status: dict[str, Any], files: dict[str, Any]) -> None:
    """What the devices of the swarm have: of models that are files here too, and of others."""
    by_path = {str(Path(row.path).resolve()): row for row in rows if row.path}
    of_model = {model: by_path[path] for model, path in files["files"].items() if path in by_path}
    for device in status["devices"]:
        for holding in device.get("models", []) if device["health"] in ("here", "alive") else []:
            if not holding["n_have"]:
                continue
            row = of_model.get(holding["model"])
            if row is None:
                row = of_model[holding["model"]] = Row(files["names"].get(holding["model"], holding["name"]), 0)
                rows.append(row)
            row.n_bytes = row.n_bytes or holding["total_bytes"]
            is_whole = holding["n_have"] == holding["n_chunks"]
            (row.whole_on if is_whole else row.part_on).append(device["name"])


def lines(rows: list[Row], folder: Path) -> list[str]:
    """The list as a person reads it."""
    if not rows:
        return [f"there is no model in {folder} yet; `swarm pull` lists what can be fetched"]
    width = max(len(harmless(row.name)) for row in rows)
    return [f"{harmless(row.name):<{width}}  {size_text(row.n_bytes):>8}  {_where(row)}" for row in rows]


def _where(row: Row) -> str:
    if row.kept_bytes is not None:
        return f"on its way: {part_text(row.kept_bytes, row.n_bytes)} have come; the same `swarm pull` goes on"
    where = [row.path] if row.path else []
    if row.whole_on:
        devices = f"{len(row.whole_on)} device{'s' if len(row.whole_on) > 1 else ''}"
        where.append(f"whole on {devices}: {', '.join(row.whole_on)}")
    if row.part_on:
        where.append(f"parts on {', '.join(row.part_on)}")
    where += [f"from {row.origin}"] if row.origin else []
    return harmless("; ".join(where))
