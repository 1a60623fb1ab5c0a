"""`swarm convert`: a model file from a checkpoint as training leaves it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from swarm.cli.progress import ProgressBar
from swarm.cli.quantize import add_type, report
from swarm.cores import default_threads

HELP = (
    "Make a model file from a checkpoint: a folder with config.json, safetensors files and a tokenizer, as the hub has "
    "them. A run that was stopped goes on where it was."
)
EXAMPLES = """\
  swarm convert ./Qwen3-8B Q4_K_M                 writes ./Qwen3-8B-Q4_K_M.gguf
  swarm convert ./my-finetune BF16 -o tuned.gguf  as it was trained; `swarm quantize` makes smaller ones
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the checkpoint's folder")
    add_type(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, and say how large it became."""
    from swarm.convert.checkpoint import open_checkpoint
    from swarm.convert.convert import convert_checkpoint

    folder = args.folder
    checkpoint = open_checkpoint(folder)
    path = args.output or Path.cwd() / f"{folder.resolve().name}-{args.type}.gguf"
    started = time.monotonic()
    with ProgressBar() as bar:
        found = convert_checkpoint(
            checkpoint,
            args.type,
            path,
            threads=args.threads or default_threads(),
            progress=lambda done, total: bar(f"Writing {path.name}", done, total),
        )
    report(path, found, started)
    return 0
