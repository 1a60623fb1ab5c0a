"""Chatting in a browser: what comes, what is stopped, what a reload leaves, and what hands can do without a mouse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.helpers.browser import PHONE, Watched
from tests.helpers.nodes import wait_for
from tests.page.conftest import Opened

LONG = "Tell me a very long story about a lighthouse keeper and the sea, with many chapters."
DONE = "button.send:not(.stop)"
COMING = "button.send.stop"
ENDLESS = 1500  # tokens: no machine is through with them before the test is


def ask(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.keyboard.press("Enter")


def answer_of(page: Any) -> str:
    return str(page.locator(".turn.answer .md").last.inner_text())


def choose(watched: Watched, **choices: object) -> Any:
    page = watched.page
    page.evaluate("value => localStorage.setItem('swarm-choices', value)", json.dumps(choices))
    page.reload()
    return page


def some_text(page: Any, chars: int = 80) -> None:
    """The page's policy lets no condition be evaluated in it again and again, so it is looked at from here."""
    box = page.locator(".turn.answer .md").last
    wait_for(lambda: box.count() > 0 and len(box.text_content()) > chars, "text of the answer")


def test_an_answer_comes_with_its_figures_and_is_kept(opened: Opened) -> None:
    page = choose(opened(), temperature=0, max_tokens=40)
    ask(page, "Name three colours.")
    page.wait_for_selector(".turn.answer .figures")
    page.wait_for_selector(DONE)
    assert len(answer_of(page)) > 10
    figures = page.locator(".turn.answer .figures").last.inner_text()
    assert "tokens" in figures and "tok/s" in figures and "first word after" in figures
    text = answer_of(page)
    page.goto("about:blank")
    page.go_back()
    page.wait_for_selector(".turn.answer .figures")
    assert answer_of(page) == text and "Name three colours." in page.locator(".chats").inner_text()


def test_stop_ends_the_answer_and_keeps_what_has_come(opened: Opened) -> None:
    page = choose(opened(), temperature=0)
    ask(page, LONG)
    some_text(page)
    page.click(COMING)
    page.wait_for_selector(DONE)
    text = answer_of(page)
    assert len(text) > 50 and "stopped" in page.locator(".turn.answer .status").inner_text()
    page.reload()
    page.wait_for_selector(".turn.answer .md p")
    assert page.locator(COMING).count() == 0 and answer_of(page) == text


def test_a_reload_in_the_middle_of_an_answer_costs_no_word(opened: Opened) -> None:
    page = choose(opened(), max_tokens=ENDLESS)
    page.evaluate("Math.random = () => 0.5")  # a seed whose answer is long; after the reload another one would come
    ask(page, LONG)
    some_text(page, 20)
    # However short a time ago the database got something: from here on it gets nothing.
    page.evaluate("() => { IDBObjectStore.prototype.put = function (value) { return this.get(value.id); }; }")
    some_text(page, 200)
    before = answer_of(page)[:-20]  # Markdown that is not closed yet looks otherwise
    page.reload()
    page.wait_for_selector(".turn.answer .md p")
    assert answer_of(page).startswith(before), "what had come is shown at once"
    page.wait_for_selector(COMING)
    some_text(page, len(before) + 200)
    page.click(COMING)
    page.wait_for_selector(DONE)
    assert answer_of(page).startswith(before), "it comes again, word for word"


def test_a_question_is_edited_as_a_branch_and_asked_again(opened: Opened) -> None:
    page = choose(opened(), temperature=0, max_tokens=12)
    ask(page, "Say one.")
    page.wait_for_selector(".turn.answer .figures >> text=first word after")
    page.wait_for_selector(DONE)
    page.hover(".turn.user")
    page.click(".turn.user >> text=Edit")
    page.fill(".editing textarea", "Say two.")
    page.click(".editing >> text=Ask")
    page.wait_for_selector(".turn.answer .figures >> text=first word after")
    assert page.locator(".turn.user .plain").inner_text() == "Say two."
    page.click(".turn.user [aria-label='The version before']")
    assert page.locator(".turn.user .plain").inner_text() == "Say one."
    page.click(".turn.answer >> text=Ask again")
    page.wait_for_selector(".turn.answer .branches >> text=2 of 2")
    page.wait_for_selector(DONE)


def test_everything_can_be_done_with_the_keys(opened: Opened) -> None:
    page = choose(opened(), temperature=0, max_tokens=ENDLESS)
    page.wait_for_selector("#question")
    page.locator("body").press("Tab")
    page.keyboard.press("/")
    if page.evaluate("document.activeElement.id") != "question":
        page.focus("#question")
    page.keyboard.type("Tell me a long story.")
    page.keyboard.press("Enter")
    some_text(page, 20)
    page.keyboard.press("Escape")
    page.wait_for_selector(DONE)
    page.keyboard.press("Control+k")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Alt+n")
    page.wait_for_selector(".welcome")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.ariaLabel || document.activeElement.textContent).trim().slice(0, 30)"
            )
        )
    assert {
        "New conversation",
        "Model",
        "Settings of the chat",
        "Put files into the question",
        "Your question",
    } <= reached


def test_a_file_is_put_into_the_question(opened: Opened, tmp_path: Path) -> None:
    page = choose(opened(), max_tokens=5)
    text, binary = tmp_path / "notes.md", tmp_path / "photo.jpg"
    text.write_text("The password of the attic is honey.")
    binary.write_bytes(b"\xff\xd8\x00\x01")
    page.set_input_files("input[type=file][multiple]", [text, binary])
    page.wait_for_selector(".composer-trouble:not(:empty)")
    assert page.locator(".chips li").count() == 1
    assert "photo.jpg is not a text file" in page.locator(".composer-trouble").inner_text()
    with page.expect_request("**/v1/chat/completions") as asked:
        ask(page, "What is the password?")
    message = json.loads(asked.value.post_data)["messages"][-1]["content"]
    assert message == "notes.md:\n```\nThe password of the attic is honey.\n```\n\nWhat is the password?"
    page.wait_for_selector(DONE)


