"""A recipe's values before they are checked: plain Python that knows where it stands."""

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MAX_SHOWN = 60

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Place:
    """A place in the file (``rank`` 0, line and column from 1), or a flag (``rank`` 1 and up, line 0)."""

    rank: int
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Problem:
    """One fault; the message begins with the dotted key where there is one."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Tree:
    """A value and where it stands. In lists and mappings, ``value`` holds trees.

    ``keys`` says where a mapping's keys stand. ``faulty``: a problem was reported and ``value`` is void.
    ``cost`` and ``height`` (0 for a scalar) measure the tree, aliases expanded.
    """

    value: Any
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)
    faulty: bool = False
    cost: int = 1
    height: int = 0

    def child(self, part: str | int) -> "Tree | None":
        """What stands under that key or number; None where nothing does."""
        if isinstance(self.value, dict):
            found: Tree | None = self.value.get(part)
            return found
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            item: Tree = self.value[part]
            return item
        return None

    def nearest(self, path: Path) -> "Tree":
        """What stands at the path, or at as much of it as exists."""
        node = self
        for part in path:
            child = node.child(part)
            if child is None:
                break
            node = child
        return node

    def plain(self) -> Any:
        """The value as plain Python, without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def copy(self) -> "Tree":
        value = self.value
        if isinstance(value, dict):
            value = {key: child.copy() for key, child in value.items()}
        elif isinstance(value, list):
            value = [child.copy() for child in value]
        return Tree(value, self.place, dict(self.keys), self.faulty, self.cost, self.height)


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, short, texts in quotes, YAML's words for Python's."""
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


def dotted(path: Path) -> str:
    """``("train", "phases", 0, "lr")`` as ``train.phases[0].lr``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"\w{1,60}", part, re.ASCII)
            text += ("." if text else "") + (part if plain else shown(part))
    return text
