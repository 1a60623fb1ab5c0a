"""Where a text says that a model lies: in a repository of the hub, or behind an address. Text in, values out.

All of these are one repository, as people know it from other programs and from the line of their browser:

    USER/REPO   hf.co/USER/REPO   huggingface.co/USER/REPO   hf://USER/REPO
    https://huggingface.co/USER/REPO, and .../tree/REVISION, .../blob/REVISION/FILE.gguf, .../resolve/REVISION/FILE.gguf

followed, where a browser's address names no file, by :QUANT or @QUANT, or by :FILE.gguf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from swarm.errors import ModelNotFound

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(rf"({_PART})/({_PART})")
_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co")
_FILE_VIEWS = ("blob", "resolve", "tree", "raw")

# A word that can only be a quant: of a file's name, or of what somebody typed behind ":".
QUANT_LABEL = r"(?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|F32)"


@dataclass(frozen=True)
class HubName:
    """A repository of the hub, and what of it is meant: a file, or a quant, or ("") whatever suits best."""

    owner: str
    repo: str
    quant: str = ""
    file: str = ""
    revision: str = ""  # "" is the newest

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.repo}"

    def __str__(self) -> str:
        tag = self.quant or self.file
        return self.repository + (f":{tag}" if tag else "")


@dataclass(frozen=True)
class WebAddress:
    """A GGUF file somewhere on the web."""

    url: str

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]

    def __str__(self) -> str:
        return self.url


def hub_or_web(text: str, endpoint: str = "") -> HubName | WebAddress | None:
    """What a text says that is written as a repository or an address; None for anything else.

    `endpoint`: a mirror of the hub whose addresses are the hub's, too. Raise ModelNotFound for an address of the hub
    or the web that can be no model.
    """
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return _of_address(text, rest, endpoint)
    if separator:
        return _of_hub(rest) if scheme.lower() == "hf" else _no_scheme(text)
    host, slash, path = text.partition("/")
    if slash and host.lower() in _HOSTS:
        return _of_hub(path)
    name, _, tag = _split_tag(text)
    if _REPOSITORY.fullmatch(name) and not name.lower().endswith(".gguf"):
        return _of_hub(name, tag)
    return None


def is_quant(text: str) -> bool:
    """True for a word such as Q4_K_M, in any case."""
    return re.fullmatch(QUANT_LABEL, text, re.IGNORECASE) is not None


def _of_address(url: str, rest: str, endpoint: str) -> HubName | WebAddress:
    host, _, path = rest.partition("/")
    mirror = endpoint.partition("://")[2]
    if host.lower() in _HOSTS or (mirror and rest.startswith(f"{mirror}/")):
        return _of_hub(path if host.lower() in _HOSTS else rest.removeprefix(f"{mirror}/"))
    found = WebAddress(url)
    if not found.file_name.lower().endswith(".gguf") or not host:
        raise ModelNotFound(f"{url} is not the address of a GGUF file; give one that ends with .gguf")
    return found


def _of_hub(path: str, tag: str = "") -> HubName:
    """A path on the hub: a repository, then perhaps what of it is meant."""
    path = unquote(path.partition("?")[0].partition("#")[0]).strip("/")
    if not tag:
        path, _, tag = _split_tag(path)
    match = re.fullmatch(rf"{_REPOSITORY.pattern}(?:/(.+))?", path)
    if match is None:
        raise ModelNotFound(f"{path!r} is no repository of the hub; write hf.co/USER/REPO or hf.co/USER/REPO:QUANT")
    owner, repo, rest = match[1], match[2], match[3] or ""
    view, _, view_rest = rest.partition("/")
    if view in _FILE_VIEWS and view_rest:
        revision, _, rest = view_rest.partition("/")
    else:
        revision = ""
    if rest.lower().endswith(".gguf"):
        return HubName(owner, repo, file=rest, revision=revision)
    if rest:
        tag = tag or (rest if is_quant(rest) else "")  # a folder called by a quant, as of split files
        if not tag:
            raise ModelNotFound(f"{path!r} names no GGUF file of {owner}/{repo}; write hf.co/{owner}/{repo}:QUANT")
    return HubName(owner, repo, revision=revision, **_tagged(tag))


def _tagged(tag: str) -> dict[str, str]:
    if tag.lower() in ("", "latest"):
        return {}
    return {"file": tag} if tag.lower().endswith(".gguf") else {"quant": tag}


def _split_tag(text: str) -> tuple[str, str, str]:
    """A name, and the tag behind the last : or @ of its last part."""
    match = re.fullmatch(r"(.*?)([:@])([^:@]*)", text)
    return (match[1], match[2], match[3]) if match else (text, "", "")


def _no_scheme(text: str) -> HubName:
    raise ModelNotFound(
        f"{text!r} is an address of a kind that Swarm does not know; give https://... or hf.co/USER/REPO"
    )
