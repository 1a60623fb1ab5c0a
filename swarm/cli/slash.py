"""The commands of a chat, /help to /exit: each a function of the chat and the text after it."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from swarm import config
from swarm.cli import answers, editing
from swarm.cli.conversation import Conversation, from_json
from swarm.errors import ConfigError
from swarm.files import PRIVATE, replace_file
from swarm.limits import MAX_CHAT_FILE_BYTES

if TYPE_CHECKING:
    from swarm.cli.chat_loop import Chat
    from swarm.engine.sampling import SamplingFields

Number = TypeVar("Number", int, float)
THINK = {"on": True, "off": False, "auto": None}


@dataclass(frozen=True)
class Command:
    """What to call, how it is written, and one line of help."""

    call: Callable[[Chat, str], None]
    usage: str
    help: str


def perform(chat: Chat, line: str) -> None:
    """Run the command in `line`, which starts with a slash; raise ConfigError when it makes no sense."""
    name, _, argument = line[1:].strip().partition(" ")
    command = COMMANDS.get(name.lower()) or COMMANDS.get(ALIASES.get(name.lower(), ""))
    if command is None:
        close = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
        guess = f"; did you mean /{close[0]}?" if close else ""
        raise ConfigError(f"there is no command /{name}{guess} (/help lists them; //{name} says it to the model)")
    command.call(chat, argument.strip())


def show_help(chat: Chat, argument: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        chat.say(f"  {command.usage:<{width}}  {command.help}")
    chat.say("Ctrl-C stops an answer, Ctrl-D leaves, Ctrl-Z puts the chat aside (`fg` comes back).")
    chat.say('Alt-Enter, or \\ at the end of a line, starts a new line; """ begins and ends several.')
    chat.say("Ctrl-X Ctrl-E opens your editor.")


def clear(chat: Chat, argument: str) -> None:
    chat.conversation = Conversation(chat.conversation.system)
    chat.say("a new conversation")


def system(chat: Chat, argument: str) -> None:
    if not argument:
        chat.say(chat.conversation.system or "no system text; /system TEXT sets one")
        return
    text = "" if argument == "off" else argument
    chat.conversation = replace(chat.conversation, system=text)
    chat.say("the system text is set" if text else "no system text any more")


def set_parameter(chat: Chat, argument: str) -> None:
    name, _, text = argument.replace("=", " ").partition(" ")
    if not name:
        for parameter, value in _parameters(chat).items():
            chat.say(f"  {parameter:<20} {'not set' if value is None else value}")
        return
    if name == "max_tokens":
        chat.max_tokens = chat.first_max_tokens if text.strip() in ("", "off") else _most_tokens(text.strip())
    else:
        changed: SamplingFields = {_field(chat, name): _value(chat, name, text.strip())}  # type: ignore[misc]
        chat.params = replace(chat.params, **changed)
    value = _parameters(chat)[_field(chat, name)]
    chat.say(f"{name} is {'not set' if value is None else value}")


def undo(chat: Chat, argument: str) -> None:
    chat.conversation = chat.conversation.undone()
    chat.say(f"the last question and answer are gone; {_count(len(chat.conversation.turns), 'turn')} left")


def regenerate(chat: Chat, argument: str) -> None:
    if not chat.conversation.turns:
        raise ConfigError("there is nothing to answer again")
    chat.answer(chat.conversation.turns[-1].user, chat.conversation.undone())


