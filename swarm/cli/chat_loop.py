"""A chat: questions are read and answered until the input ends; what begins with a slash is a command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from swarm.cli import answers, last_chat
from swarm.cli.conversation import Conversation, with_files
from swarm.cli.last_chat import KeepChat, LastChat, Pending
from swarm.cli.terminal import DIM, RED, WrappedLine, columns, note, paint, wrapped
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams

# What the line after an answer says when the model did not end it by itself.
ENDINGS = {
    "cancelled": "stopped; ",
    "length": "cut short by --max-tokens; ",
    "context": "the context is full, /clear starts anew; ",
}


PerformCommand = Callable[["Chat", str], None]  # the line with its slash
OpenModel = Callable[[str], tuple[answers.ChatModel, str, int]]  # by name: the model, what it is called, its context


class Chat:
    """One conversation with one model; commands change it."""

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
        perform: PerformCommand | None = None,
        open_model: OpenModel | None = None,
    ) -> None:
        """`keep` is told after every turn; `perform` does what a line with a slash says: without it there are none.

        `open_model` is for changing to another model.
        """
        self.model = model
        self.model_name = model_name
        self.context = context
        self.params = self.first_params = params
        self.max_tokens = self.first_max_tokens = max_tokens
        self.interactive = interactive
        self.keep = keep
        self.perform = perform
        self.open_model = open_model
        self.remembers = True  # what is asked and answered, in files of this device
        self.files: list[tuple[str, str]] = []  # name and text, that go with the next question
        self.has_failed = False
        self.conversation = Conversation(system)
        self.thinking: bool | None = None
        self.last: answers.Answered | None = None
        self.total_tokens = 0
        self.total_s = 0.0

    def loop(self, read: Callable[[], str]) -> None:
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
                self.has_failed = True
                self.complain(str(error))

    def handle(self, line: str) -> None:
        """Answer a question or perform a command; two slashes say one to the model."""
        if not line.strip():
            return
        if self.perform is not None and line.startswith("/") and not line.startswith("//"):
            self.perform(self, line)
        else:
            question = line.removeprefix("/") if line.startswith("//") else line
            self.answer(with_files(question, self.files), self.conversation)

    def answer(self, question: str, before: Conversation) -> None:
        """Ask `question` after `before`, show the answer, and take both into the conversation."""
        started = time.monotonic()
        # With its seed the same answer can be given again, should it be cut off.
        params = self.params.seeded()
        keep = self.keep if self.remembers else last_chat.keep_nothing
        keep(before, self.model_name, Pending(question, params, self.max_tokens, self.thinking))
        stream = self.model.chat(
            before.messages(question),
            max_tokens=self.max_tokens,
            params=params,
            thinking=self.thinking,
            progress=answers.ReadingNote(sys.stdout) if self.interactive else None,
        )
        answer = answers.show_answer(stream, sys.stdout, stoppable=self.interactive)
        self.conversation = before.answered(question, answer.text)
        self.files = []
        keep(self.conversation, self.model_name, None)
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

    def remark(self, answer: answers.Answered) -> None:
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
        line = wrapped(f"swarm: {' '.join(text.split())}", columns(sys.stderr))
        print(paint(line, RED, sys.stderr), file=sys.stderr, flush=True)
