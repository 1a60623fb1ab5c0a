"""The views beside the chat: devices that come and go, plans, models, what other programs need, and invitations."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import PHONE, Watched
from tests.helpers.nodes import NodeProcess, Swarm, wait_for
from tests.page.conftest import Opened

SEEN_S = 2.0  # a device that is gone is seen within this; links that break are told at once
BUSY_S = 8.0  # what a machine may add that has other work
VIEWS = ("chat", "devices", "plan", "models", "connect", "invite")


def with_key(watched: Watched, node: NodeProcess, view: str) -> Any:
    """The page as `swarm page` opens it."""
    code = node.post("/swarm/page", {})["code"]
    watched.page.goto("about:blank")
    watched.open(f"enter={code}")
    watched.page.wait_for_selector("#question")
    watched.open(view)
    return watched.page


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_and_says_what_it_is(opened: Opened, view: str, options: dict[str, object]) -> None:
    page = opened(view, **options).page
    page.wait_for_selector(f"#tab-{view}[aria-current=page]")
    page.wait_for_selector("#main h1")
    assert page.evaluate("document.getElementById('main').scrollWidth <= innerWidth")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, a, input, select, textarea")].filter((e) => !e.ariaHidden &&
          !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.title)).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert (
        page.evaluate(
            "[...document.querySelectorAll('[id]')].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i)"
        )
        == []
    )


def test_who_has_no_key_may_look_and_is_told_how_to_get_one(opened: Opened) -> None:
    page = opened("invite").page
    page.wait_for_selector("text=swarm page")
    assert page.locator("text=Show a code").count() == 0
    page.click("#tab-plan")
    page.wait_for_selector("#main >> text=swarm page")


def test_a_code_lets_a_browser_in_once_and_leaves_the_address(opened: Opened, node: NodeProcess) -> None:
    code = node.post("/swarm/page", {})["code"]
    first = opened(f"enter={code}").page
    first.wait_for_selector("#question")
    assert code not in first.url
    first.click("#tab-invite")
    first.click("text=Show a code")
    first.wait_for_selector(".code-big")
    command = f"swarm join {first.locator('.code-big').inner_text()}"
    assert command in first.locator(".invitation").inner_text()
    assert command in str(first.locator(".qr").get_attribute("aria-label"))
    reader, image = pytest.importorskip("zxingcpp"), pytest.importorskip("PIL.Image")
    picture = image.open(io.BytesIO(first.locator(".qr").screenshot()))
    assert [found.text for found in reader.read_barcodes(picture)] == [command]


def test_plans_are_compared_with_devices_that_nobody_owns(opened: Opened, node: NodeProcess) -> None:
    page = with_key(opened(), node, "plan")
    page.wait_for_selector(".card .big")
    titles = page.locator(".card h2").all_inner_texts()
    assert titles == ["As it is", "+ 1 Raspberry Pi 5", "+ 2 Raspberry Pi 5"]
    assert "tok/s" in page.locator(".card .big").first.inner_text()
    assert "limited by" in page.locator(".card .main-reason").first.inner_text()
    page.select_option("#add-kind", "n100")
    page.fill("#add-count", "3")
    page.click("text=Add a column")
    page.wait_for_selector(".card h2 >> text=+ 3 mini PC with N100")
    page.click("[aria-label='Remove this column'] >> nth=0")
    wait_for(lambda: page.locator(".card").count() == 3, "the column to go")


def test_models_say_where_they_lie(opened: Opened) -> None:
    page = opened("models").page
    page.wait_for_selector(".places >> text=all of it")
    assert "MiB" in page.locator(".card").first.inner_text()


def test_who_has_the_key_may_fetch_and_remove_models(opened: Opened, node: NodeProcess) -> None:
    page = with_key(opened(), node, "models")
    page.fill("#pull-name", "qwen3-8b")
    page.click("text=Fetch")
    page.wait_for_selector(".now >> text=swarm pull qwen3-8b")  # where there is one device, it fetches a file
    page.wait_for_selector("text=Remove from the swarm")


def test_programs_get_the_address_and_the_model_that_are_true_here(opened: Opened, node: NodeProcess) -> None:
    watched = opened("connect")
    page = watched.page
    wait_for(lambda: page.locator("#connect-model option").count() > 0, "the models")
    text = page.locator(".programs").inner_text()
    name = node.get("/v1/models")["data"][0]["id"]  # type: ignore[index]
    assert (
        f'"model": "{name}"' in text
        and f'base_url="{watched.base}/v1"' in text
        and "MODEL" not in text.replace("ANTHROPIC_MODEL", "")
    )
    for program in ("curl", "Python", "Open WebUI", "Continue", "Copilot", "Home Assistant", "aider", "Claude Code"):
        assert program in text


@pytest.fixture
def three(tmp_path: Path, real_model: Path, chromium: Any) -> Iterator[Swarm]:
    """Three devices, of which two are needed."""
    with Swarm(tmp_path, [90_000_000] * 3, model=real_model, context=512) as nodes:
        yield nodes


def test_a_device_that_is_killed_is_seen_while_the_answer_goes_on(three: Swarm, chromium: Any) -> None:
    first, *others = three.nodes
    assert first.local is not None
    watched = Watched(chromium.new_context().new_page(), f"http://127.0.0.1:{first.local.api_port}")
    page = watched.open()
    page.wait_for_selector("#question")
    page.evaluate(
        "value => localStorage.setItem('swarm-choices', value)", json.dumps({"temperature": 0, "max_tokens": 300})
    )
    page.fill("#question", "Tell me a long story about the sea.")
    page.keyboard.press("Enter")
    text = page.locator(".turn.answer .md").last
    wait_for(lambda: text.count() > 0 and len(text.text_content()) > 60, "the first words")
    page.wait_for_selector(".stages li")
    names = page.locator(".stages li").all_inner_texts()
    victim = next(node for node in others if any(node.name in name for name in names))
    page.click("#tab-devices")
    page.wait_for_selector(f".cell >> text={victim.name}")
    victim.kill()
    killed = time.monotonic()
    page.wait_for_selector(".cell.gone .name")
    took = time.monotonic() - killed
    assert took < SEEN_S + BUSY_S, f"{took:.1f} s"
    assert page.locator(".cell.gone .name").text_content() == victim.name
    page.click("#tab-chat")
    page.wait_for_selector(f".notes >> text={victim.name} is gone")
    page.wait_for_selector("button.send:not(.stop)", timeout=150_000)
    assert page.locator(".trouble").count() == 0 and len(text.text_content()) > 200
    assert watched.elsewhere == set() and watched.errors == []
    page.context.close()


def test_a_node_that_has_ended_is_told_and_comes_back(tmp_path: Path, real_model: Path, chromium: Any) -> None:
    with Swarm(tmp_path, [400_000_000], model=real_model, context=512) as nodes:
        (node,) = nodes.nodes
        assert node.local is not None
        page = chromium.new_context().new_page()
        page.goto(f"http://127.0.0.1:{node.local.api_port}/")
        page.wait_for_selector("#node >> text=1 device")
        page.evaluate("value => localStorage.setItem('swarm-choices', value)", json.dumps({"max_tokens": 350}))
        page.evaluate("Math.random = () => 0.5")  # a seed whose answer is long
        page.fill("#question", "Tell me a long story about the sea.")
        page.keyboard.press("Enter")
        text = page.locator(".turn.answer .md").last
        wait_for(lambda: text.count() > 0 and len(text.text_content()) > 100, "the first words")
        before = text.text_content()
        node.kill()
        page.wait_for_selector("body.away")
        page.wait_for_selector(".trouble >> text=lost in the middle")
        node.start()
        node.wait_ready()
        node.post("/swarm/models", {"path": str(real_model)})
        page.wait_for_selector("body:not(.away)")
        page.wait_for_selector("button.send:not(.stop)", timeout=120_000)
        page.wait_for_selector(".turn.answer .figures >> text=tok/s", timeout=120_000)
        assert text.text_content().startswith(before[:-20])
        page.context.close()