def save(chat: Chat, argument: str) -> None:
    path = _chat_file(argument or time.strftime("%Y-%m-%d-%H%M%S"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _load_file(path)  # only a saved chat may be written over
        replace_file(path, chat.conversation.to_json(chat.model_name).encode(), mode=PRIVATE)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error
    chat.say(f"saved to {path}")


def load(chat: Chat, argument: str) -> None:
    if not argument:
        saved = sorted(path.stem for path in _chats_folder().glob("*.json"))
        chat.say("saved chats: " + ", ".join(saved) if saved else "there are no saved chats; /save makes one")
        return
    chat.conversation = _load_file(_chat_file(argument))
    chat.say(f"loaded {_count(len(chat.conversation.turns), 'turn')}")
    if chat.conversation.turns:
        last = chat.conversation.turns[-1]
        chat.say(f"> {last.user}\n{last.answer}")


def stats(chat: Chat, argument: str) -> None:
    chat.say(f"  model      {chat.model_name}")
    chat.say(f"  talk       {_count(len(chat.conversation.turns), 'turn')}")
    if chat.last is None:
        chat.say("  answers    none yet")
        return
    held = chat.last.stats.prompt_tokens + chat.last.stats.generated_tokens
    chat.say(f"  context    {held:,} of {chat.context:,} tokens, {chat.last.stats.cached_tokens:,} of them reused")
    chat.say(f"  last       {answers.figures(chat.last)}")
    speed = f", {chat.total_tokens / chat.total_s:.3g} tok/s with waiting" if chat.total_s > 0 else ""
    chat.say(f"  in all     {_count(chat.total_tokens, 'token')}{speed}")


def think(chat: Chat, argument: str) -> None:
    if argument and argument not in THINK:
        raise ConfigError("/think on, /think off, or /think auto (as the model likes)")
    if argument:
        chat.thinking = THINK[argument]
    chat.say(f"thinking: {_thinking_name(chat)}")


def read(chat: Chat, argument: str) -> None:
    if not argument:
        raise ConfigError("/read FILE puts a text file into the next question")
    name, text = editing.read_text(argument)
    chat.files.append((name, text))
    chat.say(f"{name} ({_count(len(text), 'character')}) goes with the next question")


def edit(chat: Chat, argument: str) -> None:
    turns = chat.conversation.turns
    text = editing.edited(turns[-1].user if turns else "")
    if not text.strip() or (turns and text == turns[-1].user):
        chat.say("nothing was changed")
        return
    chat.say(f"> {text}")
    chat.answer(text, chat.conversation.undone() if turns else chat.conversation)


def change_model(chat: Chat, argument: str) -> None:
    if not argument:
        chat.say(f"{chat.model_name}; /model NAME changes to another, and the conversation stays")
        return
    if chat.open_model is None:
        raise ConfigError("this chat cannot change its model")
    chat.model, where, chat.context = chat.open_model(argument)
    chat.model_name, chat.last = Path(where).name, None
    chat.say(f"{chat.model_name}, with {chat.context:,} tokens of context")


def show(chat: Chat, argument: str) -> None:
    held = chat.last.stats.prompt_tokens + chat.last.stats.generated_tokens if chat.last is not None else 0
    chat.say(f"  model      {chat.model_name}")
    chat.say(f"  context    {held:,} of {chat.context:,} tokens, in {_count(len(chat.conversation.turns), 'turn')}")
    chat.say(f"  system     {chat.conversation.system or 'none'}")
    chat.say(f"  thinking   {_thinking_name(chat)}")
    chat.say(f"  history    {'kept' if chat.remembers else 'not kept'}")
    for name, _ in chat.files:
        chat.say(f"  file       {name}, for the next question")
    set_parameter(chat, "")


def history(chat: Chat, argument: str) -> None:
    if argument not in ("", "on", "off"):
        raise ConfigError("/history on, or /history off: whether what is asked and answered is kept on this device")
    if argument:
        chat.remembers = argument == "on"
    chat.say("history is kept" if chat.remembers else "history is not kept, from here on")


def leave(chat: Chat, argument: str) -> None:
    raise EOFError


COMMANDS = {
    "help": Command(show_help, "/help", "this list"),
    "clear": Command(clear, "/clear", "start a new conversation"),
    "system": Command(system, "/system [TEXT|off]", "show or set what the model reads first"),
    "set": Command(set_parameter, "/set [NAME VALUE]", "how tokens are chosen, as in /set temp 0.7"),
    "read": Command(read, "/read FILE", "put a text file into the next question"),
    "edit": Command(edit, "/edit", "change the last question in your editor, and ask it"),
    "undo": Command(undo, "/undo", "take back the last question and its answer"),
    "regen": Command(regenerate, "/regen", "answer the last question again"),
    "save": Command(save, "/save [NAME]", "keep the conversation in a file"),
    "load": Command(load, "/load [NAME]", "go on with a saved one; without a name, list them"),
    "model": Command(change_model, "/model [NAME]", "change to another model; the talk stays"),
    "show": Command(show, "/show", "the model, and how it is asked"),
    "history": Command(history, "/history [on|off]", "whether this chat is kept on this device"),
    "stats": Command(stats, "/stats", "tokens, speed, and how full the context is"),
    "think": Command(think, "/think [on|off|auto]", "whether a model that can think does so first"),
    "exit": Command(leave, "/exit", "leave"),
}
ALIASES = {"quit": "exit", "bye": "exit", "q": "exit", "?": "help", "h": "help", "new": "clear", "retry": "regen"}
SHORT_NAMES = {"temp": "temperature"}
FOR_PROGRAMS = ("logit_bias", "n_told")  # of SamplingParams: nothing that a person sets by a number


def _thinking_name(chat: Chat) -> str:
    return next(name for name, value in THINK.items() if value is chat.thinking)


def _parameters(chat: Chat) -> dict[str, object]:
    names = [field.name for field in fields(chat.params) if field.name not in FOR_PROGRAMS]
    values = {name: getattr(chat.params, name) for name in names}
    return {**values, "max_tokens": chat.max_tokens}


def _field(chat: Chat, name: str) -> str:
    name = SHORT_NAMES.get(name, name)
    if name not in _parameters(chat):
        raise ConfigError(f"there is no {name!r} to set; there are {', '.join(_parameters(chat))}")
    return name


def _value(chat: Chat, name: str, text: str) -> float | int | None:
    name = _field(chat, name)
    default = getattr(type(chat.params)(), name)
    if text == "off":  # as the chat began
        return getattr(chat.first_params, name)  # type: ignore[no-any-return]  # each field is a number or None
    return _number(name, text, float if isinstance(default, float) else int)


def _number(name: str, text: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"/set {name} needs {wanted}, not {text!r}") from None


def _most_tokens(text: str) -> int:
    most = _number("max_tokens", text, int)
    if most < 1:
        raise ConfigError("/set max_tokens needs a whole number from 1, or off")
    return most


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _chats_folder() -> Path:
    return config.user_data_dir() / "chats"


def _chat_file(name: str) -> Path:
    """A bare name lies in the chats folder; anything with a slash is a path."""
    if "/" in name:
        return Path(name).expanduser()
    return _chats_folder() / (name if name.endswith(".json") else f"{name}.json")


def _load_file(path: Path) -> Conversation:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CHAT_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    try:
        return from_json(raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
