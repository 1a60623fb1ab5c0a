"""Bytes of one file behind an address of the web: any range of them, through redirects, and never a token too far.

The hub answers the address of a large file with a redirect to another host, signed for about an hour. That address is
kept for the ranges that follow, and asked for anew when it is refused. What the hub is told (the token) goes to the
hub's own host alone.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urljoin, urlsplit

import httpx

import swarm
from swarm.config import HubSettings
from swarm.errors import DownloadError
from swarm.limits import (
    CONNECT_TIMEOUT_S,
    MAX_RATE_WAIT_S,
    MAX_REDIRECTS,
    MAX_REFUSAL_BYTES,
    MAX_TRIES,
    READ_TIMEOUT_S,
)

Waiting = Callable[[str], None]  # told what is waited for

_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 425, 500, 502, 503, 504)
_TOO_MANY = 429
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Interrupted(Exception):
    """A reply was cut, or an address has run out: the same may be asked again."""


class Web:
    """Asks servers; one for all requests of a command. Safe to use from several threads."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        waiting: Waiting = lambda what: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self._waiting = waiting
        self._sleep = sleep
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.Client(
            timeout=timeout, headers={"User-Agent": f"swarm/{swarm.__version__}", "Accept-Encoding": "identity"}
        )

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """The reply to one request, whatever it says, redirects included; its body is not read yet.

        Raise Interrupted when no whole reply came, DownloadError when nobody answers at that address.
        """
        if self.settings.offline:
            raise DownloadError("HF_HUB_OFFLINE is set, so nothing is asked of the network; unset it to download")
        try:
            with self._client.stream("GET", url, headers={**(headers or {}), **self._token_for(url)}) as reply:
                yield reply
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise DownloadError(f"{url[:200]!r} is no address that can be asked ({error})") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{urlsplit(url).hostname} cannot be reached ({_reason(error)})") from error
        except httpx.TransportError as error:
            raise Interrupted(_reason(error)) from error

    @contextmanager
    def follow(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        passing: Callable[[httpx.Response], None] = lambda reply: None,
    ) -> Iterator[httpx.Response]:
        """The reply after all redirects; `passing` sees each of these before the next address is asked."""
        for _ in range(MAX_REDIRECTS + 1):
            with self.get(url, headers) as reply:
                if reply.status_code not in _REDIRECTS or "location" not in reply.headers:
                    yield reply
                    return
                passing(reply)
                target = urljoin(url, reply.headers["location"])
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise DownloadError(f"{urlsplit(url).hostname} sends on to an address that is not encrypted: refused")
            url = target
        raise DownloadError(f"{urlsplit(url).hostname} sends from one address to the next without end")

    def patiently(self, ask: Callable[[], bytes]) -> bytes:
        """What `ask` returns; it is called again after what a while may mend. Raise DownloadError in the end."""
        for failures in range(MAX_TRIES):
            try:
                return ask()
            except Interrupted as error:
                if failures + 1 == MAX_TRIES:
                    raise DownloadError(f"it does not come through ({error}); try again later") from error
            except Later as error:
                if failures + 1 == MAX_TRIES or error.wait_s > MAX_RATE_WAIT_S:
                    raise
                self.wait(str(error), error.wait_s)
                continue
            self.wait("the connection was cut; trying again", 2.0**failures)
        raise AssertionError

    def wait(self, why: str, seconds: float) -> None:
        """Let time pass, and say why."""
        self._waiting(why)
        self._sleep(seconds)

    def _token_for(self, url: str) -> dict[str, str]:
        """The user's token, for the hub's own host and port alone."""
        ours, theirs = urlsplit(self.settings.endpoint), urlsplit(url)
        same = (ours.scheme, ours.hostname, ours.port) == (theirs.scheme, theirs.hostname, theirs.port)
        return {"Authorization": f"Bearer {self.settings.token}"} if same and self.settings.token else {}


class Unreachable(DownloadError):
    """Nobody answers at the address."""


