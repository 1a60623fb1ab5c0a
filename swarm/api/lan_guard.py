"""Who may ask from other devices of the house: whoever has the key, by a name that is this device's.

The key may come as programs send theirs: as a bearer's token, in `x-api-key`, or as the password of a user (which a
browser asks for, and which may stand in an address: http://swarm:KEY@host:8742).
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import platform
import re
from collections.abc import Iterable

from starlette.requests import Request

from swarm.api.errors import BadRequest
from swarm.node.lan_access import LanAccess

REALM = {"www-authenticate": 'Basic realm="Swarm: any name, and the API key as password"'}
_OWN_SITES = {"same-origin", "none"}
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def lan_refusal(request: Request, access: LanAccess) -> BadRequest | None:
    """Why a request from another device is refused; None when it is not."""
    headers = request.headers
    host = _only(headers.getlist("host"))
    if host is None or not _is_ours(host, access.hosts):
        text = "this device is not called so; `swarm serve --lan --host NAME` lets a name in"
        return BadRequest(text, status=403, code="unknown_host")
    if not _is_fine_origin(request, host, access.origins):
        text = "pages of that site may not ask; `swarm serve --lan --origin ORIGIN` lets one in"
        return BadRequest(text, status=403, code="unknown_origin")
    is_preflight = request.method == "OPTIONS" and "origin" in headers  # browsers send no key with these
    if not is_preflight and not any(access.opens_with(key) for key in keys_in(request)):
        text = "the API key is missing or wrong; `swarm serve --lan --new-key` on the device makes one"
        return BadRequest(text, status=401, code="invalid_api_key")
    return None


def keys_in(request: Request) -> Iterable[str]:
    """The keys that a request shows."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip()
    elif scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            yield base64.b64decode(value, validate=True).decode().partition(":")[2]
    for name in ("x-api-key", "api-key"):
        if name in request.headers:
            yield request.headers[name]


def _only(values: list[str]) -> str | None:
    return values[0] if len(values) == 1 else None


def _is_ours(host: str, others: Iterable[str]) -> bool:
    """An address, this device's name, or one that was let in: no other site's name leads here unseen."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match["name"].strip("[]").lower().rstrip(".")
    try:
        ipaddress.ip_address(name.partition("%")[0])
        return True
    except ValueError:
        own = platform.node().lower().partition(".")[0]
        return name in {own, f"{own}.local", "localhost", *(other.lower() for other in others)}


def _is_fine_origin(request: Request, host: str, allowed: Iterable[str]) -> bool:
    origins = request.headers.getlist("origin")
    if not origins:
        site = _only(request.headers.getlist("sec-fetch-site") or ["none"])
        return site in _OWN_SITES
    origin = _only(origins)
    own = {f"{scheme}://{host}".lower() for scheme in ("http", "https")}
    return origin is not None and (origin.lower() in own or origin in allowed or "*" in allowed)
