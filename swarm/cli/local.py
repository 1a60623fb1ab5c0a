"""The node that runs on this device, as other commands reach it: its local API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm import config
from swarm.errors import ConfigError, ModelNotFound, SwarmNetworkError

if TYPE_CHECKING:
    import http.client  # slow to import: only where a node runs

Json = dict[str, object]
Stop = Callable[[], Awaitable[None]]
HOST = "127.0.0.1"
QUICK_S = 15.0  # the node answers at once, unless its machine is very busy
IMPORT_S = 3600.0  # to hash a file that was not offered before: 60 GB from a slow disk
MAX_REPLY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class LocalNode:
    """A node that answers."""

    pid: int
    peer: str
    name: str
    api_port: int
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """Of every request: whoever has the token is let in, however many others there are."""
        return {"authorization": f"Bearer {self.token}", "content-type": "application/json"}

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """A new connection to its API."""
        import http.client

        return http.client.HTTPConnection(HOST, self.api_port, timeout=timeout_s)

    def get(self, path: str, timeout_s: float = QUICK_S) -> Json:
        """See something; raise SwarmNetworkError, or ModelNotFound, with what the node said when it cannot."""
        return self._call("GET", path, None, timeout_s)

    def post(self, path: str, body: Json, timeout_s: float = QUICK_S) -> Json:
        """Change something, or have the node work."""
        return self._call("POST", path, body, timeout_s)

    def _call(self, method: str, path: str, body: Json | None, timeout_s: float) -> Json:
        from http.client import HTTPException

        connection = self.connect(timeout_s)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, self.headers)
            response = connection.getresponse()
            value = json.loads(response.read(MAX_REPLY_BYTES))
        except (OSError, HTTPException, ValueError) as error:
            raise SwarmNetworkError(
                f"the node on this device does not answer ({error or type(error).__name__})"
            ) from error
        finally:
            connection.close()
        if response.status != 200:
            kind = ModelNotFound if _code(value) == "model_not_found" else SwarmNetworkError
            raise kind(error_text(value))
        return value if isinstance(value, dict) else {}


def find(settings: config.Settings) -> LocalNode | None:
    """The node that runs on this device with these settings; None when none does."""
    from swarm.node.home import Home

    running = Home(settings.home_path).running()
    if running is None:
        return None
    node = LocalNode(running.pid, running.peer, running.name, running.api_port, running.token)
    try:
        # Another program may have that port by now: only the node itself knows its id.
        return node if node.get("/health").get("peer") == running.peer else None
    except SwarmNetworkError:
        return None


def need(settings: config.Settings) -> LocalNode:
    """The node that runs here; ConfigError when none does."""
    node = find(settings)
    if node is None:
        raise ConfigError("no node runs on this device; `swarm join` starts one")
    return node


@dataclass(frozen=True)
class ModelOfSwarm:
    """A model that the swarm has."""

    id: str
    name: str
    context: int
    file: Path | None  # on this device; None where only chunks are, or nothing


@dataclass(frozen=True)
class SwarmFiles:
    """What the swarm calls its models, and which of them are files of this device; by id."""

    names: dict[str, str]
    files: dict[str, Path]

    def called(self, text: str) -> str | None:
        """The id of the only model that is called so, or whose id begins so."""
        from swarm.store.naming import MIN_ID_DIGITS, slug

        by_name = [model for model, name in self.names.items() if name == slug(text)]
        by_id = [model for model in self.names if len(text) >= MIN_ID_DIGITS and model.startswith(text.lower())]
        found = by_name or by_id
        return found[0] if len(found) == 1 else None


def files_of(node: LocalNode) -> SwarmFiles:
    """What the node knows of models and files."""
    told: Any = node.get("/swarm/files")
    paths = {str(model): Path(path) for model, path in told["files"].items()}
    return SwarmFiles(dict(told["names"]), {model: path for model, path in paths.items() if path.is_file()})


def model_of_swarm(node: LocalNode, text: str) -> ModelOfSwarm:
    """What MODEL means to the swarm; raise ModelNotFound when it has nothing of it."""
    model = node.post("/swarm/model", {"model": text}, IMPORT_S)
    found = str(model["id"])
    return ModelOfSwarm(found, str(model["name"]), int(str(model["context"])), files_of(node).files.get(found))


def name_of_model(node: LocalNode, model: str | None) -> str:
    """How the node calls what MODEL means on the command line: a file is offered to the swarm first."""
    from swarm.store.keeping import file_at

    path = file_at(model) if model else None
    return str(node.post("/swarm/models", {"path": str(path.resolve())}, IMPORT_S)["id"]) if path else model or ""


def _code(value: object) -> object:
    error = value.get("error") if isinstance(value, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def error_text(value: object) -> str:
    """What an error of the API says."""
    error = value.get("error") if isinstance(value, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    return text if isinstance(text, str) else "the node gave an error that makes no sense"
