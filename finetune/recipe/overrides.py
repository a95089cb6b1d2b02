"""``--set train.phases.0.lr=1e-3``: values from the command line, put into the tree of the file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.recipe.tree import Path, Place, Problem, Tree, dotted, shown
from finetune.recipe.yaml_tree import read_tree

_PART = re.compile(r"[A-Za-z_]\w*|[0-9]{1,6}", re.ASCII)
_EXAMPLE = "--set train.batch_size=64"


@dataclass
class Override:
    """One flag: the path it names and the value, whose places are all the flag itself."""

    path: Path
    value: Tree

    @property
    def place(self) -> Place:
        return self.value.place


def parse_overrides(flags: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Read every ``KEY=VALUE`` in order; the faulty ones become problems that cite their flag.

    A key is dotted, with numbers for places in a list (``train.phases.0.lr`` or ``train.phases[0].lr``).
    A value is read by the rules of the file: ``1e-3``, ``true``, ``null``, ``[0.5, 1]``, ``{flip: true}``.
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
            problems.append(
                Problem(place, f"{shown(key)} is no key; write names with dots between, such as {_EXAMPLE}")
            )
        else:
            path = tuple(int(part) if part.isdigit() else part for part in parts)
            value, faults = read_tree(text, lambda _line, _column, place=place: place, path)  # type: ignore[misc]
            problems += faults
            overrides.append(Override(path, value))
    return overrides, problems


def apply_override(tree: Tree, override: Override) -> Problem | None:
    """Put the value into the tree, in place. Missing sections are made; index == length adds an entry.

    Returns what is wrong, where the path leads through a text or past the end of a list. Nothing happens
    below a value that is faulty already.
    """
    parent = node = tree
    parts: list[str | int] = []
    for part in override.path:
        if node.faulty:
            return None
        fault = _make_room(node, part, override.place)
        if fault:
            return Problem(override.place, f"{dotted(tuple(parts))}: {fault}" if parts else fault)
        parent, node = node, node.value[part]
        parts.append(part)
    parent.value[part] = override.value
    return None


def _make_room(node: Tree, part: str | int, place: Place) -> str | None:
    """Make sure that ``node.value[part]`` exists; what is wrong where it cannot."""
    made = node.value is None
    if made:
        node.value, node.place = ([] if isinstance(part, int) else {}), place
    if isinstance(node.value, dict) and isinstance(part, str):
        if part not in node.value:
            node.value[part] = Tree(None, place)
            node.keys[part] = place
    elif isinstance(node.value, list):
        length = len(node.value)
        if not isinstance(part, int) or part > length:
            node.faulty = made  # no second complaint about a list that is not the user's
            places = f"a number from 0 to {length} ({length} adds an entry)" if length else "0"
            return f"a list of {length}; write {places} here, not {shown(part)}"
        if part == length:
            node.value.append(Tree(None, place))
    else:
        return f"it is {shown(node.value)}, in which there is no {shown(part)}"
    return None


def _label(flag: str) -> str:
    short = flag if len(flag) <= 100 else flag[:100] + "…"
    return short if short.isprintable() else ascii(short)
