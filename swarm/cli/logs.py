"""`swarm logs`: what the node of this device said: a service's in the journal, a background node's in its file."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import TextIO

from swarm import config
from swarm.cli import options
from swarm.cli.systemd import Manager, installed
from swarm.cli.terminal import harmless
from swarm.errors import ConfigError
from swarm.files import PRIVATE
from swarm.limits import MAX_LOG_BYTES
from swarm.node.home import Home

HELP = "Show what the node on this device said: who came and went, what was fetched, what went wrong."
EXAMPLES = """\
  swarm logs
  swarm logs -f            go on until Ctrl-C
  swarm logs -n 1000
"""
LOOK_S = 0.5
STDERR = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on showing it until Ctrl-C")
    parser.add_argument("-n", "--lines", metavar="N", type=options.whole(0, 1_000_000), default=100, help="the last N")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = config.load({"home": args.home})
    return show(settings, installed() if args.home is None else None, args.lines, follow=args.follow)


def show(settings: config.Settings, manager: Manager | None, n_lines: int, *, follow: bool) -> int:
    """The journal of a service where there is one, else the file of a node in the background."""
    if manager is not None and manager.is_installed:
        sys.stdout.flush()
        command = manager.journal_command(n_lines, follow=follow)
        os.execvp(command[0], command)
    path = Home(settings.home_path).log_file
    if not path.exists():
        raise ConfigError(
            "no node has run here in the background; one in the foreground writes its log into its window "
            "(`swarm join --background` and `swarm service install` keep theirs)"
        )
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=n_lines):
            sys.stdout.write(harmless(line))
        sys.stdout.flush()
        if follow:
            follow_file(file, path, sys.stdout)
    return 0


def follow_file(file: TextIO, path: Path, out: TextIO) -> None:
    """Write what is added to a log, also after it was begun anew; until Ctrl-C."""
    while True:
        text = file.read()
        if text:
            out.write(harmless(text))
            out.flush()
        elif not was_replaced(file, path):
            time.sleep(LOOK_S)
        else:
            with path.open(encoding="utf-8", errors="replace") as newer:
                return follow_file(newer, path, out)


def set_aside(path: Path) -> None:
    """Keep the log of the run before, under another name."""
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(f"{path.name}.1"))


def keep_short(path: Path) -> None:
    """Go on in a new file when this process's standard error is the log `path` and that has grown long."""
    with contextlib.suppress(OSError):
        there, ours = path.stat(), os.fstat(STDERR)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or there.st_size <= MAX_LOG_BYTES:
            return
        set_aside(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
        for stream in (1, STDERR):
            os.dup2(descriptor, stream)
        os.close(descriptor)


def was_replaced(file: TextIO, path: Path) -> bool:
    """True when another file has the name, or the same one was emptied."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    then = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_size < file.tell()
