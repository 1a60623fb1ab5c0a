"""`swarm chat`: talk with a model, on a terminal or through a pipe."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from swarm.cli import answers, loading, options, prompt, slash
from swarm.cli.conversation import Conversation
from swarm.cli.terminal import DIM, RED, note, paint
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams

HELP = "Talk with a model. Type a question and press Enter; /help lists what else there is."
EXAMPLES = """\
  swarm chat                              the default model, fetched on first use
  swarm chat ./GLM-4-9B.Q4_K_M.gguf       a model file of yours
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
    ) -> None:
        self.model = model
        self.model_name = model_name
        self.context = context
        self.params = params
        self.max_tokens = max_tokens
        self.interactive = interactive
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
        generation = self.model.chat(
            before.messages(question),
            max_tokens=self.max_tokens,
            params=self.params,
            thinking=self.thinking,
            progress=answers.ReadingNote(sys.stdout) if self.interactive else None,
        )
        answer = answers.show_answer(generation, sys.stdout, stoppable=self.interactive)
        self.conversation = before.answered(question, answer.text)
        self.last = answer
        self.total_tokens += answer.stats.generated_tokens
        self.total_s += time.monotonic() - started
        self.remark(answer)

    def remark(self, answer: answers.Answer) -> None:
        """The dim line after an answer."""
        ending = ENDINGS.get(answer.finish_reason or "", "")
        note(f"[{ending}{answers.figures(answer)}]")
        if self.interactive:
            print()

    def say(self, text: str) -> None:
        """A word of the chat itself, not of the model."""
        print(paint(text, DIM))

    def complain(self, text: str) -> None:
        """One line about what went wrong in this turn."""
        print(paint(f"swarm: {' '.join(text.split())}", RED, sys.stderr), file=sys.stderr, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_sampling(parser)
    options.add_engine(parser)


def run(args: argparse.Namespace) -> int:
    settings = options.settings_of(args)
    path = loading.find_model(args.model, settings)
    interactive = answers.is_interactive()
    model = loading.load_model(path, settings)
    chat = Chat(
        model,
        model_name=path.name,
        context=model.context,
        params=options.sampling_of(args),
        max_tokens=args.max_tokens,
        system=args.system or "",
        interactive=interactive,
    )
    if interactive:
        chat.say(f"{path.name}. Type a question; /help for more, Ctrl-D to leave.")
    chat.loop(prompt.terminal_reader() if interactive else prompt.pipe_reader())
    return 0
