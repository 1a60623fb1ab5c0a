"""`swarm chat`: talk with a model, on a terminal or through a pipe."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.cli import answers, last_chat, loading, options, prompt, slash
from swarm.cli.conversation import Conversation
from swarm.cli.last_chat import KeepChat, LastChat, Pending
from swarm.cli.terminal import DIM, RED, WrappedLine, columns, note, paint
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams

HELP = "Talk with a model. Type a question and press Enter; /help lists what else there is."
EXAMPLES = """\
  swarm chat                              the default model, fetched on first use
  swarm chat ./GLM-4-9B.Q4_K_M.gguf       a model file of yours
  swarm chat --continue                   go on with the last one
  swarm chat --temp 0 --seed 1            the same answers every time
  echo "Why is the sky blue?" | swarm chat
"""

# What the line after an answer says when the model did not end it by itself.
ENDINGS = {
    "cancelled": "stopped; ",
    "length": "cut short by --max-tokens; ",
    "context": "the context is full, /clear starts anew; ",
}


class Chat:
    """One conversation with one model; the commands of /help change it."""

    def __init__(
        self,
        model: answers.ChatModel,
        *,
        model_name: str,
        context: int,
        params: SamplingParams,
        max_tokens: int | None = None,
        system: str = "",
        interactive: bool = False,
        keep: KeepChat = last_chat.keep_nothing,
    ) -> None:
        self.model = model
        self.model_name = model_name
        self.context = context
        self.params = params
        self.max_tokens = max_tokens
        self.interactive = interactive
        self.keep = keep
        self.conversation = Conversation(system)
        self.thinking: bool | None = None
        self.last: answers.Answer | None = None
        self.total_tokens = 0
        self.total_s = 0.0

    def loop(self, read: prompt.Reader) -> None:
        """Read and answer until the end of input; an error of one turn does not end the chat."""
        while True:
            try:
                line = read()
            except KeyboardInterrupt:
                self.say("(Ctrl-D or /exit leaves)")
                continue
            except EOFError:
                return
            try:
                self.handle(line)
            except EOFError:
                return
            except SwarmError as error:
                self.complain(str(error))

    def handle(self, line: str) -> None:
        """Answer a question or perform a command; two slashes say one to the model."""
        if not line.strip():
            return
        if line.startswith("/") and not line.startswith("//"):
            slash.perform(self, line)
        else:
            self.answer(line.removeprefix("/") if line.startswith("//") else line, self.conversation)

    def answer(self, question: str, before: Conversation) -> None:
        """Ask `question` after `before`, show the answer, and take both into the conversation."""
        started = time.monotonic()
        # With its seed the same answer can be given again, should it be cut off.
        params = self.params.seeded()
        self.keep(before, self.model_name, Pending(question, params, self.max_tokens, self.thinking))
        generation = self.model.chat(
            before.messages(question),
            max_tokens=self.max_tokens,
            params=params,
            thinking=self.thinking,
            progress=answers.ReadingNote(sys.stdout) if self.interactive else None,
        )
        answer = answers.show_answer(generation, sys.stdout, stoppable=self.interactive)
        self.conversation = before.answered(question, answer.text)
        self.keep(self.conversation, self.model_name, None)
        self.last = answer
        self.total_tokens += answer.stats.generated_tokens
        self.total_s += time.monotonic() - started
        self.remark(answer)

    def go_on(self, last: LastChat) -> None:
        """Take up a conversation; an answer that was cut off is given again, the same text."""
        self.conversation = last.conversation
        if last.conversation.turns:
            turn = last.conversation.turns[-1]
            self.say(f"> {turn.user}\n{turn.answer}")
        pending = last.pending
        if pending is not None:
            self.say(f"> {pending.question}")
            usual = (self.params, self.max_tokens, self.thinking)
            self.params, self.max_tokens, self.thinking = pending.params, pending.max_tokens, pending.thinking
            try:
                self.answer(pending.question, self.conversation)
            finally:
                self.params, self.max_tokens, self.thinking = usual

    def remark(self, answer: answers.Answer) -> None:
        """The dim line after an answer."""
        ending = ENDINGS.get(answer.finish_reason or "", "")
        note(f"[{ending}{answers.figures(answer)}]")
        if self.interactive:
            print()

    def say(self, text: str) -> None:
        """A word of the chat itself, not of the model."""
        print(paint(WrappedLine().fit(text, columns(sys.stdout)), DIM))

    def complain(self, text: str) -> None:
        """One line about what went wrong in this turn."""
        print(paint(f"swarm: {' '.join(text.split())}", RED, sys.stderr), file=sys.stderr, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_sampling(parser)
    options.add_engine(parser)
    options.add_alone(parser)
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on with the last chat, also one that was cut off"
    )


def run(args: argparse.Namespace) -> int:
    settings = options.settings_of(args)
    last = last_chat.read() if args.go_on else None
    interactive = answers.is_interactive()
    model, where = loading.open_model(args, settings)
    name = Path(where).name
    chat = Chat(
        model,
        model_name=name,
        context=model.context,
        params=options.sampling_of(args),
        max_tokens=args.max_tokens,
        system=args.system or "",
        interactive=interactive,
        keep=last_chat.keep,
    )
    if interactive:
        chat.say(f"{name}. Type a question; /help for more, Ctrl-D to leave.")
    if last is not None:
        chat.go_on(last)
    chat.loop(prompt.terminal_reader() if interactive else prompt.pipe_reader())
    return 0
