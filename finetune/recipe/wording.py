"""Messages about invalid values of a recipe: pydantic's errors in plain words.

The words come from the recipe's JSON Schema, so they always agree with the checks.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import ValidationError

from finetune.recipe.catalog import suggest
from finetune.recipe.document import Document, KeyPath, Place, Problem, has_child, show_value
from finetune.recipe.fields import ConflictError
from finetune.recipe.scalars import type_of_word
from finetune.recipe.schema import Recipe

_BOOLEANS = dict.fromkeys(("yes", "on", "y"), "true") | dict.fromkeys(("no", "off", "n"), "false")

_Schema = dict[str, Any]


def schema_problems(error: ValidationError, document: Document) -> list[Problem]:
    """Turn pydantic's errors about ``document`` into problems, each at the place of its key.

    Reports one problem per key, however many types the key allows, and none for values that already have
    one.
    """
    found: dict[KeyPath, tuple[Place, str]] = {}
    wrong: set[KeyPath] = set()  # problems of the value itself, which a problem further inside replaces
    known: list[KeyPath] = []  # values that already have a problem
    for fault in error.errors(include_url=False, include_input=False):
        kind = fault["type"]
        path = _existing(document, fault["loc"])
        conflict = fault.get("ctx", {}).get("error")
        if isinstance(conflict, ConflictError):
            for below, message in conflict.faults:
                found.setdefault((*path, *below), (document.place_of((*path, *below)), message))
            continue
        if document.is_faulty(path):
            known.append(path)
            continue
        place = document.place_of(path)
        key = (*path, *fault["loc"][-1:])
        if kind == "missing" and isinstance(key[-1], str):
            found.setdefault(key, (place, _missing(key)))
        elif kind == "extra_forbidden":
            found.setdefault(path, (document.keys.get(path, place), _unknown(path)))
        elif kind == "value_error":
            found.setdefault(path, (place, fault["msg"].removeprefix("Value error, ")))
        elif path not in found:
            found[path] = place, _wrong(path, document.at(path))
            wrong.add(path)
    inner = {path[:length] for path in (*found, *known) for length in range(len(path))}
    # Pydantic also calls a list too short if it dropped invalid entries.
    return [
        Problem.at(place, path, message)
        for path, (place, message) in found.items()
        if path not in wrong or path not in inner
    ]


def _existing(document: Document, loc: tuple[str | int, ...]) -> KeyPath:
    """The part of pydantic's location that exists in ``document``; it also names types of unions."""
    path: list[str | int] = []
    value = document.value
    for part in loc:
        if has_child(value, part):
            value = value[part]
            path.append(part)
    return tuple(path)


def _missing(path: KeyPath) -> str:
    schema = _schema_at(path)
    if section := _section(schema):
        return f"missing. Write this section with at least: {', '.join(section['required'])}"
    return f"missing. {schema.get('description') or describe(schema)}"


def _unknown(path: KeyPath) -> str:
    key = str(path[-1])
    known = _section(_schema_at(path[:-1]))["properties"]
    elsewhere = [place for name, place in _all_keys() if name == key]
    if elsewhere:
        return f"unknown key here. It belongs in {' or '.join(elsewhere)}."
    return "unknown key." + (suggest(key, known) or f" Known here: {', '.join(known)}.")


def _wrong(path: KeyPath, value: Any) -> str:
    schema = _schema_at(path)
    text = f"must be {describe(schema)}; it is {show_value(value)}"
    types = {each.get("type") for each in _variants(schema)}
    if isinstance(value, str):
        words = [str(word) for each in _variants(schema) for word in _words(each)]
        if "boolean" in types and (boolean := _BOOLEANS.get(value.lower())):
            return f"{text}. Write {boolean}."
        if types & {"integer", "number"} and type_of_word(value) in (int, float):
            return f"{text}. Remove the quotes."
        if hint := suggest(value, words):
            return f"{text}.{hint}"
    elif types == {"string"} and isinstance(value, int | float) and not any(map(_words, _variants(schema))):
        return f"{text}. Put it in quotes if it is a name."
    return text


@cache
def _root() -> _Schema:
    return Recipe.model_json_schema()


def _variants(schema: _Schema) -> list[_Schema]:
    """The types that a key allows, with references resolved."""
    if "$ref" in schema:
        return _variants(_root()["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in schema:
        return [variant for each in schema["anyOf"] for variant in _variants(each)]
    return [schema]


def _section(schema: _Schema) -> _Schema:
    return next((each for each in _variants(schema) if "properties" in each), {})


def _schema_at(path: KeyPath) -> _Schema:
    schema = _root()
    for part in path:
        children = (_child(each, part) for each in _variants(schema))
        schema = next((each for each in children if isinstance(each, dict)), {})
    return schema


def _child(schema: _Schema, part: str | int) -> Any:
    """The schema of an entry: False or None if ``schema`` has none."""
    if isinstance(part, str):
        return schema.get("properties", {}).get(part) or schema.get("additionalProperties")
    fixed = schema.get("prefixItems", [])
    return fixed[part] if part < len(fixed) else schema.get("items")


@cache
def _all_keys() -> list[tuple[str, str]]:
    """The name of every key with its section, such as ``("lr", "train.phases[]")``."""

    def walk(schema: _Schema, place: str) -> Iterator[tuple[str, str]]:
        for variant in _variants(schema):
            for name, child in variant.get("properties", {}).items():
                yield name, place or "the top level"
                yield from walk(child, f"{place}.{name}" if place else name)
            if isinstance(variant.get("items"), dict):
                yield from walk(variant["items"], f"{place}[]")

    return list(walk(_root(), ""))


def _words(schema: _Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def describe(schema: _Schema) -> str:
    """The values that a key allows: ``a whole number from 8 to 4096, or auto``."""
    return ", or ".join(_describe_one(each) for each in _variants(schema))


def _describe_one(schema: _Schema) -> str:
    words = _words(schema)
    if len(words) > 1:
        return f"one of {', '.join(map(str, words))}"
    if words:
        return str(words[0])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        number = "a whole number" if kind == "integer" else "a number"
        return f"{number} from {schema['minimum']:.12g} to {schema['maximum']:.12g}"
    if kind == "object":
        keys = list(schema.get("properties", {}))
        if not keys:
            return "a mapping"
        return f"a section ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
    if kind == "array":
        if "prefixItems" in schema:
            return f"a list [{', '.join(map(describe, schema['prefixItems']))}]"
        least = schema.get("minItems")
        return f"a list{f' of at least {least}' if least else ''}, each {describe(schema['items'])}"
    if kind == "string":
        return "a text, not empty" if schema.get("minLength") else "a text"
    plain = {"boolean": "true or false", "null": "null"}
    return plain.get(str(kind), "another value")
