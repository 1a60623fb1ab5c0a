"""GET /docs: what the API takes, as a page for people; made of the same description as /openapi.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from swarm.api.openapi import description
from swarm.api.page.serving import HEADERS

Json = Mapping[str, Any]


async def docs(request: Request) -> HTMLResponse:
    """The page: no script, nothing from elsewhere."""
    return HTMLResponse(page(), headers=dict(HEADERS))


@cache
def page() -> str:
    """All of it, as HTML."""
    told = description()
    entries = [(path, method, each) for path, methods in told["paths"].items() for method, each in methods.items()]
    listed = "".join(
        f'<li><a href="#{_anchor(path)}">{method.upper()} {escape(path)}</a></li>' for path, method, _ in entries
    )
    sections = "".join(_section(told, *entry) for entry in entries)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Swarm: the local API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/page/docs.css"></head><body><main><h1>The local API</h1>'
        '<p>What programs may ask of this node. The same for programs: <a href="/openapi.json">openapi.json</a>. '
        '<a href="/">Back to the page</a>.</p>'
        f'<nav aria-label="Routes"><ul>{listed}</ul></nav>{sections}</main></body></html>'
    )


def _section(told: Json, path: str, method: str, entry: Json) -> str:
    schema = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    fields = _table(told, _resolved(told, schema)) if schema else ""
    head = f'<h2 id="{_anchor(path)}"><code>{method.upper()} {escape(path)}</code></h2>'
    return f"<section>{head}<p>{escape(entry['summary'])}</p>{fields}</section>"


def _table(told: Json, schema: Json) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><th scope='row'><code>{escape(name)}</code></th><td>{escape(' or '.join(_kinds(told, each)))}</td>"
        f"<td>{'required' if name in required else _default(each)}</td></tr>"
        for name, each in schema.get("properties", {}).items()
    )
    heads = "<tr><th scope='col'>field</th><th scope='col'>type</th><th scope='col'>if left out</th></tr>"
    return f"<table><thead>{heads}</thead><tbody>{rows}</tbody></table>"


def _kinds(told: Json, schema: Json) -> Iterator[str]:
    """The types that a field may have, in words."""
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _kinds(told, each)
    elif "$ref" in schema:
        yield f"object ({schema['$ref'].rpartition('/')[2]})"
    elif "enum" in schema:
        yield " or ".join(map(repr, schema["enum"]))
    elif schema.get("type") == "array":
        inner = schema.get("items")
        yield f"list of {' or '.join(_kinds(told, inner))}" if isinstance(inner, Mapping) and inner else "list"
    else:
        yield str(schema.get("type", "anything"))


def _default(schema: Json) -> str:
    value = schema.get("default")
    return "" if value is None or value in ([], {}) else f"<code>{escape(repr(value))}</code>"


def _resolved(told: Json, schema: Json) -> Json:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Json = told["components"]["schemas"].get(name, schema)
    return found


def _anchor(path: str) -> str:
    return path.strip("/").replace("/", "-")
