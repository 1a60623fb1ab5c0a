"""Log probabilities of an answer's tokens as OpenAI's chats and completions tell them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from swarm.wire.records import TokenChance

Json = dict[str, Any]
Told = Sequence[tuple[TokenChance, ...]]  # of each token: its own, then the likeliest


class TokenTexts(Protocol):
    """What tokens stand for."""

    def decode(self, ids: Sequence[int], special: bool = False) -> str: ...
    def token_bytes(self, token: int) -> bytes: ...


def for_chat(told: Told, texts: TokenTexts) -> Json:
    """As /v1/chat/completions has them."""
    content = [
        {**_told(own, texts), "top_logprobs": [_told(each, texts) for each in likeliest]} for own, *likeliest in told
    ]
    return {"content": content, "refusal": None}


def for_completion(told: Told, texts: TokenTexts, offset: int) -> Json:
    """As /v1/completions has them; `offset`: characters of text before the first of these tokens."""
    tokens, offsets = [], []
    for own, *_ in told:
        tokens.append(texts.decode([own.token], True))
        offsets.append(offset)
        offset += len(tokens[-1])
    return {
        "tokens": tokens,
        "token_logprobs": [_finite(own.logprob) for own, *_ in told],
        "top_logprobs": [
            {texts.decode([each.token], True): _finite(each.logprob) for each in likeliest} for _, *likeliest in told
        ],
        "text_offset": offsets,
    }


def _told(chance: TokenChance, texts: TokenTexts) -> Json:
    text = texts.decode([chance.token], True)
    return {"token": text, "logprob": _finite(chance.logprob), "bytes": list(texts.token_bytes(chance.token))}


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else -9999.0
