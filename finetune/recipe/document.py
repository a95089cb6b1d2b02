"""The content of a recipe file before it is checked: plain values, and the place of each in the file."""

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MAX_SHOWN = 60
# The source of values that a caller from Python gives.
FROM_PYTHON = "overrides"

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Place:
    """A place in the file (``rank`` 0, line and column from 1), or an override (``rank`` from 1, line 0)."""

    rank: int
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Problem:
    """One error in a recipe. The message begins with the dotted key, if there is one."""

    place: Place
    message: str

    @classmethod
    def at(cls, place: Place, path: KeyPath, message: str) -> "Problem":
        key = dotted_key(path, ".{}" if place.source == FROM_PYTHON else "[{}]")
        return cls(place, f"{key}: {message}" if path else message)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Document:
    """Plain values with their places. Paths lead from the top: ``("train", "phases", 0, "lr")``.

    Attributes:
        value: the whole content: None, a scalar, a list or a mapping.
        places: the place of each value. A path below the last entry belongs to that entry.
        keys: the place of each key of a mapping.
        faulty: values that already have a problem. They are None and cause no further problems.
        problems: all problems so far, in any order.
    """

    value: Any
    places: dict[KeyPath, Place]
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    faulty: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def unreadable(cls, place: Place, message: str) -> "Document":
        """A document whose reading failed at ``place``."""
        return cls(None, {(): place}, faulty={()}, problems=[Problem(place, message)])

    def refuse(self, message: str) -> None:
        """Add a problem of the whole content."""
        self.problems.append(Problem(self.places[()], message))
        self.faulty.add(())

    def at(self, path: KeyPath) -> Any:
        """The value at ``path``, or at the part of ``path`` that exists."""
        value = self.value
        for part in path:
            if not has_child(value, part):
                break
            value = value[part]
        return value

    def place_of(self, path: KeyPath) -> Place:
        """The place of ``path``, or of the part of it that exists."""
        return next(self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places)

    def is_faulty(self, path: KeyPath) -> bool:
        """Whether the value at ``path``, or one that contains it, already has a problem."""
        return any(path[:length] in self.faulty for length in range(len(path) + 1))

    def put(self, path: KeyPath, value: Any, place: Place) -> None:
        """Replace the value at ``path``. The container must exist; a list grows by an entry at its end."""
        parent = self.at(path[:-1])
        if not path:
            self.value = value
        elif isinstance(parent, list) and path[-1] == len(parent):
            parent.append(value)
        else:
            parent[path[-1]] = value
        length = len(path)
        self.places = {each: its for each, its in self.places.items() if each[:length] != path}
        self.keys = {each: its for each, its in self.keys.items() if each[:length] != path or each == path}
        self.faulty = {each for each in self.faulty if each[:length] != path}
        self.places[path] = place
        if path and isinstance(path[-1], str):
            self.keys.setdefault(path, place)


def has_child(value: Any, part: str | int) -> bool:
    """Whether ``value`` is a mapping with the key ``part``, or a list with the index ``part``."""
    if isinstance(value, list):
        return isinstance(part, int) and 0 <= part < len(value)
    return isinstance(value, dict) and part in value


def show_value(value: Any) -> str:
    """A value for a message: on one line, short, texts in quotes, in YAML's notation."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…")
    return repr(value)


def dotted_key(path: KeyPath, entry: str = "[{}]") -> str:
    """``("train", "phases", 0, "lr")`` as ``train.phases[0].lr``; ``entry`` is the form of the number."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += entry.format(part)
        else:
            plain = re.fullmatch(r"\w{1,60}", part, re.ASCII)
            text += ("." if text else "") + (part if plain else show_value(part))
    return text
