"""From a question to an answer: which model it is for, and which conversation it goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from swarm import config
from swarm.cluster.session import AnswerRequest, Phase, Session
from swarm.errors import ModelNotFound
from swarm.node.answer import Beginning
from swarm.node.library import Entry
from swarm.node.questions import MAX_ASKERS, Questions, going_on
from swarm.wire.ids import ModelId, SessionId
from swarm.wire.records import Sampling

GLM = ModelId("9" * 64)


class FakeHoldings:
    """The swarm's one model is there once it was looked for often enough; what is added is called by its path."""

    def __init__(self, found_after: int) -> None:
        self.library = SimpleNamespace(
            entries=self.entries, not_found=lambda text, names: ModelNotFound(f"{text} {names}")
        )
        self.n_looks, self.found_after = 0, found_after

    def entries(self) -> list[Entry]:
        self.n_looks += 1
        return [Entry(GLM, "glm-4-9b", 1000, 1)] if self.n_looks > self.found_after else []

    async def add_file(self, path: Path) -> str:
        return f"added {path}"


async def run_io(function: Callable[[], object]) -> object:
    return function()


def found(text: str, folder: Path, *, model: str | None = None, found_after: int = 0) -> str:
    """What `text` means to a node that settles for two looks."""
    holdings: Any = FakeHoldings(found_after)
    settings = config.load({"models_dir": str(folder), "model": model})
    unused: Any = MagicMock()
    questions = Questions(
        unused,
        MagicMock(run_io=run_io),
        holdings,
        events=unused,
        settings=settings,
        is_settling=lambda: holdings.n_looks < 3,
        names=lambda: ["all", "that are listed"],
    )
    return asyncio.run(questions.find(text))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr("swarm.node.questions.asyncio.sleep", sleep)


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.gguf"
    path.touch()
    return path


def test_the_setting_may_be_a_path(tmp_path: Path, own_file: Path) -> None:
    assert found("", tmp_path, model=str(own_file)) == f"added {own_file}"


def test_a_client_has_no_file_opened_by_its_path(tmp_path: Path, own_file: Path) -> None:
    with pytest.raises(ModelNotFound, match="'that are listed'"):
        found(str(own_file), tmp_path / "models")


def test_a_kept_file_is_offered_when_it_is_named(tmp_path: Path, own_file: Path) -> None:
    assert found("Mine", tmp_path) == f"added {own_file}"


def test_a_device_that_has_the_model_may_be_about_to_be_found(tmp_path: Path) -> None:
    assert found("glm-4-9b", tmp_path, found_after=2) == GLM


def test_a_model_that_nobody_has_is_told_when_all_had_time_to_be_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        found("glm-4-9b", tmp_path, found_after=3)


def test_the_quiet_line_names_who_is_gone_and_how_many_go_on() -> None:
    assert going_on(["pi-kitchen"], 2) == "pi-kitchen is gone; going on with 2 devices"
    assert going_on(["a", "b", "c"], 1) == "a, b and c are gone; going on with one device"


def beginnings() -> tuple[Questions, dict[SessionId, Any]]:
    """Questions of a node, and the sessions that there are."""
    sessions: dict[SessionId, Any] = {}
    core = SimpleNamespace(sessions=SimpleNamespace(sessions=sessions))
    driver: Any = MagicMock(read=lambda look: look(core))
    unused: Any = MagicMock()
    return Questions(driver, unused, unused, events=unused, settings=unused, is_settling=lambda: False), sessions


def conversation(key: SessionId, ids: list[int], n_asked: int, *, rests: bool = True, model: ModelId = GLM) -> Session:
    """One of which `n_asked` ids were the question."""
    ask = AnswerRequest(key, model, tuple(ids[:n_asked]), 9, Sampling(answer_at=n_asked))
    return Session(ask, ids, Phase.RESTING if rests else Phase.RUNNING, 0.0)


def test_nobody_learns_from_what_is_reused_what_another_said() -> None:
    questions, sessions = beginnings()
    ids = list(range(100))
    first = questions._session_for(GLM, ids, "one")
    assert first == Beginning(first.session)
    sessions[first.session] = conversation(first.session, ids, 90)
    another = questions._session_for(GLM, ids, "another")
    assert another == Beginning(another.session) and another.session != first.session
    assert questions._session_for(GLM, [*ids, 7], "one") == Beginning(first.session, None, 100)
    for i in range(1000):
        questions._session_for(GLM, ids, str(i))
    assert len(questions._askers) == MAX_ASKERS


def test_a_question_goes_on_with_the_conversation_whose_question_it_repeats() -> None:
    questions, sessions = beginnings()
    ids = list(range(100))
    first = questions._session_for(GLM, ids, "one").session
    sessions[first] = conversation(first, ids, 60)
    assert questions._session_for(GLM, [*ids[:60], 7, 8, 9], "one") == Beginning(first, None, 60)
    assert questions._session_for(GLM, [*ids[:55], 7, 8, 9], "one") == Beginning(first, None, 55)  # said otherwise
    assert questions._session_for(GLM, ids, "one") == Beginning(first, None, 99)  # the last one is computed


def test_what_shares_a_beginning_only_is_a_conversation_of_its_own_with_a_copy() -> None:
    questions, sessions = beginnings()
    ids = list(range(100))
    first = questions._session_for(GLM, ids, "one").session
    for rests, common in ((True, 40), (False, 40), (False, 99)):
        sessions[first] = conversation(first, ids, 60, rests=rests)
        other = questions._session_for(GLM, [*ids[:common], 7, 8], "one")
        assert other == Beginning(other.session, first, common) and other.session != first
    other = questions._session_for(GLM, [*ids[:15], 7, 8], "one")
    assert other == Beginning(other.session), "so little is not worth it"
    sessions[first] = conversation(first, ids, 60)
    questions.answers[first] = MagicMock()  # it rests between two reservations
    assert questions._session_for(GLM, ids, "one").source == first
