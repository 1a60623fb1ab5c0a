"""Sampling where each of several devices has the logits of some rows of the vocabulary.

A device tells only those of its tokens that can be chosen: the `top_k` likeliest of the whole vocabulary are among the
`top_k` likeliest of each slice. What is drawn from the candidates of all slices together is the token that would be
drawn from all logits, bit for bit. Where every logit counts (no top_k, a grammar, log probabilities), all are told.

Encoded, little-endian: for each row that samples one head, (first id u32, count u32; first id 2^32 - 1: ids follow),
then `count` ids (i32, where they follow) and `count` logits (f32).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarm.engine.sampling import SamplingParams, adjusted, choose, likeliest
from swarm.errors import RemoteProtocolError

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_HEAD = struct.Struct("<II")
_LISTED = 2**32 - 1  # in the place of the first id: ids are listed


class Candidates(NamedTuple):
    """Tokens of a slice and their logits: all that it has, untouched, or the likeliest, with biases and penalties.

    ids: int64 (n,), ascending. logits: float32 (n,).
    """

    ids: I64
    logits: F32
    are_all: bool


def needs_all(params: SamplingParams, *, grammar: bool) -> bool:
    """True when any token of the vocabulary may count."""
    return grammar or params.n_told > 0 or (params.temperature > 0 and params.top_k == 0)


def candidates_of(logits: F32, params: SamplingParams, recent: Sequence[int], first: int, *, whole: bool) -> Candidates:
    """Of a slice's logits float32 (n,), whose first is of token `first`: what has to be told. `whole`: see needs_all.

    A logit that is not finite upwards is told alone, so that whoever samples sees it.
    """
    if whole:
        return Candidates(np.arange(first, first + len(logits)), logits, are_all=True)
    shifted = _shifted(params, recent, first, len(logits))
    values = adjusted(logits, *shifted)
    worst = int(np.argmax(values))  # NaN counts as the largest
    if not np.isfinite(values[worst]):
        ids = np.array([worst])
    else:
        ids = likeliest(values, 1 if params.temperature == 0 else params.top_k)
    return Candidates(ids + first, values[ids], are_all=False)


def sample_candidates(slices: Sequence[Candidates], params: SamplingParams, position: int) -> int:
    """The id of the token at `position`, of what all slices told when not all logits count.

    Raise ModelError as `sample` does.
    """
    ids = np.concatenate([part.ids for part in slices])
    order = np.argsort(ids, kind="stable")
    return int(ids[order[choose(np.concatenate([part.logits for part in slices])[order], params, position)]])


def all_logits(slices: Sequence[Candidates]) -> F32:
    """The logits float32 (vocab,) of slices that told all of theirs; RemoteProtocolError when they leave a gap."""
    parts = sorted(slices, key=lambda part: int(part.ids[0]))
    ends = [0, *(int(part.ids[-1]) + 1 for part in parts)]
    if not all(part.are_all and int(part.ids[0]) == end for part, end in zip(parts, ends, strict=False)):
        raise RemoteProtocolError("slices of the vocabulary leave a gap")
    return np.concatenate([part.logits for part in parts])


def encode(rows: Iterable[Candidates]) -> bytes:
    """What a device tells of the rows of a step."""
    pieces: list[bytes] = []
    for ids, logits, are_all in rows:
        pieces.append(_HEAD.pack(int(ids[0]) if are_all else _LISTED, len(ids)))
        if not are_all:
            pieces.append(ids.astype("<i4").tobytes())
        pieces.append(logits.astype("<f4").tobytes())
    return b"".join(pieces)


def decode(data: bytes, n_rows: int, vocab: range) -> list[Candidates]:
    """What a device whose slice of the vocabulary is `vocab` told of `n_rows` rows; RemoteProtocolError for others."""
    try:
        rows = list(_decode(memoryview(data), n_rows))
    except (struct.error, ValueError) as error:
        raise RemoteProtocolError(f"candidates that make no sense: {error}") from error
    for ids, _, are_all in rows:
        right = len(ids) > 0 and vocab.start <= ids[0] and ids[-1] < vocab.stop and bool((np.diff(ids) > 0).all())
        if not right or (are_all and len(ids) != len(vocab)):
            raise RemoteProtocolError("candidates that are not of its slice of the vocabulary")
    return rows


def _decode(data: memoryview, n_rows: int) -> Iterator[Candidates]:
    at = 0
    for _ in range(n_rows):
        first, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if first == _LISTED:
            ids = np.frombuffer(data, "<i4", count, at).astype(np.int64)
            at += 4 * count
        else:
            ids = np.arange(first, first + min(count, len(data)))
        yield Candidates(ids, np.frombuffer(data, "<f4", count, at).astype(np.float32), first != _LISTED)
        at += 4 * count
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes too many")


def _shifted(params: SamplingParams, recent: Sequence[int], first: int, n: int) -> tuple[SamplingParams, Sequence[int]]:
    """Biases and recent tokens as a slice numbers its tokens; those of other slices fall outside of it."""
    bias = tuple((token - first, value) for token, value in params.logit_bias if first <= token < first + n)
    return replace(params, logit_bias=bias), [token - first for token in recent]
