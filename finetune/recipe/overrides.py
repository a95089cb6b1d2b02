"""``--set train.phases.0.lr=1e-3``: values from the command line, which replace values of the file."""

import re
from collections.abc import Sequence
from typing import Any

from finetune.errors import printable
from finetune.recipe.document import Document, KeyPath, Place, Problem, has_child, show_value
from finetune.recipe.yaml_reader import read_yaml

_PART = re.compile(r"[A-Za-z_]\w*|[0-9]{1,6}", re.ASCII)
_EXAMPLE = "--set train.batch_size=64"


def apply_overrides(document: Document, flags: Sequence[str]) -> None:
    """Put the values of ``KEY=VALUE`` flags into ``document``, in order. Each problem cites its flag.

    Keys are dotted, with numbers for list entries: ``train.phases.0.lr`` or ``train.phases[0].lr``. Values
    are read like those of the file: ``1e-3``, ``true``, ``null``, ``[0.5, 1]``, ``{flip: true}``.
    """
    for number, flag in enumerate(flags, 1):
        short = flag if len(flag) <= 100 else flag[:100] + "…"
        place = Place(number, 0, 0, f"--set {printable(short)}")
        key, equals, text = flag.partition("=")
        parts = re.sub(r"\[([0-9]+)\]", r".\1", key.strip()).split(".")
        if not equals:
            document.problems.append(Problem(place, f"write it as KEY=VALUE, such as {_EXAMPLE}"))
        elif not all(_PART.fullmatch(part) for part in parts):
            message = f"{show_value(key)} is not a key; write names with dots between, such as {_EXAMPLE}"
            document.problems.append(Problem(place, message))
        else:
            path = tuple(int(part) if part.isdigit() else part for part in parts)
            _put(document, path, place, read_yaml(text, lambda *_, place=place: place, path))


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
