"""What every client is made to ask."""

from __future__ import annotations

from typing import Any

HELLO = [{"role": "user", "content": "Say hello."}]
LONG = [{"role": "user", "content": "word " * 1500}]  # more than the context holds
WEATHER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER_SCHEMA},
}
ASK_WEATHER = [{"role": "user", "content": "What will the weather be in Paris for 3 days?"}]


def is_weather(arguments: dict[str, Any]) -> bool:
    """Whether arguments, or an answer, have the form that was demanded."""
    return arguments.keys() == {"city", "days"} and isinstance(arguments["city"], str) and 1 <= arguments["days"] <= 9