def test_a_long_question_shows_how_far_it_is_read(opened: Opened, tmp_path: Path) -> None:
    page = choose(opened(), max_tokens=5)
    text = tmp_path / "long.txt"
    text.write_text("".join(f"Line {i} tells of {i * 7919 % 1000} bees.\n" for i in range(110)))
    page.set_input_files("input[type=file][multiple]", [text])
    page.wait_for_selector(".chips li")
    ask(page, "How many bees?")
    reading = page.wait_for_selector(".reading span")
    assert re.fullmatch(r"reading [\d,]+ of 1,\d{3}", reading.text_content() or "")
    page.wait_for_selector(DONE)
    gauge = page.locator(".gauge")
    assert re.fullmatch(r"1,\d{3} of 2,048 tokens of context", gauge.get_attribute("aria-label") or "")


def test_what_a_model_writes_stays_text(opened: Opened) -> None:
    """Each way into the page that a model could try; the parts that are Markdown are shown as such."""
    page = opened().page
    page.wait_for_selector("#question")
    hostile = (
        "<img src=x onerror=alert(1)> <script>alert(1)</script> [a](javascript:alert(1)) [b](data:text/html,x) "
        "![c](https://evil.example/p.png) <https://x.example> **bold** `<b>`\n\n"
        "| a | b |\n|---|:-:|\n| 1 | <i>2</i> |\n\n1. one\n   - two\n\n```html\n<script>alert(2)</script>\n```\n\n> q\n"
        + "> " * 5000
        + "deep\n\n"
        + "*a " * 3000
    )
    found = page.evaluate(
        """async (text) => {
          const { update } = await import("/page/markdown.js");
          const box = document.createElement("div");
          const began = performance.now();
          update(box, text);
          document.body.append(box);
          const tags = [...new Set([...box.querySelectorAll("*")].map((e) => e.tagName.toLowerCase()))];
          const links = [...box.querySelectorAll("a")].map((a) => a.getAttribute("href"));
          box.remove();
          return { tags, links, text: box.textContent, took: performance.now() - began };
        }""",
        hostile,
    )
    assert not {"img", "script", "iframe", "i", "b", "style"} & set(found["tags"])
    assert {"strong", "table", "ol", "ul", "pre", "blockquote", "code"} <= set(found["tags"])
    assert found["links"] == ["https://evil.example/p.png", "https://x.example"]
    assert "<img src=x onerror=alert(1)>" in found["text"] and "<script>alert(2)</script>" in found["text"]
    assert found["took"] < 5000, "no text holds the page"


def test_text_that_grows_is_shown_as_if_it_had_come_at_once(opened: Opened) -> None:
    page = opened().page
    page.wait_for_selector("#question")
    text = "# A\n\nb *c*\n- d\n- e\n\n  f\n\n```py\nx = 1\n```\n\n| g | h |\n|--|--|\n| i | j |\n\n1. k\n\n2. l\n\nend"
    same = page.evaluate(
        """async (text) => {
          const { update } = await import("/page/markdown.js");
          const grown = document.createElement("div"), whole = document.createElement("div");
          for (let i = 1; i <= text.length; i += 1) update(grown, text.slice(0, i));
          update(whole, text);
          return grown.isEqualNode(whole);
        }""",
        text,
    )
    assert same


def test_a_phone_has_it_all_without_scrolling_sideways(opened: Opened) -> None:
    watched = opened(**PHONE)
    page = choose(watched, max_tokens=30)
    ask(page, "Hello! " + "word" * 60)
    page.wait_for_selector(".turn.answer .figures")
    page.wait_for_selector(DONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#history-button")
    page.wait_for_selector(".history >> visible=true")
    page.click(".chats a")
    assert not page.locator(".history").is_visible()
    small = page.evaluate(
        "[...document.querySelectorAll('.chat-head button, .composer button, #tabs a')].filter((e) => e.offsetParent)"
        ".filter((e) => e.getBoundingClientRect().height < 24).map((e) => e.ariaLabel)"
    )
    assert small == []


def test_dark_and_light_follow_the_system_and_the_choice(opened: Opened) -> None:
    page = opened(color_scheme="dark").page
    page.wait_for_selector("#question")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(20, 19, 15)"
    page.click("[aria-label='Change between light and dark']")
    assert page.evaluate(paper) == "rgb(250, 248, 243)"
    page.reload()
    page.wait_for_selector("#question")
    assert page.evaluate(paper) == "rgb(250, 248, 243)"


def test_conversations_go_out_as_a_file_and_come_in_again(opened: Opened, tmp_path: Path) -> None:
    page = choose(opened(), max_tokens=5)
    ask(page, "Remember the zebra.")
    page.wait_for_selector(".turn.answer .figures")
    page.wait_for_selector(DONE)
    with page.expect_download() as download:
        page.click("text=Export all")
    file = tmp_path / "chats.json"
    download.value.save_as(file)
    assert "zebra" in file.read_text()
    other = opened().page
    other.set_input_files("input[accept]", file)
    other.wait_for_selector(".chats a >> text=zebra")
    other.fill("#search", "zebra nothing")
    other.wait_for_selector("text=Nothing found.")
    other.fill("#search", "ZEBRA")
    other.wait_for_selector(".chats a >> text=zebra")
