"""What a recipe's key takes, in plain words, and pydantic's complaints turned into them.

The words come from the recipe's JSON Schema, so that they cannot drift from what is checked.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import ValidationError

from finetune.recipe.catalog import suggest
from finetune.recipe.scalars import resolve_plain
from finetune.recipe.schema import MisfitError, Recipe
from finetune.recipe.tree import Path, Place, Problem, Tree, dotted, shown

MAX_PROBLEMS = 50
_MAX_SUGGESTED = 60  # no one mistypes a name that long, and comparing long ones is slow
_TRUE_WORDS = frozenset({"yes", "on", "y"})
_FALSE_WORDS = frozenset({"no", "off", "n"})

_Schema = dict[str, Any]


def schema_problems(error: ValidationError, tree: Tree) -> list[Problem]:
    """Pydantic's complaints about the plain values of ``tree``, each at the place of what it is about.

    One problem a key, however many types the key may have; none where reading has found a fault already. At
    most ``MAX_PROBLEMS`` and one more, by place.
    """
    found: dict[Path, tuple[Place, str, str]] = {}  # path: (place, kind, what pydantic or a validator says)
    known: list[Path] = []  # where reading has complained
    for fault in error.errors(include_url=False, include_input=False):
        kind, said = fault["type"], fault["msg"]
        misfit = fault.get("ctx", {}).get("error")
        path = _path_in(tree, fault["loc"])
        if isinstance(misfit, MisfitError):
            for where, message in misfit.faults:
                whole = (*path, *where)
                found.setdefault(whole, (tree.nearest(whole).place, "said", message))
            continue
        node = tree.nearest(path)
        if _faulty(tree, path):
            known.append(path)
            continue
        last = fault["loc"][-1] if fault["loc"] else ""
        if kind == "missing" and isinstance(last, str):
            found.setdefault((*path, last), (node.place, "missing", said))
        elif kind == "extra_forbidden":
            parent = tree.nearest(path[:-1])
            found.setdefault(path, (parent.keys.get(str(last), node.place), "unknown", said))
        elif kind == "value_error":
            found.setdefault(path, (node.place, "said", said.removeprefix("Value error, ")))
        else:
            found.setdefault(path, (node.place, "wrong", said))
    inner = {path[:length] for path in (*found, *known) for length in range(len(path))}
    # A list whose items are wrong is not also too short: pydantic counts what is left of it.
    kept = [
        (place, path, kind, said)
        for path, (place, kind, said) in found.items()
        if kind != "wrong" or path not in inner
    ]
    kept.sort(key=lambda each: each[0])
    return [
        Problem(place, _message(tree, path, kind, said))
        for place, path, kind, said in kept[: MAX_PROBLEMS + 1]
    ]


def _path_in(tree: Tree, loc: tuple[str | int, ...]) -> Path:
    """The part of pydantic's location that the tree has: no tags of unions, no missing key."""
    path: list[str | int] = []
    for part in loc:
        child = tree.child(part)
        if child is not None:
            tree = child
            path.append(part)
    return tuple(path)


def _faulty(tree: Tree, path: Path) -> bool:
    return any(tree.nearest(path[:length]).faulty for length in range(len(path) + 1))


def _message(tree: Tree, path: Path, kind: str, said: str) -> str:
    if kind == "missing":
        text = _missing(path)
    elif kind == "unknown":
        text = _unknown(path)
    elif kind == "wrong":
        text = _wrong(path, tree.nearest(path).value, said)
    else:
        text = said
    return f"{dotted(path)}: {text}" if path else text


def _missing(path: Path) -> str:
    schema = _schema_at(path) or {}
    section = _section(schema)
    if section is not None:
        return f"missing; write this section with at least: {', '.join(section.get('required', []))}"
    return f"missing; write {schema.get('description') or describe(schema)}"


def _unknown(path: Path) -> str:
    key = str(path[-1])
    section = _section(_schema_at(path[:-1]) or {}) or {}
    known = list(section.get("properties", {}))
    elsewhere = [place for name, place in _all_keys() if name == key]
    if elsewhere:
        return f"unknown key here. It belongs in {' or '.join(elsewhere)}."
    hint = suggest(key, known) if len(key) <= _MAX_SUGGESTED else ""
    return "unknown key." + (hint or f" Known here: {', '.join(known)}.")


def _wrong(path: Path, value: Any, said: str) -> str:
    schema = _schema_at(path)
    if schema is None:
        return said
    text = f"must be {describe(schema)}; it is {shown(value)}"
    types = {each.get("type") for each in _variants(schema)}
    if isinstance(value, str):
        words = [str(word) for each in _variants(schema) for word in _words(each)]
        if "boolean" in types and value.lower() in _TRUE_WORDS | _FALSE_WORDS:
            return f"{text}. Write {'true' if value.lower() in _TRUE_WORDS else 'false'}."
        if types & {"integer", "number"} and _is_number(value):
            return f"{text}. Remove the quotes."
        if words and len(value) <= _MAX_SUGGESTED:
            return text + ("." + hint if (hint := suggest(value, words)) else "")
    elif types == {"string"} and isinstance(value, int | float) and not any(map(_words, _variants(schema))):
        return f"{text}. Put it in quotes if it is a name."
    return text


def _is_number(text: str) -> bool:
    try:
        return isinstance(resolve_plain(text), int | float)
    except ValueError:
        return False


@cache
def _root() -> _Schema:
    return Recipe.model_json_schema()


def _variants(schema: _Schema) -> list[_Schema]:
    """The types that a key may have, references followed."""
    if "$ref" in schema:
        return _variants(_root()["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in schema:
        return [variant for each in schema["anyOf"] for variant in _variants(each)]
    return [schema]


def _section(schema: _Schema) -> _Schema | None:
    return next((each for each in _variants(schema) if "properties" in each), None)


def _schema_at(path: Path) -> _Schema | None:
    schema: _Schema | None = _root()
    for part in path:
        if schema is None:
            return None
        if isinstance(part, str):
            schema = (_section(schema) or {}).get("properties", {}).get(part) or _of_any_name(schema)
        else:
            lists = [each for each in _variants(schema) if each.get("type") == "array"]
            prefix = lists[0].get("prefixItems", []) if lists else []
            schema = prefix[part] if part < len(prefix) else lists[0].get("items") if lists else None
    return schema


def _of_any_name(schema: _Schema) -> _Schema | None:
    """What the values of a mapping are whose keys may be called anything."""
    values = (each.get("additionalProperties") for each in _variants(schema))
    return next((each for each in values if isinstance(each, dict)), None)


@cache
def _all_keys() -> list[tuple[str, str]]:
    """Every key's name with the section it belongs in, such as ``("lr", "train.phases[]")``."""

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
    """What a key takes: ``a whole number from 8 to 4096, or auto``."""
    return ", or ".join(_describe_one(each) for each in _variants(schema))


def _describe_one(schema: _Schema) -> str:
    words = _words(schema)
    if len(words) > 1:
        return f"one of {', '.join(map(str, words))}"
    if words:
        return str(words[0])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(schema)
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


def _range(schema: _Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:.12g} to {high:.12g}"
    bounds = [(low, "of at least"), (above, "greater than"), (high, "of at most"), (below, "less than")]
    text = " and ".join(f"{words} {bound:.12g}" for bound, words in bounds if bound is not None)
    return f" {text}" if text else ""
