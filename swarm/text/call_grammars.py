"""Rules, in llguidance's Lark, for the calls of functions as each family writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swarm.text.call_formats import CallFormat
from swarm.text.tools import Schema, ToolChoice, Tools

Options = Mapping[str, Any]
MAX_NUMBER = 10**15  # every reader of JSON can hold it exactly
SMALLEST_STEP = 1e-9  # between two numbers that are no whole ones
# Where one subschema is part of another, closing it would shut out what the other one lists.
_PARTS = ("allOf", "$ref", "if", "then", "else", "dependentSchemas")


def calls_rule(kind: CallFormat, tools: Tools, choice: ToolChoice, options: Options) -> list[str]:
    """Lines that define the rule `calls`: one call or, where that may be, several."""
    names = [choice.name] if choice.name is not None else list(tools.names)
    lines = []
    for i, name in enumerate(names):
        lines += _call(kind, f"call_{i}", name, tools.parameters(name), options)
    one = " | ".join(f"call_{i}" for i in range(len(names)))
    several = choice.parallel and kind in (CallFormat.HERMES, CallFormat.KEY_TAGS, CallFormat.FUNCTION_TAGS)
    more = " (/\\n?/ call)*" if several else ""
    return [f"calls: call{more}", f"call: {one}", *lines]


def _call(kind: CallFormat, rule: str, name: str, schema: Schema, options: Options) -> list[str]:
    written = json.dumps(name, ensure_ascii=False)
    arguments = f"{rule}_arguments: %json {_json_of(_object(schema), options)}"
    match kind:
        case CallFormat.HERMES:
            head, tail = f'<tool_call>\n{{"name": {written}, "arguments": ', "}\n</tool_call>"
            return [f"{rule}: {_text(head)} {rule}_arguments {_text(tail)}", arguments]
        case CallFormat.BARE_JSON:
            head = f'{{"name": {written}, "parameters": '
            return [f"{rule}: {_text(head)} {rule}_arguments {_text('}')}", arguments]
        case CallFormat.HARMONY:
            to = _text(f"commentary to=functions.{name} ")
            return [f'{rule}: <|channel|> {to} <|constrain|> "json" <|message|> {rule}_arguments', arguments]
        case CallFormat.FIRST_LINE:
            return [f"{rule}: {_text(name + chr(10))} {rule}_arguments", arguments]
        case CallFormat.KEY_TAGS:
            return _tagged(rule, schema, options, _KEY_TAGS.of(name))
        case CallFormat.FUNCTION_TAGS:
            return _tagged(rule, schema, options, _FUNCTION_TAGS.of(name))


class _TagTexts:
    """The texts around a call and around its arguments; `{}` is the name there."""

    def __init__(self, head: str, tail: str, before: str, after: str, end: str) -> None:
        self.head, self.tail, self.before, self.after, self.end = head, tail, before, after, end

    def of(self, name: str) -> _TagTexts:
        """The same for a function of this name."""
        return _TagTexts(self.head.replace("{}", name), self.tail, self.before, self.after, self.end)


_KEY_TAGS = _TagTexts("<tool_call>{}\n", "</tool_call>", "<arg_key>{}</arg_key>\n<arg_value>", "</arg_value>", "\n")
_FUNCTION_TAGS = _TagTexts(
    "<tool_call>\n<function={}>\n", "</function>\n</tool_call>", "<parameter={}>\n", "\n</parameter>", "\n"
)


def _tagged(rule: str, schema: Schema, options: Options, texts: _TagTexts) -> list[str]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    uses, lines = [], []
    for i, (key, each) in enumerate(properties.items()):
        argument = f"{rule}_{i}"
        uses.append(argument if key in required else f"{argument}?")
        value_schema = each if isinstance(each, Mapping) else {}
        value, value_lines = _value(f"{argument}_value", value_schema, schema, options, texts)
        lines.append(f"{argument}: {_text(texts.before.replace('{}', key))} {value} {_text(texts.end)}")
        lines += value_lines
    return [f"{rule}: {' '.join([_text(texts.head), *uses, _text(texts.tail)])}", *lines]


def _value(rule: str, schema: Schema, root: Schema, options: Options, texts: _TagTexts) -> tuple[str, list[str]]:
    """The rule of a value with what closes it: a text as it is, anything else as JSON."""
    after = _text(texts.after)
    choices = _choices(schema)
    if choices:
        texts_of = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in choices]
        return f"({' | '.join(map(_text, texts_of))}) {after}", []
    if _may_be_text(schema):
        most = schema.get("maxLength")
        times = f"{{0,{most}}}" if type(most) is int and most > 0 else "*"
        return rule, [f"{rule}[suffix={after}]: /(.|\\n){times}/"]
    shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
    return f"{rule} {after}", [f"{rule}: %json {_json_of(closed({**shared, **schema}), options)}"]


def _choices(schema: Schema) -> list[Any]:
    listed = schema.get("enum")
    if isinstance(listed, list):
        return listed
    return [schema["const"]] if "const" in schema else []


def _may_be_text(schema: Schema) -> bool:
    kinds = schema.get("type")
    if kinds is None:
        return not schema.keys() & {"$ref", "anyOf", "oneOf", "allOf"}
    return "string" in (kinds if isinstance(kinds, list) else [kinds])


def _object(schema: Schema) -> dict[str, Any]:
    return {"type": "object", "properties": {}, **closed(schema)}


def closed(schema: Any) -> Any:
    """A schema whose objects have the properties that it lists and no others, unless it says otherwise.

    Its numbers have an end: a small model writes digits until it has no room left.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    out = {**_digits(schema), **{key: _inner(key, value) for key, value in schema.items()}}
    is_open = "properties" not in schema or schema.keys() & {"additionalProperties", "patternProperties", *_PARTS}
    return out if is_open else {**out, "additionalProperties": False}


def _digits(schema: Schema) -> dict[str, Any]:
    """Bounds for numbers that have none."""
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not {"integer", "number"} & {kind for kind in kinds if isinstance(kind, str)} or schema.keys() & {
        "enum",
        "const",
    }:
        return {}
    bounds: dict[str, Any] = {}
    if not schema.keys() & {"minimum", "exclusiveMinimum"}:
        bounds["minimum"] = -MAX_NUMBER
    if not schema.keys() & {"maximum", "exclusiveMaximum"}:
        bounds["maximum"] = MAX_NUMBER
    return {**bounds, **({"multipleOf": SMALLEST_STEP} if "number" in kinds else {})}


def _inner(key: str, value: Any) -> Any:
    if key in ("enum", "const", "default", "examples", *_PARTS):
        return value
    if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
        return {name: closed(each) for name, each in value.items()}  # names of properties, not keywords
    return closed(value)


def _json_of(schema: Mapping[str, Any], options: Options) -> str:
    return json.dumps({**schema, "x-guidance": options})


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
