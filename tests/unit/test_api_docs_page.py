"""The page of documents has every route and field, and nothing from elsewhere."""

from __future__ import annotations

import re

from swarm.api.docs_page import page
from swarm.api.openapi import BODIES, LOOKS
from swarm.api.page.serving import POLICY, page_files
from tests.helpers.api_client import api_of


def test_every_route_and_field_is_told() -> None:
    answer = api_of().get("/docs")
    assert answer.status_code == 200 and answer.headers["content-security-policy"] == POLICY
    assert answer.text == page()
    for path in [*BODIES, *LOOKS]:
        assert f"{path}</code></h2>" in page(), path
    chat = page()[page().index("POST /v1/chat/completions</code>") :]
    assert "<code>messages</code></th><td>list" in chat and "required" in chat[: chat.index("</table>")]
    assert "<code>temperature</code></th><td>" in chat


def test_it_runs_nothing_and_fetches_nothing_from_elsewhere() -> None:
    assert "<script" not in page() and not re.search(r"https?://", page())
    links = re.findall(r'(?:href|src)="([^"]*)"', page())
    named = {f'id="{link[1:]}"' for link in links if link.startswith("#")}
    assert named and all(page().count(each) == 1 for each in named), "every link leads somewhere, once"
    assert "/page/docs.css" in links and "docs.css" in page_files()
