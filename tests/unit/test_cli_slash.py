"""The commands of a chat."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.answers import Piece
from swarm.cli import editing, slash
from swarm.cli.chat_loop import Chat
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError, ContextFull, ModelNotFound, SwarmError
from tests.helpers.chats import new_chat, reader
from tests.helpers.fake_model import FakeModel

NAMES = ["help", "clear", "system", "set", "read", "edit", "undo", "regen"]
NAMES += ["save", "load", "model", "show", "history", "stats", "think", "exit"]


@pytest.fixture
def talk(own_home: Path) -> Iterator[Callable[..., Chat]]:
    """Run lines through a chat; return it."""

    def go(*lines: str, model: FakeModel | None = None) -> Chat:
        chat = new_chat(model)
        chat.loop(reader(*lines))
        return chat

    yield go


def test_help_lists_every_command(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/help")
    out = capsys.readouterr().out
    assert list(slash.COMMANDS) == NAMES
    for name in NAMES:
        assert f"/{name}" in out


def test_exit_ends_the_chat_before_what_follows(talk: Callable[..., Chat]) -> None:
    model = FakeModel()
    talk("/exit", "one", model=model)
    talk("/quit", "one", model=model)
    assert model.asked == []


def test_clear_forgets_the_turns_and_keeps_the_system_text(talk: Callable[..., Chat]) -> None:
    chat = talk("/system Be kind.", "one", "/clear")
    assert chat.conversation.messages() == [{"role": "system", "content": "Be kind."}]


def test_system_is_shown_set_and_taken_away(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk("/system", "/system Be kind.", "/system", "/system off")
    assert capsys.readouterr().out.splitlines() == [
        "no system text; /system TEXT sets one",
        "the system text is set",
        "Be kind.",
        "no system text any more",
    ]
    assert chat.conversation.system == ""


def test_undo_takes_back_the_last_turn(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk("one", "two", "/undo")
    assert [turn.user for turn in chat.conversation.turns] == ["one"]
    talk("/undo")
    assert "there is nothing to undo" in capsys.readouterr().err


def test_regen_answers_the_last_question_again(talk: Callable[..., Chat]) -> None:
    model = FakeModel([[Piece("first")], [Piece("second")]])
    chat = talk("why?", "/regen", model=model)
    assert [(turn.user, turn.answer) for turn in chat.conversation.turns] == [("why?", "second")]
    assert model.asked[0] == model.asked[1]


def test_a_regen_that_fails_keeps_the_answer_there_was(talk: Callable[..., Chat]) -> None:
    chat = talk("why?", "/regen", model=FakeModel([[Piece("first")], ContextFull("full")]))
    assert [turn.answer for turn in chat.conversation.turns] == ["first"]


def test_set_changes_how_the_next_answer_is_chosen(talk: Callable[..., Chat]) -> None:
    model = FakeModel()
    talk("/set temp 0.5", "/set top_k=7", "/set seed 3", "/set max_tokens 9", "q", "/set seed off", "q", model=model)
    first, second = model.params
    assert (first.temperature, first.top_k, first.seed, model.max_tokens[0]) == (0.5, 7, 3, 9)
    assert second.seed not in (None, 3), "another one for every answer"


def test_set_alone_shows_every_parameter(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/set")
    out = capsys.readouterr().out
    for name in {*SamplingParams.__dataclass_fields__, "max_tokens"} - {"logit_bias", "n_told"}:
        assert f"  {name} " in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/set heat 1", "there is no 'heat' to set; there are temperature, top_k"),
        ("/set temp hot", "/set temperature needs a number, not 'hot'"),
        ("/set top_k 1.5", "/set top_k needs a whole number, not '1.5'"),
        ("/set temp -1", "temperature is -1.0; it must be from 0 to 100"),
        ("/set top_p nan", "top_p is nan; it must be from 0 to 1"),
        ("/set logit_bias 3", "there is no 'logit_bias' to set"),
        ("/set max_tokens -5", "/set max_tokens needs a whole number from 1, or off"),
        ("/read", "/read FILE puts a text file"),
        ("/read /no/such", "cannot be read"),
        ("/model x", "cannot change its model"),
        ("/history maybe", "/history on, or /history off"),
        ("/hlep", "there is no command /hlep; did you mean /help?"),
        ("/think hard", "/think on, /think off, or /think auto"),
        ("/load none", "none.json cannot be read (No such file or directory)"),
        ("/regen", "there is nothing to answer again"),
        ("/save /proc/no/where.json", "cannot be written"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line(
    talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    talk(line)
    out, err = capsys.readouterr()
    assert says in err
    assert err.count("\n") == 1 and out == ""


def test_think_is_passed_to_the_model(talk: Callable[..., Chat]) -> None:
    model = FakeModel()
    talk("a", "/think on", "b", "/think off", "c", "/think auto", "d", model=model)
    assert model.thinking == [None, True, False, None]


def test_a_saved_chat_is_private_and_loads_in_another_chat(talk: Callable[..., Chat], own_home: Path) -> None:
    before = talk("/system Be kind.", "one", "two", "/save mine")
    path = own_home / ".local/share/swarm/chats/mine.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert talk("/load mine").conversation == before.conversation
    assert talk(f"/load {path}").conversation == before.conversation


def test_save_writes_over_a_saved_chat_and_over_nothing_else(
    talk: Callable[..., Chat], own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk("one", "/save mine")
    chat = talk("/load mine", "two", "/save mine")
    assert talk("/load mine").conversation == chat.conversation
    other = own_home / "other.json"
    other.write_text("precious")
    talk(f"/save {other}")
    assert other.read_text() == "precious"
    assert "is not a chat that /save wrote" in capsys.readouterr().err


def test_load_alone_lists_what_was_saved(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/load", "one", "/save b", "/save a", "/load")
    out = capsys.readouterr().out
    assert "there are no saved chats" in out and "saved chats: a, b" in out


def test_stats_tell_how_full_the_context_is(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/stats", "one", "/stats")
    out = capsys.readouterr().out
    assert "none yet" in out
    assert "context    8 of 2,048 tokens, 0 of them reused" in out


def test_set_refuses_a_number_out_of_range_and_keeps_the_old_one(talk: Callable[..., Chat]) -> None:
    assert talk("/set temp 0.5", "/set temp 1000").params.temperature == 0.5


def test_commands_are_found_by_their_short_names() -> None:
    chat = new_chat()
    for alias, name in slash.ALIASES.items():
        if name != "exit":
            with pytest.raises(ConfigError) if name == "regen" else _nothing():
                slash.perform(chat, f"/{alias}")


class _nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> None:
        pass


def test_a_file_goes_with_the_next_question_only(talk: Callable[..., Chat], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("The key is under the ``` mat.\n")
    model = FakeModel()
    talk(f"/read {tmp_path / 'notes.md'}", "where is it?", "and now?", model=model)
    first, second = (messages[-1]["content"] for messages in model.asked)
    assert first == "notes.md:\n````\nThe key is under the ``` mat.\n````\n\nwhere is it?"
    assert second == "and now?"


def test_a_question_that_failed_keeps_its_file(talk: Callable[..., Chat], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    model = FakeModel(answers=[SwarmError("busy")])
    talk(f"/read {tmp_path / 'notes.md'}", "one", "two", model=model)
    assert [messages[-1]["content"].startswith("notes.md:") for messages in model.asked] == [True, True]


def test_edit_asks_the_changed_question_in_the_place_of_the_last(
    talk: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing, "edited", lambda text: text.replace("two", "three"))
    chat = talk("one", "two", "/edit")
    assert [turn.user for turn in chat.conversation.turns] == ["one", "three"]


def test_an_edit_that_changes_nothing_asks_nothing(talk: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "edited", lambda text: text)
    model = FakeModel()
    talk("one", "/edit", model=model)
    assert len(model.asked) == 1


def test_another_model_takes_over_the_conversation() -> None:
    first, other = FakeModel(), FakeModel()
    chat = new_chat(first, open_model=lambda name: (other, f"/models/{name}.gguf", 512))
    chat.loop(reader("one", "/model tiny", "two"))
    assert [message["content"] for message in other.asked[0]] == ["one", "echo: one", "two"]
    assert (chat.model_name, chat.context) == ("tiny.gguf", 512)


def test_a_model_that_is_not_there_leaves_the_one_that_is(capsys: pytest.CaptureFixture[str]) -> None:
    def nowhere(name: str) -> tuple[FakeModel, str, int]:
        raise ModelNotFound(f"no model {name}")

    chat = new_chat(open_model=nowhere)
    chat.loop(reader("/model tiny", "one"))
    assert "no model tiny" in capsys.readouterr().err and len(chat.conversation.turns) == 1


def test_show_tells_how_the_model_is_asked(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/system Be kind.", "/think off", "/history off", "/show")
    out = capsys.readouterr().out
    for line in ("model      fake", "system     Be kind.", "thinking   off", "history    not kept", "temperature"):
        assert line in out


def test_what_is_asked_is_not_kept_while_history_is_off() -> None:
    kept: list[int] = []
    chat = new_chat(keep=lambda conversation, model, pending: kept.append(len(conversation.turns)))
    chat.loop(reader("/history off", "one", "/history on", "two"))
    assert kept == [1, 2]


def test_off_goes_back_to_what_the_chat_began_with() -> None:
    chat = new_chat(params=SamplingParams(temperature=0.0), max_tokens=7)
    chat.loop(reader("/set temp 1", "/set temp off", "/set max_tokens 9", "/set max_tokens off"))
    assert (chat.params.temperature, chat.max_tokens) == (0.0, 7)


def test_no_line_of_the_help_is_wider_than_a_terminal(
    talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]
) -> None:
    talk("/help")
    assert max(map(len, capsys.readouterr().out.splitlines())) < 100
    assert max(len(f"  {'/history [on|off]':<20}  {command.help}") for command in slash.COMMANDS.values()) < 80
