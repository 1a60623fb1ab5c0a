"""A hub of our own on loopback, as the real one answers: repositories, commits, redirects to another host, refusals.

Its files are asked at 127.0.0.1 and sent from `localhost`, another host: what must stay with the hub (the token) can be
seen to stay. Every request and every byte sent is written down.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "1" * 40
TOKEN = "hf_" + "a" * 34  # of somebody who was let in everywhere
OTHER_TOKEN = "hf_" + "b" * 34  # of somebody who was not
PAGE = 2  # files of one page of a tree
PART = 16 * 1024  # sent at a time


@dataclass(frozen=True)
class Request:
    """What somebody asked."""

    host: str
    path: str
    range: str
    token: str


@dataclass
class Faults:
    """What goes wrong, and how often."""

    drop_after: int = 0  # bytes of a reply, then the connection is cut
    n_drops: int = 0
    n_busy: int = 0  # 429 replies before all is well
    n_broken: int = 0  # 503 replies
    n_expired: int = 0  # 403 replies to signed addresses
    wait_s: int = 0  # that a 429 asks for
    lies: bool = False  # promises another SHA-256 than its files have
    flipped: bool = False  # sends one wrong byte
    ranges: bool = True
    sizes: bool = True  # of the files, in the repository's description
    redirects: bool = True  # large files come from another host
    to_plain: str = ""  # sends on to this address instead
    bytes_per_s: float = 0.0  # 0 is as fast as it goes


@dataclass
class Repo:
    """A repository."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False


