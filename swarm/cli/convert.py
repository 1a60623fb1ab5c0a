"""`swarm convert`: a model file from a checkpoint as training leaves it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from swarm import config
from swarm.cli import pulling
from swarm.cli.progress import ProgressBar
from swarm.cli.quantize import add_type, report
from swarm.cores import default_threads

HELP = (
    "Make a model file from a checkpoint: a folder with config.json, safetensors files and a tokenizer, or such a "
    "repository of the hub. A run that was stopped goes on where it was."
)
EXAMPLES = """\
  swarm convert ./Qwen3-8B Q4_K_M                  writes ./Qwen3-8B-Q4_K_M.gguf
  swarm convert Qwen/Qwen3-8B Q4_K_M               the same, from the hub
  swarm convert ./my-finetune BF16 -o tuned.gguf   as it was trained; `swarm quantize` makes smaller ones
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or USER/REPO of the hub")
    add_type(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, and say how large it became."""
    from swarm.convert.checkpoint import open_checkpoint
    from swarm.convert.convert import convert_checkpoint

    started = time.monotonic()
    with ProgressBar() as bar:
        folder, name = folder_of(args.checkpoint, bar)
        checkpoint = open_checkpoint(folder, name)
        path = args.output or Path.cwd() / f"{name}-{args.type}.gguf"
        found = convert_checkpoint(
            checkpoint,
            args.type,
            path,
            threads=args.threads or default_threads(),
            progress=lambda done, total: bar(f"Writing {path.name}", done, total),
        )
    report(path, found, started)
    return 0


def folder_of(text: str, bar: ProgressBar) -> tuple[Path, str]:
    """The folder of a checkpoint and the name of its model; one of the hub is fetched first."""
    from swarm.store.hub_names import HubName, hub_or_web

    folder = Path(text).expanduser()
    remote = None if folder.exists() else hub_or_web(text)
    if not isinstance(remote, HubName):
        return folder, folder.resolve().name
    from swarm.convert.checkpoint import read_config
    from swarm.convert.checkpoint_keys import architecture_of
    from swarm.store.getting_checkpoint import get_checkpoint

    with pulling.web_of(bar) as web:
        models = config.load().models_path / "checkpoints"

        def judge(target: Path) -> None:
            architecture_of(read_config(target))

        return get_checkpoint(remote, models, web, bar, judge), remote.repo
