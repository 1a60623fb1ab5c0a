"""A node with two models, for real clients: one that only talks, and one that calls functions."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.calling_models import HERMES
from tests.helpers.gguf_template import with_template
from tests.helpers.nodes import Swarm

CONTEXT = 1024


@dataclass(frozen=True)
class Server:
    """Where the node's API is, and what may be asked for."""

    port: int
    talker: str = "talker"
    caller: str = "caller"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1(self) -> str:
        return f"{self.root}/v1"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, real_model: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    models = folder / "models"
    models.mkdir()
    (models / "talker.gguf").symlink_to(real_model)
    with_template(real_model, models / "caller.gguf", HERMES, "caller")
    with Swarm(folder, [700_000_000], context=CONTEXT) as nodes:
        local = nodes.nodes[0].local
        assert local is not None
        yield Server(local.api_port)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Connections that a client leaves to the collector are closed while warnings of it are not heard."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other people's programs warn of what they like."""
    for item in items:
        if "tests/clients" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore"))
