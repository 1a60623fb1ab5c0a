"""The functions on offer, in both shapes that clients send."""

from __future__ import annotations

from swarm.text.tools import Tools

CITY = {"type": "string"}


def test_functions_are_found_with_their_schemas() -> None:
    function = {"name": "f", "parameters": {"properties": {"city": CITY}}}
    tools = Tools([{"type": "function", "function": function}, {"name": "g"}, {"type": "other"}, {"function": 5}])
    assert tools.names == ("f", "g")
    assert tools.schema_of("f", "city") == CITY
    assert tools.schema_of("f", "x") == tools.schema_of("g", "x") == tools.schema_of("h", "x") == {}
