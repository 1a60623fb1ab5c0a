"""What the block of a model's own file says of sessions whose last stage is here; of the compute worker alone.

It uses the embedding and the head that the model has, also where its file has some for the block: in the files that are
known they are the same ones, and hundreds of megabytes. Were they others, its guesses would be poor, and left out soon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from swarm.cluster.effects import OpenKv
from swarm.engine.decoder import Decoder, Keep, Rows
from swarm.engine.mtp import MtpBlock, normed
from swarm.engine.mtp_follower import MtpFollower
from swarm.engine.ways import Choices
from swarm.engine.weights import Weights
from swarm.models.spec import OUTSIDE_LAYERS, ModelSpec, MtpSpec, Role
from swarm.parts import EMBED, LM_HEAD, MTP, Part
from swarm.wire.ids import ModelId, SessionId

log = logging.getLogger(__name__)
F32 = npt.NDArray[np.float32]
NEEDED = (MTP, EMBED, LM_HEAD)


class OwnGuesses:
    """The blocks of models that are in memory, and how far each follows the sessions here."""

    def __init__(self) -> None:
        self._specs: dict[ModelId, ModelSpec] = {}
        self._blocks: dict[ModelId, MtpBlock] = {}
        self._followers: dict[SessionId, tuple[ModelId, MtpFollower]] = {}

    def install(self, model: ModelId, spec: ModelSpec) -> None:
        """The block of a model is in memory, among its parts."""
        self._specs[model] = spec

    def choose(self, ways: Choices) -> None:
        """From now on products are computed so."""
        for block in self._blocks.values():
            block.decoder.choose(ways)

    def unload(self, model: ModelId, parts: set[Part]) -> None:
        """These parts leave memory."""
        if parts.isdisjoint(NEEDED):
            return
        self._blocks.pop(model, None)
        self._followers = {key: each for key, each in self._followers.items() if each[0] != model}

    def open(self, effect: OpenKv, parts: Mapping[Part, Weights], decoder: Callable[[], Decoder]) -> None:
        """A session is opened, with a copy of another one's keys and values or as it was; `decoder`: of the stage."""
        if effect.source is not None and effect.moves and effect.source in self._followers:
            self._followers[effect.session] = self._followers.pop(effect.source)
        elif effect.source is not None:
            self._followers.pop(effect.session, None)
        if not effect.mtp or any(part not in parts for part in NEEDED):
            self._followers.pop(effect.session, None)
            return
        block = self._blocks.get(effect.model)
        if block is None or block.decoder.context < effect.context:
            block = self._blocks[effect.model] = _block(self._specs[effect.model], parts, decoder())
        model, follower = self._followers.get(effect.session, (effect.model, None))
        if follower is None or (model, follower.kind) != (effect.model, effect.kv):
            follower = MtpFollower(block, effect.context, effect.kv)
        follower.block = block
        follower.cut(effect.keep)
        if follower.cache.capacity < effect.context:
            follower.resize(effect.context)
        self._followers[effect.session] = effect.model, follower

    def drop(self, session: SessionId) -> None:
        """Its keys and values are gone."""
        self._followers.pop(session, None)

    def follows(self, session: SessionId) -> bool:
        """Whether the states of this session's steps are wanted."""
        return session in self._followers

    def saw(self, session: SessionId, position: int, ids: tuple[int, ...], states: F32, decoder: Decoder) -> None:
        """The model computed these ids, which are certain; `states` (len(ids), hidden) before its last norm."""
        with_norm = normed(states, decoder.weights.vectors[OUTSIDE_LAYERS, Role.OUTPUT_NORM], decoder.spec.norm_eps)
        try:
            self._followers[session][1].saw(position, ids, with_norm)
        except Exception:
            self._lose(session)

    def logits(self, session: SessionId, token: int) -> F32 | None:
        """What may come after this token, which is the next one; None where nothing can be said."""
        if session not in self._followers:
            return None
        try:
            return self._followers[session][1].logits(token)
        except Exception:
            self._lose(session)
            return None

    def _lose(self, session: SessionId) -> None:
        """A bug, or no memory: the answer goes on without these guesses."""
        log.exception("the block that predicts further tokens failed")
        self._followers.pop(session, None)


def with_states(decoder: Decoder, ready: Rows) -> tuple[F32, F32]:
    """A step of a last stage: its logits, and the states float32 (tokens, hidden) of all its rows before the last norm.

    Logits and what is stored have the bits that they have in a step without states.
    """
    tokens, cache, keep = ready
    n_before = {Keep.ALL: 0, Keep.LAST: len(tokens) - 1, Keep.NONE: len(tokens)}[keep]
    states: list[F32] = []
    logits = np.empty((0, decoder.spec.vocab), np.float32)
    if n_before:
        states.append(decoder.step_hidden([Rows(tokens[:n_before], cache)]))
    if keep is not Keep.NONE:
        logits = decoder.step_logits([Rows(tokens[n_before:], cache, keep)])
        states.append(decoder.engine.states())
    return logits, np.concatenate(states)


def _block(spec: ModelSpec, parts: Mapping[Part, Weights], decoder: Decoder) -> MtpBlock:
    own, embed, head = (parts[part] for part in NEEDED)
    key = OUTSIDE_LAYERS, Role.LM_HEAD
    matrices = {**own.matrices, **embed.matrices, key: head.matrices[key]}
    return MtpBlock(MtpSpec(spec, ""), replace(own, matrices=matrices, table=embed.table), decoder)