class Later(DownloadError):
    """The server says that it is asked too much, or that it cannot now; asking again after `wait_s` may help."""

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class WebFile:
    """One file of a server, read by ranges. Safe to use from several threads.

    `refusal` makes the error for a reply that is none of the file; `n_bytes` and `sha256` are what the file must be,
    where that is known (0 and "" where it is not).
    """

    def __init__(
        self,
        web: Web,
        url: str,
        *,
        n_bytes: int = 0,
        sha256: str = "",
        refusal: Callable[[httpx.Response, str], DownloadError] | None = None,
    ) -> None:
        self.url = url
        self.n_bytes = n_bytes
        self.sha256 = sha256
        self.has_ranges = True  # False once the server has answered a range with the whole
        self._web = web
        self._refusal = refusal or refused
        self._signed = ""  # where the bytes are, as the server said last
        self._lock = threading.Lock()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes [start, end), or as many of them as come before the connection is cut: then raise Interrupted.

        Raise DownloadError when the server refuses, or has another file than it should.
        """
        with self._lock:
            signed = self._signed
        asked = {"Range": f"bytes={start}-{end - 1}"}
        with self._web.follow(signed or self.url, asked, self._check_promise) as reply:
            if reply.status_code not in (200, 206):
                self._fail(reply, signed)
            self._check_promise(reply)
            skip = self._check_range(reply, start)
            if str(reply.url) != self.url:
                with self._lock:
                    self._signed = str(reply.url)
            yield from _bytes_of(reply, skip, end - start)

    def _fail(self, reply: httpx.Response, signed: str) -> None:
        """Raise what a reply means that brings no bytes."""
        if signed and reply.status_code in (400, 401, 403, 404, 410):
            with self._lock:
                self._signed = ""  # it has run out; the server gives a new one
            raise Interrupted("its address has run out")
        if reply.status_code == 416:
            raise DownloadError(f"{self.url}: the file is another one than it was; pull it anew")
        raise self._refusal(reply, body_of(reply))

    def _check_promise(self, reply: httpx.Response) -> None:
        """What the server says of the file, before it sends on to where the bytes are."""
        headers = reply.headers
        stored = headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
        if self.sha256 and re.fullmatch(r"[0-9a-f]{64}", stored) and stored != self.sha256:
            raise DownloadError(f"it has another file under that name (SHA-256 {stored[:12]}...); pull it anew")
        size = headers.get("x-linked-size", "")
        if self.n_bytes and size.isdigit() and int(size) != self.n_bytes:
            raise DownloadError(f"it has another file under that name ({size} bytes, not {self.n_bytes})")

    def _check_range(self, reply: httpx.Response, start: int) -> int:
        """How many bytes to step over until `start`; learns how long the file is."""
        if reply.status_code == 200:
            self.has_ranges = False
            total, skip = reply.headers.get("content-length", ""), start
        else:
            match = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", ""))
            if match is None or int(match[1]) != start:
                raise DownloadError(f"{self.url}: the server sent another part of the file than it was asked for")
            total, skip = match[3], 0
        if not total.isdigit():
            raise DownloadError(f"{self.url}: the server does not say how long the file is")
        if self.n_bytes and int(total) != self.n_bytes:
            raise DownloadError(f"{self.url}: the file has {total} bytes, and should have {self.n_bytes}; pull it anew")
        self.n_bytes = int(total)
        return skip


def body_of(reply: httpx.Response) -> str:
    """The beginning of a refusal's body."""
    data = b""
    with suppress(httpx.HTTPError):
        for part in reply.iter_bytes():
            data += part
            if len(data) >= MAX_REFUSAL_BYTES:
                break
    return data[:MAX_REFUSAL_BYTES].decode(errors="replace")


def refused(reply: httpx.Response, body: str) -> DownloadError:
    """The error for a reply of any server that is not what was asked for."""
    host, status = reply.url.host, reply.status_code
    if status == _TOO_MANY:
        wait_s = wait_of(reply.headers)
        return Later(f"{host} says that it was asked too often; it wants {wait_s:.0f} s of rest", wait_s)
    if status in _TRY_AGAIN:
        return Later(f"{host} cannot answer now ({status} {reply.reason_phrase})", 2.0)
    return DownloadError(f"{host} answered {status} {reply.reason_phrase} for {reply.url.path}")


def wait_of(headers: httpx.Headers) -> float:
    """Seconds that a server wants to be left alone."""
    found = re.search(r"\bt=(\d{1,6})\b", headers.get("ratelimit", ""))
    seconds = found[1] if found else headers.get("retry-after", "")
    return float(seconds) + 1 if seconds.isdigit() else 10.0


def _bytes_of(reply: httpx.Response, skip: int, wanted: int) -> Iterator[bytes]:
    for data in reply.iter_raw():
        if skip >= len(data):
            skip -= len(data)
            continue
        part = data[skip : skip + wanted]
        skip, wanted = 0, wanted - len(part)
        yield part
        if wanted <= 0:
            return
    if wanted > 0:
        raise Interrupted("the connection was closed early")


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        if isinstance(cause, socket.gaierror):
            return "its name does not resolve: offline?"
    if isinstance(error, httpx.ConnectTimeout):
        return f"no answer in {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no byte for {READ_TIMEOUT_S:.0f} s"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
