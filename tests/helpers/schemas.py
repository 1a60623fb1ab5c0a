"""Fifty JSON schemas as programs send them: for requests of structured output and for the arguments of functions."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
INT: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOL: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}


def text(most: int = 24) -> Schema:
    """A text of at most so many characters: a small model would go on for ever."""
    return {"type": "string", "maxLength": most}


def listed(items: Schema, most: int = 3, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def one_of(*values: object) -> Schema:
    return {"enum": list(values)}


def record(*optional: str, **properties: Schema) -> Schema:
    """An object; all properties are required but the optional ones."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


POINT = record(x=INT, y=INT)
PERSON = record(name=text(), age={"type": "integer", "minimum": 0, "maximum": 120})
TREE: Schema = {
    "$defs": {"node": record("left", value=INT, left={"anyOf": [NULL, record(value=INT)]})},
    "$ref": "#/$defs/node",
}

SCHEMAS: dict[str, Schema] = {
    "a person": PERSON,
    "a point": POINT,
    "a flag": record(done=BOOL),
    "nothing": record(),
    "a number": record(value=NUMBER),
    "null": record(nothing=NULL),
    "a choice": record(colour=one_of("red", "green", "blue")),
    "a choice of numbers": record(size=one_of(1, 2, 3)),
    "a choice of all kinds": record(value=one_of("a", 1, None, True)),
    "a constant": record(kind={"const": "dog"}, name=text()),
    "a list of texts": record(tags=listed(text())),
    "a list of numbers": record(scores=listed(INT)),
    "a list of points": record(points=listed(POINT, 2, 1)),
    "a list of lists": record(rows=listed(listed(INT, 2), 2)),
    "at least two": record(names=listed(text(8), 3, 2)),
    "an address": record(street=text(), city=text(), zip={"type": "string", "pattern": "^[0-9]{5}$"}),
    "a pattern": record(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    "a date": record(day={"type": "string", "format": "date"}),
    "a time": record(at={"type": "string", "format": "date-time"}),
    "a mail address": record(mail={"type": "string", "format": "email", "maxLength": 30}),
    "a uuid": record(id={"type": "string", "format": "uuid"}),
    "an IPv4 address": record(ip={"type": "string", "format": "ipv4"}),
    "a percentage": record(percent={"type": "integer", "minimum": 0, "maximum": 100}),
    "a year": record(year={"type": "integer", "minimum": 1900, "maximum": 2100}),
    "above zero": record(price={"type": "number", "exclusiveMinimum": 0, "maximum": 1000}),
    "a negative number": record(below={"type": "integer", "maximum": -1, "minimum": -50}),
    "a text or a number": record(value={"type": ["string", "integer"], "maxLength": 10}),
    "a text or nothing": record(note={"anyOf": [text(), NULL]}),
    "one of two records": record(shape={"anyOf": [record(radius=INT), record(width=INT, height=INT)]}),
    "told apart by kind": record(
        animal={
            "anyOf": [record(kind={"const": "cat"}, lives=INT), record(kind={"const": "dog"}, tricks=listed(text(8)))]
        }
    ),
    "an optional note": record("note", title=text(), note=text()),
    "all optional": record("a", "b", a=INT, b=BOOL),
    "a nested record": record(owner=PERSON, pet=record(name=text(), kind=one_of("cat", "dog"))),
    "three levels": record(a=record(b=record(c=BOOL))),
    "definitions": {"$defs": {"p": POINT}, **record(start={"$ref": "#/$defs/p"}, end={"$ref": "#/$defs/p"})},
    "a tree": TREE,
    "a dictionary": record(words={"type": "object", "additionalProperties": INT, "maxProperties": 2}),
    "a pair": record(
        pair={"type": "array", "prefixItems": [text(8), INT], "items": False, "minItems": 2, "maxItems": 2}
    ),
    "German names": record(straße=text(), größe=NUMBER),
    "odd names": record(**{"a b": INT, "c-d": BOOL, "$e": text(8), '"q"': INT}),
    "words that need escapes": record(text=one_of('say "hi"', "a\\b", "line\nbreak", "tab\there")),
    "a weather report": record(place=text(), celsius=NUMBER, sky=one_of("clear", "cloudy", "rain"), wind=INT),
    "a recipe": record(title=text(), minutes=INT, ingredients=listed(record(name=text(12), grams=INT), 2, 1)),
    "an invoice": record(number=INT, paid=BOOL, lines=listed(record(what=text(12), euro=NUMBER), 2)),
    "a sentiment": record(sentiment=one_of("positive", "neutral", "negative"), confidence=NUMBER),
    "a search": record("limit", query=text(), limit={"type": "integer", "minimum": 1, "maximum": 10}),
    "a light": record(room=text(12), on=BOOL, brightness={"type": "integer", "minimum": 0, "maximum": 255}),
    "a reminder": record(what=text(), hour={"type": "integer", "minimum": 0, "maximum": 23}),
    "a translation": record(source=one_of("en", "de", "fr"), target=one_of("en", "de", "fr"), text=text(40)),
    "a poll": record(question=text(40), answers=listed(text(12), 3, 2), anonymous=BOOL),
}
