"""``--set train.phases.0.lr=1e-3``: values from the command line, which replace values of the file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.recipe.document import Document, KeyPath, Place, Problem, has_child, show_value
from finetune.recipe.yaml_reader import read_yaml

_PART = re.compile(r"[A-Za-z_]\w*|[0-9]{1,6}", re.ASCII)
_EXAMPLE = "--set train.batch_size=64"


@dataclass(frozen=True)
class Override:
    """One flag. The place of everything in ``document`` is the flag itself."""

    path: KeyPath
    document: Document

    @property
    def place(self) -> Place:
        return self.document.places[()]


def parse_overrides(flags: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Read ``KEY=VALUE`` flags in order. Each invalid flag is a problem that cites it.

    Keys are dotted, with numbers for list entries: ``train.phases.0.lr`` or ``train.phases[0].lr``. Values
    are read like those of the file: ``1e-3``, ``true``, ``null``, ``[0.5, 1]``, ``{flip: true}``.
    """
    overrides: list[Override] = []
    problems: list[Problem] = []
    for number, flag in enumerate(flags, 1):
        place = Place(number, 0, 0, f"--set {_label(flag)}")
        key, equals, text = flag.partition("=")
        parts = re.sub(r"\[([0-9]+)\]", r".\1", key.strip()).split(".")
        if not equals:
            problems.append(Problem(place, f"write it as KEY=VALUE, such as {_EXAMPLE}"))
        elif not all(_PART.fullmatch(part) for part in parts):
            message = f"{show_value(key)} is not a key; write names with dots between, such as {_EXAMPLE}"
            problems.append(Problem(place, message))
        else:
            path = tuple(int(part) if part.isdigit() else part for part in parts)
            document, found = read_yaml(text, lambda _line, _column, place=place: place, path)  # type: ignore[misc]
            problems += found
            overrides.append(Override(path, document))
    return overrides, problems


def apply_override(document: Document, override: Override) -> Problem | None:
    """Put the value into ``document``. Missing sections are created; index == length appends an entry.

    Returns a problem if the path leads into a scalar or past the end of a list. Values that already have a
    problem stay as they are.
    """
    path, place = override.path, override.place
    for depth, part in enumerate(path):
        at = path[:depth]
        if at in document.faulty:
            return None
        if created := document.at(at) is None:
            document.put(at, [] if isinstance(part, int) else {}, place)
        container = document.at(at)
        if message := _refusal(container, part):
            if created:
                document.faulty.add(at)  # one problem is enough for a list that the user did not write
            return Problem.at(place, at, message)
        if not has_child(container, part):
            document.put((*at, part), None, place)
    document.put(path, override.document.value, place)
    document.faulty |= {(*path, *below) for below in override.document.faulty}
    return None


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


def _label(flag: str) -> str:
    short = flag if len(flag) <= 100 else flag[:100] + "…"
    return short if short.isprintable() else ascii(short)
