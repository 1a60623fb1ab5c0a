"""The page as it is given out: what is in it, what its headers forbid, and that it stays small."""

from __future__ import annotations

import re

import pytest

from swarm.api.page.serving import FOLDER, KINDS, page_files
from tests.helpers.api_client import api_of

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "accept-encoding": "identity"}
MAX_PACKED_BYTES = 64 * 1024  # all of the page, as it travels: a phone on bad Wi-Fi has it in a second
MAX_LINES = 600
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}


def test_a_browser_gets_the_page_and_a_program_a_line() -> None:
    page = api_of().get("/", headers=BROWSER)
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Swarm</title>" in page.text
    line = api_of().get("/", headers={"accept": "*/*"})
    assert line.text == "Swarm is running" and line.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in SOURCES)])
def test_the_headers_let_nothing_in_from_elsewhere(path: str) -> None:
    headers = api_of().get(path, headers=BROWSER).headers
    policy = dict(each.split(" ", 1) for each in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    for directive in ("script-src", "style-src", "connect-src"):
        assert policy[directive] == "'self'", directive
    assert policy["img-src"] == "'self' data:"
    for directive in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert policy[directive] == "'none'", directive
    assert policy["require-trusted-types-for"] == "'script'"
    assert "http" not in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"


def test_a_file_that_is_known_is_not_sent_again() -> None:
    first = api_of().get("/page/app.js", headers=BROWSER)
    again = api_of().get("/page/app.js", headers={**BROWSER, "if-none-match": first.headers["etag"]})
    assert first.status_code == 200 and again.status_code == 304 and again.content == b""
    assert "content-security-policy" in again.headers


def test_it_travels_packed_to_those_who_can_unpack() -> None:
    packed = api_of().get("/page/base.css", headers={**BROWSER, "accept-encoding": "gzip, br"})
    assert packed.headers["content-encoding"] == "gzip" and packed.text == SOURCES["base.css"]
    assert "content-encoding" not in api_of().get("/page/base.css", headers=BROWSER).headers


def test_all_of_it_is_small() -> None:
    assert sum(len(file.packed) for file in page_files().values()) < MAX_PACKED_BYTES
    assert {name: n for name, text in SOURCES.items() if (n := len(text.splitlines())) >= MAX_LINES} == {}


@pytest.mark.parametrize("name", ["nothing.js", "..%2fserving.py", "%2e%2e/serving.py", "serving.py", "app.js%00", ""])
def test_there_is_nothing_else(name: str) -> None:
    assert api_of().get(f"/page/{name}", headers=BROWSER).status_code == 404


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/swarm/events"])
@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}]
)
def test_other_pages_and_names_do_not_get_it(path: str, headers: dict[str, str]) -> None:
    assert api_of().get(path, headers={**BROWSER, **headers}).status_code == 403


def test_every_file_is_of_a_kind_that_is_given_out() -> None:
    assert {name for name in SOURCES if not name.endswith(tuple(KINDS))} == set()


def test_what_a_file_names_is_there() -> None:
    for name, text in SOURCES.items():
        for wanted in re.findall(r'(?:from|import) "\./([^"]+)"|"/page/([^"]+\.\w+)"', text):
            assert "".join(wanted) in SOURCES, f"{name} names {wanted}"


def test_every_icon_that_is_named_is_drawn() -> None:
    table = SOURCES["dom.js"].split("const ICONS = {")[1].split("};")[0]
    drawn = set(re.findall(r"^  (\w+):", table, re.MULTILINE))
    for name, text in SCRIPTS.items():
        named = re.findall(r'\bicon(?:Button)?\("(\w+)"', text)
        assert set(named) <= drawn, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_text_becomes_markup_or_code(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|setHTML|srcdoc"
    assert not re.search(forbidden, SCRIPTS[name])


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_fetched_from_elsewhere(name: str) -> None:
    text = SOURCES[name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(
        r"""(?:src|href)=["']?(?:https?:)?//|url\((?!#)|@import|from "https?:|fetch\(["'`]https?:""", text
    )


def test_the_page_has_no_script_or_style_inside() -> None:
    page = SOURCES["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    assert 'lang="en"' in page and 'name="viewport"' in page and 'class="skip"' in page
