"""The functions that a model may call, as OpenAI's API describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Schema = Mapping[str, object]
ANYTHING: Schema = {}


@dataclass(frozen=True)
class ToolChoice:
    """What is demanded: whether any function must be called, or this one, and whether there may be several calls."""

    required: bool = False
    name: str | None = None
    parallel: bool = True


AUTO = ToolChoice()


class Tools:
    """Functions by name, each with the JSON schema of its arguments."""

    def __init__(self, listed: Sequence[Mapping[str, object]]) -> None:
        """`listed`: objects with `function`, or the functions themselves; what has no name is left out."""
        functions = [tool.get("function", tool) for tool in listed]
        self._parameters = {
            str(function["name"]): _mapping(function.get("parameters"))
            for function in functions
            if isinstance(function, Mapping) and isinstance(function.get("name"), str)
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._parameters)

    def parameters(self, name: str) -> Schema:
        """The schema of a function's arguments; of anything, where there is none."""
        return self._parameters.get(name, ANYTHING)

    def schema_of(self, name: str, argument: str) -> Schema:
        """The schema of one argument."""
        return _mapping(_mapping(self.parameters(name).get("properties")).get(argument))


def _mapping(value: object) -> Schema:
    return value if isinstance(value, Mapping) else ANYTHING
