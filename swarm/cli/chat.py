"""`swarm chat`: talk with a model, on a terminal or through a pipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from swarm.cli import answers, last_chat, loading, options, prompt, slash
from swarm.cli.chat_loop import Chat

HELP = "Talk with a model. Type a question and press Enter; /help lists what else there is."
EXAMPLES = """\
  swarm chat                              the default model, fetched on first use
  swarm chat ./GLM-4-9B.Q4_K_M.gguf       a model file of yours
  swarm chat --continue                   go on with the last one
  swarm chat --temp 0 --seed 1            the same answers every time
  swarm chat --no-history                 nothing of it is kept on this device
  echo "Why is the sky blue?" | swarm chat
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_sampling(parser)
    options.add_engine(parser)
    options.add_alone(parser)
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on with the last chat, also one that was cut off"
    )
    parser.add_argument("--no-history", action="store_true", help="keep neither what is asked nor the last chat")


def run(args: argparse.Namespace) -> int:
    settings = options.settings_of(args)
    last = last_chat.read() if args.go_on else None
    interactive = answers.is_interactive()
    model, where = loading.open_model(args, settings)
    name = Path(where).name

    def open_other(model_name: str) -> tuple[answers.ChatModel, str, int]:
        other, where = loading.open_model(argparse.Namespace(**{**vars(args), "model": model_name}), settings)
        return other, where, other.context

    chat = Chat(
        model,
        model_name=name,
        context=model.context,
        params=options.sampling_of(args),
        max_tokens=args.max_tokens,
        system=args.system or "",
        interactive=interactive,
        keep=last_chat.keep,
        perform=slash.perform,
        open_model=open_other,
    )
    chat.remembers = not args.no_history
    if interactive:
        chat.say(f"{name}. Type a question; /help for more, Ctrl-D to leave.")
    if last is not None:
        chat.go_on(last)
    if not interactive:
        chat.loop(prompt.pipe_reader())
        return int(chat.has_failed)
    chat.loop(prompt.terminal_reader(slash.COMMANDS, lambda: chat.remembers))
    return 0
