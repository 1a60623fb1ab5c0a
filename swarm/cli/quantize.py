"""`swarm quantize`: a model file in a smaller type."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from swarm import config
from swarm.cli import loading
from swarm.cli.progress import ProgressBar
from swarm.cores import default_threads
from swarm.units import size_text, time_text

HELP = (
    "Make a smaller file of a model: Q8_0 loses next to nothing, Q4_K_M is a quarter of F16, Q4_0 the fastest on old "
    "devices. A run that was stopped goes on where it was."
)
EXAMPLES = """\
  swarm quantize ./Model-F16.gguf Q4_K_M           writes ./Model-Q4_K_M.gguf
  swarm quantize ./Model-BF16.gguf Q8_0 -o /mnt/usb/Model-Q8_0.gguf
"""
_TYPE_IN_NAME = re.compile(r"[-._](?:I?Q\d\w*|B?F16|F32|MXFP4)(?:-\d{5}-of-\d{5})?$", re.IGNORECASE)
TYPES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a GGUF file in F32, F16, BF16 or Q8_0, or any model's name")
    add_type(parser)
    parser.add_argument("--again", action="store_true", help="also from a file that was rounded to few bits before")
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def add_type(parser: argparse.ArgumentParser) -> None:
    """The options that `convert` has, too."""
    parser.add_argument("type", metavar="TYPE", choices=TYPES, help=", ".join(TYPES))
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="the file to write")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="how many cores work (default: all)")


def run(args: argparse.Namespace) -> int:
    """Write the file, and say how large it became."""
    from swarm.convert.requantize import quantize_model
    from swarm.store.gguf import open_gguf

    source = loading.find_model(args.model, config.load({"home": args.home}))
    path = args.output or source.with_name(f"{stem_of(source)}-{args.type}.gguf")
    started = time.monotonic()
    with open_gguf(source) as model, ProgressBar() as bar:
        found = quantize_model(
            model,
            args.type,
            path,
            again=args.again,
            threads=args.threads or default_threads(),
            progress=lambda done, total: bar(f"Writing {path.name}", done, total),
        )
    report(path, found, started)
    return 0


def stem_of(path: Path) -> str:
    """A model's name without the type that its file says."""
    return _TYPE_IN_NAME.sub("", path.stem) or path.stem


def report(path: Path, found: int, started: float) -> None:
    """Say what was written."""
    kept = f"; {size_text(found)} of it was there from before" if found else ""
    print(f"{path}: {size_text(path.stat().st_size)} in {time_text(time.monotonic() - started)}{kept}")