@dataclass
class StandInHub:
    """Serves `repos` until the end of the `with` block."""

    repos: dict[str, Repo]
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # of which file, from where, to where
    n_sending: int = 0  # bodies that are on their way

    @classmethod
    def of(cls, files: Mapping[str, Mapping[str, bytes]], **faults: object) -> StandInHub:
        """A hub with these files: repository -> path -> content."""
        return cls({name: Repo(dict(content)) for name, content in files.items()}, Faults(**faults))  # type: ignore[arg-type]

    def __enter__(self) -> StandInHub:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """What was asked, in order, without hosts and queries."""
        return [urlsplit(request.path).path for request in self.requests]

    def env(self, **more: str) -> dict[str, str]:
        """The variables by which clients find it."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN_PATH": "/nowhere/token", **more}

    def sent_bytes(self) -> int:
        """Bytes of files that were sent."""
        return sum(end - start for _, start, end in self.sent)

    def sent_twice(self, beyond: int = 0) -> int:
        """Bytes that were sent more than once, of those behind the first `beyond` of each file."""
        n_bytes = 0
        reached: dict[str, int] = {}
        for path, start, end in sorted(self.sent):
            known = max(reached.get(path, 0), beyond)
            n_bytes += max(0, min(end, known) - max(start, beyond))
            reached[path] = max(reached.get(path, 0), end)
        return n_bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: StandInHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: PLR0911  # a table of routes
        self.hub = self.server.hub
        self.faults = self.hub.faults
        token = self.headers.get("Authorization", "")
        host = self.headers.get("Host", "").partition(":")[0]
        with self.server.lock:
            self.hub.requests.append(Request(host, self.path, self.headers.get("Range", ""), token))
        address = urlsplit(self.path)
        path = unquote(address.path)
        if self._counts("n_busy"):
            headers = {"RateLimit": f'"api";r=0;t={self.faults.wait_s}'}
            return self._error(429, "", "too many requests", headers)
        if self._counts("n_broken"):
            return self._error(503, "", "not now")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            return self._describe(match[1], match[2] or "", match[3] or "main", parse_qs(address.query))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3])
        if match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            if self._counts("n_expired"):
                return self._error(403, "", "Request has expired")
            return self._send(self.hub.repos[match[1]].files[match[2]], match[2], "f" * 64)
        if match := re.fullmatch(r"/web/(.+)", path):
            return self._send(self.hub.repos["web/files"].files[match[1]], match[1], "")
        return self._error(404, "", "Not found")

    # ---- what the hub's interface says

    def _describe(self, name: str, view: str, revision: str, query: Mapping[str, list[str]]) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        if revision not in ("main", COMMIT):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if view == "tree":
            return self._tree(name, repo, int(query.get("cursor", ["0"])[0]))
        siblings = [self._sibling(path, data, bool(query.get("blobs"))) for path, data in repo.files.items()]
        gated = "manual" if repo.gated else False
        self._json({"id": name, "sha": COMMIT, "private": repo.private, "gated": gated, "siblings": siblings})

    def _sibling(self, path: str, data: bytes, blobs: bool) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": path}
        if blobs and self.faults.sizes:
            entry |= {"size": len(data), "blobId": "0" * 40}
            entry |= (
                {"lfs": {"sha256": self._promise(data), "size": len(data)}}
                if path.endswith((".gguf", ".safetensors"))
                else {}
            )
        return entry

    def _tree(self, name: str, repo: Repo, start: int) -> None:
        entries: list[dict[str, object]] = [{"type": "directory", "path": "BF16", "size": 0, "oid": "0" * 40}]
        for path, data in repo.files.items():
            lfs = (
                {"lfs": {"oid": self._promise(data), "size": len(data)}}
                if path.endswith((".gguf", ".safetensors"))
                else {}
            )
            entries.append({"type": "file", "path": path, "size": len(data), "oid": "0" * 40, **lfs})
        more = start + PAGE < len(entries)
        link = f'</api/models/{name}/tree/{COMMIT}?recursive=true&cursor={start + PAGE}>; rel="next"'
        self._json(entries[start : start + PAGE], {"Link": link} if more else {})

    def _promise(self, data: bytes) -> str:
        return hashlib.sha256(data[: 2**28] + b"?" * self.faults.lies).hexdigest()

    # ---- files

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        if repo.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 403 if "Authorization" in self.headers else 401
            return self._error(status, "GatedRepo", f"Access to model {name} is restricted.")
        if revision not in ("main", COMMIT):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path not in repo.files:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": COMMIT})
        data = repo.files[path]
        promise = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{self._promise(data)}"'}
        promise |= {"X-Linked-Size": str(len(data))}
        if not self.faults.redirects:
            return self._send(data, path, self._promise(data), promise)
        port = self.server.server_address[1]
        target = self.faults.to_plain or f"http://localhost:{port}/cdn/{name}/{quote(path)}?Signature=s"
        self._reply(302, b"Found. Redirecting", {"Location": target, **promise})

    def _send(self, data: bytes, path: str, etag: str, headers: Mapping[str, str] | None = None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.faults.ranges else None
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1 if asked and asked[2] else len(data), len(data))
        if start >= len(data):
            return self._reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if asked else 200)
        told = {"ETag": f'"{etag}"', "Content-Length": str(end - start), **(headers or {})}
        told |= {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if asked else {}
        for key, value in told.items():
            self.send_header(key, value)
        self.end_headers()
        with self.server.lock:
            self.hub.n_sending += 1
        try:
            self._send_body(data, path, start, end)
        finally:
            with self.server.lock:
                self.hub.n_sending -= 1

    def _send_body(self, data: bytes, path: str, start: int, end: int) -> None:
        cut = start + self.faults.drop_after if self.faults.drop_after and self._counts("n_drops") else end
        for position in range(start, min(end, cut), PART):
            part = data[position : min(position + PART, end, cut)]
            if self.faults.flipped and position == 0:
                part = part[:-1] + bytes([part[-1] ^ 1])
            self.wfile.write(part)
            with self.server.lock:
                self.hub.sent.append((path, position, position + len(part)))
            if self.faults.bytes_per_s:
                time.sleep(len(part) / self.faults.bytes_per_s)
        if cut < end:
            self.close_connection = True

    # ---- replies

    def _repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        token = self.headers.get("Authorization", "")
        if token and token not in (f"Bearer {TOKEN}", f"Bearer {OTHER_TOKEN}"):
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not token):
            if token:
                self._error(404, "RepoNotFound", "Repository not found")
            else:
                self._error(401, "", "Invalid username or password.")
        else:
            return repo
        return None

    def _counts(self, fault: str) -> bool:
        """True while a fault is to happen once more."""
        with self.server.lock:
            left = getattr(self.faults, fault)
            setattr(self.faults, fault, max(0, left - 1))
        return bool(left > 0)

    def _json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._reply(status, json.dumps({"error": message}).encode(), told)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
