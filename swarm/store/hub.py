"""The hub: which files a repository has, at which commit, and what its refusals mean.

One request tells everything that a pull needs of a repository: the commit, and each file's size and SHA-256. A mirror
that leaves those out is asked for its tree as well. Files are read through `WebFile`, at the commit that was found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urljoin

import httpx

from swarm.errors import DownloadError
from swarm.limits import MAX_HUB_PAGES, MAX_HUB_REPLY_BYTES
from swarm.store.hub_names import HubName
from swarm.store.variants import RepoFile
from swarm.store.web_file import Web, WebFile, body_of, refused

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Repository:
    """What a repository held when it was asked; all that follows is read at `commit`."""

    name: str
    commit: str
    files: tuple[RepoFile, ...]


def repository(web: Web, name: HubName) -> Repository:
    """The files of a repository and the commit they are of. Raise NoSuchRepository or DownloadError."""
    at = f"/revision/{quote(name.revision, safe='')}" if name.revision else ""
    url = f"{web.settings.endpoint}/api/models/{name.repository}{at}?blobs=true"
    found, _ = _json(web, url, name)
    commit, files = found.get("sha"), found.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(files, list):
        raise DownloadError(f"{web.settings.endpoint} answers as no hub does; what is HF_ENDPOINT set to?")
    called = found.get("id")
    repo = called if isinstance(called, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", called) else name.repository
    listed = [_sibling(file) for file in files if isinstance(file, dict)]
    if any(file.n_bytes == 0 and file.name.lower().endswith(".gguf") for file in listed):
        listed = list(_tree(web, name, repo, commit))
    return Repository(repo, commit, tuple(listed))


def file_of(web: Web, repo: str, commit: str, file: RepoFile) -> WebFile:
    """A file of a repository, to be read by ranges."""
    url = f"{web.settings.endpoint}/{repo}/resolve/{commit}/{quote(file.path)}"
    owner, _, name = repo.partition("/")
    refusal = partial(_refused, web=web, name=HubName(owner, name, file=file.path))
    return WebFile(web, url, n_bytes=file.n_bytes, sha256=file.sha256, refusal=refusal)


def _tree(web: Web, name: HubName, repo: str, commit: str) -> Iterator[RepoFile]:
    url = f"{web.settings.endpoint}/api/models/{repo}/tree/{commit}?recursive=true&expand=false"
    for _ in range(MAX_HUB_PAGES):
        entries, following = _json(web, url, name)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("type") == "file":
                yield _entry(entry.get("path"), entry.get("size"), entry.get("lfs"), "oid")
        if not following:
            return
        url = following
    raise DownloadError(f"{repo} has more files than a repository of models can have")


def _sibling(entry: dict[str, Any]) -> RepoFile:
    return _entry(entry.get("rfilename"), entry.get("size"), entry.get("lfs"), "sha256")


def _entry(path: object, size: object, lfs: object, hash_key: str) -> RepoFile:
    """A file of a list, whose key for the SHA-256 depends on the list; what makes no sense has 0 bytes."""
    sha256 = lfs.get(hash_key) if isinstance(lfs, dict) else None
    right_path = path if isinstance(path, str) and path.isprintable() and ".." not in path.split("/") else ""
    right_size = size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 2**53 else 0
    return RepoFile(right_path, right_size, sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else "")


def _json(web: Web, url: str, name: HubName) -> tuple[Any, str]:
    """A reply of the hub's interface, and the address of the next page ("" for none)."""
    following = ""

    def ask() -> bytes:
        nonlocal following
        with web.follow(url, {"Accept": "application/json"}) as reply:
            if reply.status_code != 200:
                raise _refused(reply, body_of(reply), web=web, name=name)
            data = bytearray()
            for part in reply.iter_bytes():
                data += part
                if len(data) > MAX_HUB_REPLY_BYTES:
                    raise DownloadError(f"the list of {name.repository} is longer than {MAX_HUB_REPLY_BYTES} bytes")
            link = reply.links.get("next", {}).get("url", "")
            following = urljoin(url, link) if link else ""
            return bytes(data)

    data = web.patiently(ask)
    try:
        return json.loads(data), following
    except ValueError as error:
        raise DownloadError(f"{web.settings.endpoint} answered no list of {name.repository}: {error}") from error


def _refused(  # a table of refusals
    reply: httpx.Response, body: str, *, web: Web, name: HubName
) -> DownloadError:
    """What a refusal of the hub means. Its code tells more than its status: 401 is also its word for "not found"."""
    if not str(reply.url).startswith(f"{web.settings.endpoint}/"):
        return refused(reply, body)
    code, said = reply.headers.get("x-error-code", ""), reply.headers.get("x-error-message", "")
    repo, token, status = name.repository, web.settings.token, reply.status_code
    if code == "GatedRepo":
        return DownloadError(_gated(repo, f"{web.settings.endpoint}/{repo}", has_token=bool(token)))
    if code in ("RevisionNotFound", "EntryNotFound"):
        what = f"file {name.file}" if code == "EntryNotFound" else f"revision {name.revision or 'of that name'}"
        return NoSuchRepository(f"{repo} has no {what}")
    if status == 401 and token and "credential" in said.lower():
        return DownloadError("the hub does not know your HF_TOKEN; make a new one, or unset it: most models need none")
    if status in (401, 404):
        hint = "" if token else ", or it is private: then set HF_TOKEN"
        return NoSuchRepository(f"the hub has no repository {repo}{hint}")
    closed = f"the hub does not give {repo} to anybody now ({said or 'forbidden'})"
    return DownloadError(closed) if status == 403 else refused(reply, body)


def _gated(repo: str, page: str, *, has_token: bool) -> str:
    if has_token:
        return f"{repo} is not open to the owner of your HF_TOKEN; ask at {page}"
    return f"{repo} is only for those who have asked for it: ask at {page}, then set HF_TOKEN to a token of yours"


class NoSuchRepository(DownloadError):
    """The hub has nothing of that name, or does not say so to everybody."""
