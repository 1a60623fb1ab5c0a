"""The page in a real browser, in front of a real node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import browser
from tests.helpers.browser import Watched
from tests.helpers.nodes import NodeProcess, Swarm

Opened = Callable[..., Watched]


# Not for the session: while playwright is up its event loop runs in this thread, and nobody else can run one.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if reason := browser.why_not():
        pytest.skip(reason)
    with browser.chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, real_model: Path, chromium: Any) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("swarm")
    (folder / "models").mkdir()
    (folder / "models" / real_model.name).symlink_to(real_model)
    with Swarm(folder, [400_000_000], model=real_model, context=2048) as nodes:
        yield nodes.nodes[0]


@pytest.fixture
def opened(chromium: Any, node: NodeProcess) -> Iterator[Opened]:
    """Opens the page in a browser that has never seen it; in the end nothing may have failed or gone elsewhere."""
    contexts: list[Any] = []
    pages: list[Watched] = []

    def open_page(view: str = "chat", **options: object) -> Watched:
        assert node.local is not None
        context = chromium.new_context(**options)
        contexts.append(context)
        page = Watched(context.new_page(), f"http://127.0.0.1:{node.local.api_port}")
        pages.append(page)
        page.open(view)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for page in pages:
        assert page.elsewhere == set()
        assert page.errors == []
