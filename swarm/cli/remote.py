"""The model behind the node that runs on this device, in the same words as a model of one's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from swarm.answers import Channel, ExpertUse, Meter, Piece, Stats
from swarm.cli.local import IMPORT_S, LocalNode, error_text, name_of_model
from swarm.errors import SwarmNetworkError

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams

Progress = Callable[[int, int], None]
SILENCE_S = 60.0  # the node writes at least a comment every ten seconds
FOR_PROGRAMS = ("logit_bias", "n_told")  # of SamplingParams: no command sets them, and the API has other forms of them
ROUTINE = ("loading", "goes_on")  # kinds of notes that are of interest only while nothing has come


class RemoteModel:
    """Asks the node; `say` shows its quiet lines: the text, and whether an answer is being written already."""

    def __init__(
        self, node: LocalNode, model: str | None, say: Callable[[str, bool], None], *, guess: bool = True
    ) -> None:
        """Raise SwarmError when the node cannot have that model. `guess`: as in `swarm.load`."""
        info = node.post("/swarm/model", {"model": name_of_model(node, model)}, IMPORT_S)
        self.name = str(info["name"])
        self.context = int(str(info["context"]))
        self._node = node
        self._id = str(info["id"])
        self._say = say
        self._guess = guess

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int | None = None,
        params: SamplingParams,
        thinking: bool | None = None,
        progress: Progress | None = None,
    ) -> RemoteAnswer:
        """Answer a conversation."""
        body: dict[str, object] = {"messages": list(messages), **self._body(max_tokens, params)}
        if thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": thinking}
        return RemoteAnswer(self._node, "/v1/chat/completions", body, self._say, progress)

    def generate(self, prompt: str | Sequence[int], *, max_tokens: int | None, params: SamplingParams) -> RemoteAnswer:
        """Continue a text, or token ids, as they are."""
        tokens = self.context if max_tokens is None else max_tokens  # there the default is a mere 16
        given = prompt if isinstance(prompt, str) else list(prompt)
        body: dict[str, object] = {"prompt": given, **self._body(tokens, params)}
        return RemoteAnswer(self._node, "/v1/completions", body, self._say, None)

    def _body(self, max_tokens: int | None, params: SamplingParams) -> dict[str, object]:
        body = {field.name: getattr(params, field.name) for field in fields(params) if field.name not in FOR_PROGRAMS}
        body |= {"model": self._id, "max_tokens": max_tokens, "stream": True}
        body |= {} if self._guess else {"speculative.n_max": 0}
        return {name: value for name, value in body.items() if value is not None}


class RemoteAnswer:
    """An answer in progress: iterate to let it come, `cancel()` to end it early."""

    def __init__(
        self,
        node: LocalNode,
        path: str,
        body: dict[str, object],
        say: Callable[[str, bool], None],
        progress: Progress | None,
    ) -> None:
        self._node = node
        self._path = path
        self._body = body
        self._say = say
        self._progress = progress
        self._socket: socket.socket | None = None
        self._cancelled = False
        self._finish: str | None = None
        self._meter = Meter(prompt_tokens=0)
        self._told: Stats | None = None  # by the node, in the end
        self._last_at = 0.0  # when the last piece came, or the question was asked

    def __iter__(self) -> Iterator[Piece]:
        self._last_at = time.perf_counter()
        connection = self._node.connect(SILENCE_S)
        try:
            yield from self._read(connection)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._cancelled:
                raise SwarmNetworkError(
                    f"the node on this device was lost in the middle of the answer ({error or type(error).__name__}); "
                    "`swarm join` starts it again, then `swarm chat --continue` goes on"
                ) from error
        finally:
            connection.close()
        if self._cancelled:
            self._finish = "cancelled"

    def cancel(self) -> None:
        """End the answer; the node notices that nobody listens any more."""
        self._cancelled = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def finish_reason(self) -> str | None:
        return self._finish

    @property
    def stats(self) -> Stats:
        """As the node says; until then, as it looks from here."""
        return self._told or self._meter.stats

    def _read(self, connection: http.client.HTTPConnection) -> Iterator[Piece]:
        headers = {**self._node.headers, "x-swarm-events": "1"}
        connection.request("POST", self._path, json.dumps(self._body), headers)
        self._socket = connection.sock
        response = connection.getresponse()
        if response.status != 200:
            raise SwarmNetworkError(error_text(json.loads(response.read())))
        for event, value in events_of(response):
            if "error" in value:
                raise SwarmNetworkError(error_text(value))
            if event == "swarm":
                self._quiet(value)
            elif value["choices"]:
                yield from self._pieces(value["choices"][0])
            else:
                self._figures(value)
        if self._finish is None:
            raise ConnectionError("it ended too soon")

    def _pieces(self, choice: Any) -> Iterator[Piece]:
        delta = choice.get("delta", choice)
        for text, channel in (
            (delta.get("reasoning_content"), Channel.THINKING),
            (delta.get("content", delta.get("text")), Channel.ANSWER),
        ):
            if text:
                self._count()
                yield Piece(text, channel)

    def _count(self) -> None:
        """Until the node tells, a piece is about a token."""
        now = time.perf_counter()
        self._meter.token(now - self._last_at)
        self._last_at = now

    def _quiet(self, value: dict[str, Any]) -> None:
        begun = self._meter.stats.generated_tokens > 0
        if "reading" in value:
            if self._progress is not None:
                self._progress(*value["reading"])
        elif not (begun and value["kind"] in ROUTINE):
            self._say(value["note"], begun)

    def _figures(self, value: dict[str, Any]) -> None:
        self._finish = value["swarm_finish"]
        usage, timings = value["usage"], value["timings"]
        self._told = Stats(
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            generated_tokens=usage["completion_tokens"],
            guessed_tokens=timings.get("draft_n_accepted", 0),
            guesses=timings.get("draft_n", 0),
            first_token_s=timings["first_token_s"],
            decode_s=timings["decode_s"],
            experts=ExpertUse(**usage.get("experts", {})),
        )


def events_of(response: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    """The server-sent events of a response: their names and their values."""
    event = ""
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event: "):
            event = line[len("event: ") :]
        elif line.startswith("data: ") and line != "data: [DONE]":
            yield event, json.loads(line[len("data: ") :])
            event = ""
