"""Values that replace those of the file: ``--set train.phases.0.lr=1e-3``, or a mapping from Python."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.errors import printable
from finetune.recipe.document import FROM_PYTHON, Document, KeyPath, Place, Problem, has_child, show_value
from finetune.recipe.yaml_reader import read_yaml

# ["train.phases.0.lr=1e-3"], the texts that --set takes; or {"train.phases.0.lr": 1e-3}.
Overrides = Sequence[str] | Mapping[str, object]

_PART = re.compile(r"[A-Za-z_]\w*|[0-9]{1,6}", re.ASCII)
_EXAMPLE = "train.batch_size"


def apply_overrides(document: Document, overrides: Overrides) -> None:
    """Put the values of ``overrides`` into ``document``, in order. Each problem cites its override.

    Keys are dotted, with numbers for list entries: ``train.phases.0.lr`` or ``train.phases[0].lr``. Values
    are read like those of the file: ``1e-3``, ``true``, ``null``, ``[0.5, 1]``, ``{flip: true}``.
    """
    for number, (source, key, text) in enumerate(_entries(overrides), 1):
        place = Place(number, 0, 0, source)
        parts = re.sub(r"\[([0-9]+)\]", r".\1", key.strip()).split(".")
        if text is None:
            document.problems.append(Problem(place, f"write it as KEY=VALUE, such as --set {_EXAMPLE}=64"))
        elif not all(_PART.fullmatch(part) for part in parts):
            message = f"{show_value(key)} is not a key; write names with dots between, such as {_EXAMPLE}"
            document.problems.append(Problem(place, message))
        else:
            path = tuple(int(part) if part.isdigit() else part for part in parts)
            _put(document, path, place, read_yaml(text, lambda *_, place=place: place, path))


def _entries(overrides: Overrides) -> Iterator[tuple[str, str, str | None]]:
    """Yield the source that messages cite, the key, and the value as YAML (None if a flag has no "=")."""
    if isinstance(overrides, str):
        raise TypeError("overrides: pass a mapping or a list of 'KEY=VALUE', not one text")
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield FROM_PYTHON, key, to_json(value)
        return
    for flag in overrides:
        short = flag if len(flag) <= 100 else flag[:100] + "…"
        key, equals, text = flag.partition("=")
        yield f"--set {printable(short)}", key, text if equals else None


def cite(overrides: Overrides, key: str) -> str:
    """Name the override of ``key`` in a message."""
    return f"{FROM_PYTHON}: {key}" if isinstance(overrides, Mapping) else f"--set {key}"


def select(overrides: Overrides, section: str) -> Overrides:
    """Return the overrides of keys in ``section``."""
    if isinstance(overrides, Mapping):
        return {key: value for key, value in overrides.items() if key.startswith(f"{section}.")}
    return [flag for flag in overrides if flag.startswith(f"{section}.")]


def to_json(value: object) -> str:
    """Write a value of a recipe as JSON, which is YAML too.

    Raises:
        TypeError: the value has no equivalent in YAML.
    """
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Convert paths to text, NumPy's numbers and arrays to Python's, sections of the schema to mappings."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r} of type {type(value).__name__} is no value of a recipe")


def _put(document: Document, path: KeyPath, place: Place, given: Document) -> None:
    """Put a value into ``document``. Missing sections are created; index == length appends an entry.

    Paths that lead into a scalar or past the end of a list are problems. Values that already have a problem
    stay as they are.
    """
    document.problems += given.problems
    for depth, part in enumerate(path):
        at = path[:depth]
        if at in document.faulty:
            return
        if created := document.at(at) is None:
            document.put(at, [] if isinstance(part, int) else {}, place)
        container = document.at(at)
        if message := _refusal(container, part):
            if created:
                document.faulty.add(at)  # one problem is enough for a list that the user did not write
            document.problems.append(Problem.at(place, at, message))
            return
        if not has_child(container, part):
            document.put((*at, part), None, place)
    document.put(path, given.value, place)
    document.faulty |= {(*path, *below) for below in given.faulty}


def _refusal(container: Any, part: str | int) -> str:
    """Why ``container`` can have no entry ``part``; empty if it can."""
    if isinstance(container, list):
        length = len(container)
        if isinstance(part, int) and part <= length:
            return ""
        places = f"a number from 0 to {length} ({length} adds an entry)" if length else "0"
        return f"a list of {length}; write {places} here, not {show_value(part)}"
    if isinstance(container, dict) and isinstance(part, str):
        return ""
    return f"it is {show_value(container)}, which has no entry {show_value(part)}"
