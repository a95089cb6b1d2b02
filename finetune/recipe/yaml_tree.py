"""YAML text to a tree of values that know their place.

Only PyYAML's scanner and parser are used: they yield events, never objects, so that no tag can construct
anything. :mod:`finetune.recipe.scalars` says what words stand for. Beyond that: keys are texts as they are
written, and one given twice is a fault; aliases are expanded, to a bounded size; merge keys (``<<``) are
refused.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from finetune.recipe.scalars import CORE, UNUSABLE, UNUSABLE_MESSAGE, resolve_event, tag_message
from finetune.recipe.tree import Path, Place, Problem, Tree, dotted, shown

MAX_VALUES = 10_000
MAX_DEPTH = 32
# A text counts as one value more for each so many characters, which bounds what aliases of long texts cost.
CHARACTERS_PER_VALUE = 64

_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HINTS = {
    "mapping values are not allowed here": "; is the indentation right? A text that holds ': ' needs quotes",
    "cannot start any token": "; a text that begins with it needs quotes",
    "could not find expected ':'": "; a key ends in a colon and a space",
}


def read_tree(
    text: str, place_at: Callable[[int, int], Place], base: Path = ()
) -> tuple[Tree, list[Problem]]:
    """Read one YAML document.

    ``place_at(line, column)``, from 1, makes the places; ``base`` is put before the keys in messages.
    Returns the tree and every fault found; after a fault that ends the reading, the tree is ``faulty``.
    An empty document is null.
    """
    builder = _Builder(place_at, base)
    start = place_at(1, 1)
    bad = _CONTROL.search(text)
    if bad is not None:
        place = place_at(text.count("\n", 0, bad.start()) + 1, bad.start() - text.rfind("\n", 0, bad.start()))
        message = f"the character U+{ord(bad.group()):04X} cannot stand in YAML text; remove it"
        return Tree(None, start, faulty=True), [Problem(place, message)]
    try:
        return builder.document(text), builder.problems
    except _UnreadableError as error:
        return Tree(None, start, faulty=True), [*builder.problems, error.problem]


class _UnreadableError(Exception):
    """Reading cannot go on after this problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class _Events(Reader, Scanner, Parser):
    """PyYAML without what resolves, composes and constructs."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


class _Builder:
    def __init__(self, place_at: Callable[[int, int], Place], base: Path) -> None:
        self.place_at = place_at
        self.base = base
        self.problems: list[Problem] = []
        self.anchors: dict[str, Tree | None] = {}  # None while the anchored value is still being read
        self.cost = 0

    def document(self, text: str) -> Tree:
        self.text = text
        self.events: Any = _Events(text)
        self._next()  # start of stream
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return Tree(None, self.place_at(1, 1))
        tree = self._node(self._next(), self.base, 0)
        self._next()  # end of document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            self._stop(event, "a second document begins here; one recipe is one document")
        return tree

    def _place(self, event: Any) -> Place:
        return self.place_at(event.start_mark.line + 1, event.start_mark.column + 1)

    def _message(self, path: Path, message: str) -> str:
        return f"{dotted(path)}: {message}" if path else message

    def _fault(self, place: Place, path: Path, message: str) -> Tree:
        self.problems.append(Problem(place, self._message(path, message)))
        return Tree(None, place, faulty=True)

    def _stop(self, event: Any, message: str) -> None:
        raise _UnreadableError(Problem(self._place(event), message))

    def _next(self) -> Any:
        try:
            return self.events.get_event()
        except yaml.MarkedYAMLError as error:
            raise _UnreadableError(self._syntax_problem(error)) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML lets some of Python's own errors through: "\UFFFFFFFF", a %YAML version of 5000 digits.
            mark = self.events.get_mark()
            place = self.place_at(mark.line + 1, mark.column + 1)
            raise _UnreadableError(Problem(place, f"not valid YAML near here ({error})")) from None

    def _syntax_problem(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        place = self.place_at(line + 1, column + 1)
        lines = self.text.splitlines()
        content = lines[line] if line < len(lines) else ""
        indent = content[: len(content) - len(content.lstrip())]
        if "\t" in indent or content[column : column + 1] == "\t":
            return Problem(place, "a tab; YAML wants spaces, so replace it by them")
        problem = str(error.problem or "not valid YAML")
        hint = next((hint for part, hint in _HINTS.items() if part in problem), "")
        context = f" ({error.context})" if error.context else ""
        return Problem(place, f"not valid YAML: {problem}{context}{hint}")

    def _spend(self, event: Any, cost: int, depth: int) -> None:
        self.cost += cost
        if self.cost > MAX_VALUES:
            self._stop(event, f"more than {MAX_VALUES} values, aliases expanded; that is no recipe")
        if depth > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} deep, aliases expanded; that is no recipe")

    def _node(self, event: Any, path: Path, depth: int) -> Tree:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        before = self.cost
        if isinstance(event, yaml.ScalarEvent):
            self._spend(event, 1 + len(event.value) // CHARACTERS_PER_VALUE, depth)
            tree = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._spend(event, 1, depth)
            tree = self._sequence(event, path, depth)
        else:
            self._spend(event, 1, depth)
            tree = self._mapping(event, path, depth)
        tree.cost = self.cost - before
        if event.anchor is not None:
            self.anchors[event.anchor] = tree
        return tree

    def _alias(self, event: Any, path: Path, depth: int) -> Tree:
        place = self._place(event)
        if event.anchor not in self.anchors:
            return self._fault(place, path, f"no anchor named {shown(event.anchor)} stands before this alias")
        tree = self.anchors[event.anchor]
        if tree is None:
            return self._fault(place, path, f"the alias {shown(event.anchor)} stands inside what it names")
        self._spend(event, tree.cost, depth + tree.height)
        return tree.copy()

    def _collection_tag_fault(self, event: Any, path: Path, core: str) -> bool:
        if event.tag in (None, CORE + core):
            return False
        self._fault(self._place(event), path, tag_message(event.tag))
        return True

    def _sequence(self, event: Any, path: Path, depth: int) -> Tree:
        faulty = self._collection_tag_fault(event, path, "seq")
        items: list[Tree] = []
        while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(inner, (*path, len(items)), depth + 1))
        height = 1 + max((item.height for item in items), default=0)
        return Tree(None if faulty else items, self._place(event), faulty=faulty, height=height)

    def _mapping(self, event: Any, path: Path, depth: int) -> Tree:
        faulty = self._collection_tag_fault(event, path, "map")
        values: dict[str, Tree] = {}
        keys: dict[str, Place] = {}
        while not isinstance(inner := self._next(), yaml.MappingEndEvent):
            place = self._place(inner)
            key = self._key(inner, path, depth)
            value = self._node(self._next(), path if key is None else (*path, key), depth + 1)
            if key is None:
                continue
            if key in keys:
                first = keys[key]
                where = f"on line {first.line}, column {first.column}" if first.line else "in the same value"
                self._fault(place, (*path, key), f"given twice, first {where}; keep one")
            else:
                values[key], keys[key] = value, place
        height = 1 + max((value.height for value in values.values()), default=0)
        return Tree(None if faulty else values, self._place(event), keys, faulty=faulty, height=height)

    def _key(self, event: Any, path: Path, depth: int) -> str | None:
        """The key's text; None where the fault has been reported."""
        place = self._place(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, path, depth + 1)
            self._fault(place, path, "a key must be a plain text, not a list, mapping or alias")
            return None
        cost = 1 + len(event.value) // CHARACTERS_PER_VALUE
        self._spend(event, cost, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = Tree(event.value, place, cost=cost)
        if event.tag not in (None, CORE + "str"):
            message = tag_message(event.tag)
        elif event.implicit[0] and event.value == "<<":
            message = "merge keys (<<) are not supported; write the keys out"
        elif not event.value:
            message = "a key is missing before this colon"
        elif UNUSABLE.search(event.value):
            message = UNUSABLE_MESSAGE
        else:
            return str(event.value)
        self._fault(place, path, message)
        return None

    def _scalar(self, event: Any, path: Path) -> Tree:
        place = self._place(event)
        try:
            return Tree(resolve_event(event), place)
        except ValueError as error:
            return self._fault(place, path, str(error))
