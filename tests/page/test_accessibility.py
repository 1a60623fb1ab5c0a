"""What axe-core, the usual checker of accessibility, finds in every view: nothing that matters.

It is asked from npm; where there is no npm, or nothing to be had from it, these tests are skipped. AXE names a file
of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import PHONE
from tests.helpers.nodes import NodeProcess
from tests.page.conftest import Opened
from tests.page.test_views_in_browser import VIEWS, with_key

AXE = "axe-core@4"
FETCH_S = 60
SERIOUS = ("serious", "critical")
RUN = """() => axe.run(document, { resultTypes: ["violations"] }).then((found) => found.violations.map((one) =>
    ({ rule: one.id, impact: one.impact, help: one.help, nodes: one.nodes.map((node) => node.html.slice(0, 200)) })))"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its source."""
    if given := os.environ.get("AXE"):
        return Path(given).read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here, from which axe-core comes")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", AXE, "--silent"]
    try:
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer, from which axe-core comes")
    archives = list(folder.glob("axe-core-*.tgz"))
    if packed.returncode or not archives:
        pytest.skip(f"npm has no axe-core to give: {packed.stderr[-200:]}")
    with tarfile.open(archives[0]) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()


def serious(page: Any, axe: str) -> list[dict[str, Any]]:
    """What it finds that keeps somebody out."""
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(RUN)
    return [one for one in found if one["impact"] in SERIOUS]


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["wide", "dark", "phone"])
@pytest.mark.parametrize("view", VIEWS)
def test_nobody_is_kept_out_of_a_view(opened: Opened, axe: str, view: str, options: dict[str, object]) -> None:
    page = opened(view, **options).page
    page.wait_for_selector("#main h1")
    assert serious(page, axe) == []


@pytest.mark.parametrize("view", ["plan", "models", "invite"])
def test_nor_of_what_the_nodes_user_sees(opened: Opened, node: NodeProcess, axe: str, view: str) -> None:
    page = with_key(opened(), node, view)
    if view == "invite":
        page.click("text=Show a code")
        page.wait_for_selector(".qr")
    page.wait_for_timeout(500)
    assert serious(page, axe) == []


def test_nor_of_an_answer(opened: Opened, axe: str) -> None:
    page = opened().page
    page.fill("#question", "Say one word.")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-done], .figures, .turn .foot", timeout=60_000)
    assert serious(page, axe) == []


def test_the_checker_finds_what_is_wrong(opened: Opened, axe: str) -> None:
    page = opened().page
    page.evaluate("document.getElementById('main').append(document.createElement('input'))")
    assert "label" in {one["rule"] for one in serious(page, axe)}
