"""The `swarm` command: pick the subcommand, run it, and turn every failure into one line and an exit code."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import keyword
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import swarm
from swarm import config
from swarm.cli.terminal import end_line
from swarm.errors import ConfigError, SwarmError
from swarm.plain import visible

atexit.register(gc.freeze)  # nobody looks through what ends for garbage: 15 ms of `swarm run`
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h

# Each command is a module of the same name (module_of) with HELP, EXAMPLES, add_arguments(parser) and run(args), which
# returns the exit code.
# Only the module of the command in hand is imported: `swarm --help` must feel instant on a Pi.
COMMANDS = {
    "chat": "talk with a model",
    "run": "answer one prompt, for scripts and pipes",
    "pull": "fetch a model, by its name or from the hub",
    "list": "the models here and in the swarm, and where each lies",
    "rm": "delete a model from this device, or everywhere",
    "verify": "compare the models here with what came",
    "import": "copy models from a folder or a stick",
    "show": "what a model is, and whether it fits here",
    "convert": "make a model file from a checkpoint",
    "quantize": "make a smaller file of a model",
    "bench": "how fast a model runs here, or in the swarm",
    "join": "let this device take part in a swarm",
    "serve": "let other devices of the house use the API",
    "invite": "show a code that lets another device in",
    "status": "the devices of the swarm and what they do",
    "top": "watch the swarm in the terminal",
    "page": "open the page for chatting and looking at the swarm",
    "plan": "where a model would run, how fast, and why",
    "leave": "end this device's part in the swarm for now",
    "forget": "drop the swarm's keys from this device, and what it kept of conversations",
    "rekey": "give the swarm a new key, to shut a lost device out",
    "service": "start this device's part at boot, and keep it up",
    "logs": "what the node on this device said",
    "doctor": "check this device and say what is wrong",
}

TOP_HELP = """\
Swarm runs a large language model on the small devices you already have: CPU only, no account, nothing leaves home.

usage: swarm COMMAND [options]

commands:
{commands}

examples:
  swarm chat                         talk with a small model that is fetched on first use (94 MiB)
  swarm chat ./GLM-4-9B.Q4_K_M.gguf  talk with a model file of yours
  swarm pull glm-4-9b                fetch a model; `swarm pull` alone lists names
  swarm run smollm2-135m "Why is the sky blue?"
  swarm join                         run large models together with your other devices
  swarm doctor                       is this device ready?

`swarm COMMAND --help` tells more of each. `swarm --version` prints the version.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are errors of ours: one line, no usage dump."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (try `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Never lets a traceback out unless SWARM_DEBUG=1."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    config.spare_blas_threads()
    _mend_streams()
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader of our output has gone: `swarm run ... | head -1`
        return EXIT_BROKEN_PIPE
    except Exception as error:  # the last place that can still speak plainly to the user
        if isinstance(error, OSError):
            _drop_output()
        return fail(error, *explanation(error))


def explanation(error: Exception) -> tuple[str, int]:
    """One line for the user, and the exit code."""
    if isinstance(error, SwarmError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}", 1
    if isinstance(error, MemoryError):
        return "this device has too little free memory for that; close something or use a smaller model", 1
    detail = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"a bug in Swarm: {detail} (SWARM_DEBUG=1 shows where; please report it)", EXIT_BUG


def dispatch(arguments: list[str]) -> int:
    """Run the command that `arguments` name; usage errors raise ConfigError."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(top_help(), end="")
        return 0 if arguments else ConfigError.exit_code
    if arguments[0] in ("-V", "--version", "version"):
        print(f"swarm {swarm.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise ConfigError(_unknown_command(name))
    gc.disable()  # importing makes many objects and no garbage
    try:
        module = module_of(name)
    finally:
        gc.freeze()
        gc.enable()
    args = build_parser(name, module).parse_intermixed_args(rest)
    code = module.run(args)
    assert isinstance(code, int)
    return code


def module_of(name: str) -> ModuleType:
    """The module of a command; `import` is a word of Python, and has a line behind it."""
    return import_module(f"swarm.cli.{name}_" if keyword.iskeyword(name) else f"swarm.cli.{name}")


def build_parser(name: str, module: ModuleType) -> Parser:
    """The parser of one command, with its help text and examples."""
    parser = Parser(
        prog=f"swarm {name}",
        description=module.HELP,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def top_help() -> str:
    """What `swarm --help` prints."""
    width = max(map(len, COMMANDS))
    return TOP_HELP.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()))


def fail(error: BaseException, text: str, code: int) -> int:
    """Print one line about `error` on standard error, and the traceback when asked; return `code`."""
    if config.debug():
        import traceback

        traceback.print_exception(error)
    end_line()
    print(f"swarm: {visible(text)}", file=sys.stderr)
    return code


def _mend_streams() -> None:
    """What is no text, or not in the terminal's alphabet, becomes question marks; a closed stream, the null device."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _drop_output() -> None:
    """Let what is still buffered go nowhere: the interpreter would complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _unknown_command(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    guess = f"did you mean `swarm {close[0]}`?" if close else f"there are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {guess} (try `swarm --help`)"
