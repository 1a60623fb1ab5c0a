"""The page at / of every node: files of this package, as they are, with headers that let nothing else in.

There is no build step and nothing is fetched from elsewhere: the policy below forbids it, and so does it forbid that
text becomes markup (Trusted Types), whatever a model writes.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from swarm.api.errors import BadRequest

FOLDER = Path(__file__).parent / "files"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # asked for again each time, and mostly answered by 304: a new build shows at once
    "vary": "accept-encoding",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page, as it is and as it travels."""

    kind: str
    data: bytes
    packed: bytes
    tag: str


@cache
def page_files() -> Mapping[str, PageFile]:
    """All files of the page by their names; read once."""
    return {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in KINDS}


async def root(request: Request) -> Response:
    """GET /: the page for browsers; for programs that only ask whether somebody is there, a line."""
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("Swarm is running")
    return _given(request, page_files()["index.html"])


async def page_file(request: Request) -> Response:
    """GET /page/NAME: what the page consists of."""
    file = page_files().get(request.path_params["name"])
    if file is None:
        raise BadRequest(f"the page has no such file: {request.path_params['name'][:80]}", status=404, code="not_found")
    return _given(request, file)


def _read(path: Path) -> PageFile:
    data = path.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    return PageFile(KINDS[path.suffix], data, gzip.compress(data, mtime=0), tag)


def _given(request: Request, file: PageFile) -> Response:
    headers = {**HEADERS, "etag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.kind)
    return Response(file.data, headers=headers, media_type=file.kind)
