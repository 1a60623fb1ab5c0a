"""From a question to an answer: which model is meant, what its tokens are, which conversation it goes on with."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from swarm.cluster.effects import Notice
from swarm.cluster.membership import Health
from swarm.cluster.session import Phase
from swarm.engine.generate import check_fits
from swarm.errors import ConfigError, TextError
from swarm.node.answer import Answer, Question, Reading
from swarm.node.library import KnownModel
from swarm.node.model import DEFAULT_CONTEXT
from swarm.store import catalog
from swarm.units import size_text
from swarm.wire.ids import ID_BYTES, ModelId, PeerId, SessionId
from swarm.wire.records import Placement

if TYPE_CHECKING:
    from swarm.node.node import Node

MIN_REUSE_TOKENS = 16  # that a question must have in common with a conversation to go on with it


class Questions:
    """Owned by the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._placements: dict[SessionId, Placement] = {}  # who worked on each answer at its last word
        self._read: dict[SessionId, int] = {}

    async def ask(self, question: Question) -> Answer:
        """Begin an answer; raise SwarmError when the model is not to be had or the question cannot be used."""
        known = await self._node.know(await self.find(question.model))
        ids, opens_thinking = await self._node.run_io(prompt_of, known, question)
        context = context_of(known, self._node.settings.context)
        check_fits(ids, context)
        session, reused = self._session_for(known.id, ids)
        answer = Answer(
            self._node.answer_port(),
            known,
            question,
            ids,
            session=session,
            context=context,
            opens_thinking=opens_thinking,
        )
        answer.reused = reused
        self._node.open_answer(answer)
        return answer

    async def find(self, text: str) -> ModelId:
        """The model that `text` names ("" is the default one): of the swarm, or a file that this device can get."""
        node, text = self._node, text or self._node.settings.model
        model, known = node.library.find(text), catalog.CATALOG.get(text.lower())
        if model is not None:
            return model
        names = {text, known.file_name} if known is not None else {text}
        for path in catalog.kept_models(node.settings.models_path):
            if {path.name, path.stem} & names:
                return await node.add_file(path)
        while model is None and self._node.is_settling():
            await asyncio.sleep(0.1)  # the device that has it may be about to be found
            model = node.library.find(text)
        if model is not None:
            return model
        if known is None:
            raise node.library.not_found(text)
        node.note("downloading", model=known.name, size=size_text(known.size_bytes))
        return await node.add_file(await node.run_io(catalog.fetch, known, node.settings.models_path))

    def tick(self) -> None:
        """Tell every reader who still waits for the first word how far the prompt is read."""
        with self._node.lock:
            for key, answer in self._node.answers.items():
                session = self._node.core.sessions.sessions.get(key)
                if session is not None and session.phase is Phase.RUNNING:
                    self.say_who_is_gone(answer)
                    self._tell_reading(answer, session.passed, session.goal)
        self._placements = {key: at for key, at in self._placements.items() if key in self._node.answers}
        self._read = {key: done for key, done in self._read.items() if key in self._node.answers}

    def say_who_is_gone(self, answer: Answer) -> None:
        """When an answer goes on with other devices than before, its reader hears why."""
        session = self._node.core.sessions.sessions.get(answer.session)
        if session is None or session.phase is not Phase.RUNNING:
            return
        before, now = self._placements.get(session.id), session.placement
        if before is now or now is None:
            return
        self._placements[session.id] = now
        stages = {shard.peer for shard in now.shards}
        used = [shard.peer for shard in before.shards] if before is not None else []
        gone = [peer for peer in used if peer not in stages and not self._is_well(peer)]
        if gone:
            names = [self._node.core.members.name_of(peer) for peer in gone]
            answer.deliver(Notice(session.id, going_on(names, len(stages))))

    def _is_well(self, peer: PeerId) -> bool:
        known = self._node.core.members.peers.get(peer)
        return known is None or (known.health is Health.ALIVE and known.link_up)

    def _tell_reading(self, answer: Answer, done: int, total: int) -> None:
        if answer.tokens or done >= total or self._read.get(answer.session) == done:
            return
        self._read[answer.session] = done
        answer.deliver(Reading(done, total))

    def _session_for(self, model: ModelId, ids: list[int]) -> tuple[SessionId, int]:
        """The resting conversation that has most in common with `ids`, and how much; a new one when none has enough."""
        best, most = SessionId(secrets.token_hex(ID_BYTES[SessionId])), 0
        with self._node.lock:
            sessions = list(self._node.core.sessions.sessions.values())
        for session in sessions:
            free = session.phase is Phase.RESTING and session.id not in self._node.answers
            if free and session.ask.model == model:
                common = common_prefix(session.ids, ids)
                if common >= max(MIN_REUSE_TOKENS, most + 1):
                    best, most = session.id, common
        return best, min(most, len(ids) - 1)


def prompt_of(known: KnownModel, question: Question) -> tuple[list[int], bool]:
    """The ids of a prompt, and whether the model begins inside its thinking; slow when a model is new."""
    if question.prompt is None:
        if known.template is None:
            raise TextError(f"{known.name} has no chat template, so it is no chat model; ask for a completion instead")
        rendered = known.template.render(question.messages, tools=question.tools, thinking=question.thinking)
        ids, opens_thinking = rendered.encode(known.tokenizer), rendered.opens_thinking
    elif isinstance(question.prompt, str):
        ids, opens_thinking = known.tokenizer.encode(question.prompt, add_bos=known.tokenizer.add_bos), False
    else:
        ids, opens_thinking = list(question.prompt), False
    bad = next((i for i in ids if not 0 <= i < known.spec.vocab), None)
    if bad is not None:
        raise TextError(f"{bad} is no token of this model; its ids are 0 to {known.spec.vocab - 1}")
    return ids, opens_thinking


def context_of(known: KnownModel, wanted: int) -> int:
    """Tokens that a conversation with this model may hold."""
    if wanted > known.spec.context_length:
        raise ConfigError(f"context is {wanted}; this model was made for at most {known.spec.context_length} tokens")
    return wanted or min(known.spec.context_length, DEFAULT_CONTEXT)


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many ids the two have in common from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def going_on(names: list[str], n_devices: int) -> str:
    """The quiet line after a device was lost."""
    who = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    verb = "are" if len(names) > 1 else "is"
    with_what = "one device" if n_devices == 1 else f"{n_devices} devices"
    return f"{who} {verb} gone; going on with {with_what}"
