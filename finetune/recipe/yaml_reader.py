"""Reads YAML text into plain values with their places.

PyYAML composes the text into nodes, which know their lines and columns. No tag constructs an object.
:mod:`finetune.recipe.scalars` defines how words are read. Keys are texts as written. Repeated keys and merge
keys (``<<``) are errors. Aliases are expanded, and the expanded size and depth are bounded.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from finetune.recipe.document import Document, KeyPath, Place, Problem, show_value
from finetune.recipe.scalars import CORE, PLAIN, UNUSABLE, UNUSABLE_MESSAGE, read_scalar, tag_message

MAX_VALUES = 10_000
MAX_DEPTH = 32
# A text counts as one more value per so many characters. This bounds the cost of aliases of long texts.
CHARACTERS_PER_VALUE = 64

_ALIAS = "alias"
_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HINTS = {
    "mapping values are not allowed here": "; check the indentation, and quote a text that contains ': '",
    "cannot start any token": "; quote a text that begins with it",
    "could not find expected ':'": "; a key ends in a colon and a space",
}


def read_yaml(
    text: str, place_at: Callable[[int, int], Place], base: KeyPath = ()
) -> tuple[Document, list[Problem]]:
    """Read one YAML document. An empty document is null.

    Args:
        place_at: makes a place from a line and a column, both from 1.
        base: the path of the document; messages put it before the keys.

    Returns:
        The document and all problems. After a problem that ends the reading, the whole document is faulty.
    """
    reader = _Reader(place_at, base)
    try:
        node = _compose(text, place_at)
        value = None if node is None else reader.read(node, (), 0)
    except _UnreadableError as error:
        document = Document(None, {(): place_at(1, 1)}, faulty={()})
        return document, [*reader.problems, error.problem]
    reader.places.setdefault((), place_at(1, 1))
    return Document(value, reader.places, reader.keys, reader.faulty), reader.problems


class _UnreadableError(Exception):
    """The reading ends at this problem."""

    def __init__(self, place: Place, message: str) -> None:
        self.problem = Problem(place, message)
        super().__init__(str(self.problem))


class _LimitError(Exception):
    """The document is too large or too deep at ``mark``."""

    def __init__(self, mark: Any, limit: str) -> None:
        self.mark = mark
        super().__init__(f"{limit}, with aliases expanded; this is not a recipe")


def _check_limits(mark: Any, cost: int, depth: int) -> None:
    if cost > MAX_VALUES:
        raise _LimitError(mark, f"more than {MAX_VALUES} values")
    if depth > MAX_DEPTH:
        raise _LimitError(mark, f"nested more than {MAX_DEPTH} deep")


def _cost(value: Any) -> int:
    return 1 + (len(value) // CHARACTERS_PER_VALUE if isinstance(value, str) else 0)


class _Composer(yaml.SafeLoader):
    """Composes nodes within the limits. Aliases stay nodes, so that messages can show their place."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.cost = 0
        self.depth = -1

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.cost += _cost(getattr(event, "value", None))
        self.depth += 1
        _check_limits(event.start_mark, self.cost, self.depth)
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            target = event.anchor, self.anchors.get(event.anchor)
            start: Any = event.start_mark
            node: Any = yaml.Node(_ALIAS, target, start, start)
        else:
            self.anchors.pop(event.anchor, None)  # PyYAML would refuse a second anchor of that name
            if event.tag == "!":
                event.tag = "!<!>"  # PyYAML would ignore it
            node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else f"{CORE}str"
        return f"{CORE}seq" if kind is yaml.SequenceNode else f"{CORE}map"


def _compose(text: str, place_at: Callable[[int, int], Place]) -> Any:
    """The root node; None for an empty text."""
    if (bad := _CONTROL.search(text)) is not None:
        line, column = text.count("\n", 0, bad.start()) + 1, bad.start() - text.rfind("\n", 0, bad.start())
        code = f"U+{ord(bad.group()):04X}"
        raise _UnreadableError(place_at(line, column), f"the character {code} is not allowed; remove it")

    def unreadable(mark: Any, message: str) -> _UnreadableError:
        return _UnreadableError(place_at(mark.line + 1, mark.column + 1), message)

    composer = _Composer(text)
    try:
        node = composer.get_node() if composer.check_node() else None
        if composer.check_node():
            mark = composer.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise unreadable(mark, "a second document begins here; a recipe is one document")
    except _LimitError as error:
        raise unreadable(error.mark, str(error)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or composer.get_mark()
        raise unreadable(mark, _syntax_message(text, mark, error)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets some of Python's own errors through: "\UFFFFFFFF", a %YAML version of 5000 digits.
        raise unreadable(composer.get_mark(), f"not valid YAML near here ({error})") from None
    return node


def _syntax_message(text: str, mark: Any, error: yaml.MarkedYAMLError) -> str:
    lines = text.splitlines()
    content = lines[mark.line] if mark.line < len(lines) else ""
    indent = content[: len(content) - len(content.lstrip())]
    if "\t" in indent or content[mark.column : mark.column + 1] == "\t":
        return "a tab; YAML needs spaces, so replace it"
    problem = str(error.problem or "not valid YAML")
    hint = next((hint for part, hint in _HINTS.items() if part in problem), "")
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {problem}{context}{hint}"


class _Reader:
    """Reads nodes into plain values, and collects places and problems."""

    def __init__(self, place_at: Callable[[int, int], Place], base: KeyPath) -> None:
        self.place_at = place_at
        self.base = base
        self.problems: list[Problem] = []
        self.places: dict[KeyPath, Place] = {}
        self.keys: dict[KeyPath, Place] = {}
        self.faulty: set[KeyPath] = set()
        self.cost = 0
        self.open: list[Any] = []  # the anchored nodes whose aliases are being read

    def read(self, node: Any, path: KeyPath, depth: int) -> Any:
        place = self.places[path] = self._place(node)
        try:
            _check_limits(node.start_mark, self.cost, depth)
        except _LimitError as error:
            raise _UnreadableError(place, str(error)) from None
        if node.tag == _ALIAS:
            return self._alias(node, path, depth)
        self.cost += _cost(node.value)
        self.open.append(node)
        value = None
        if isinstance(node, yaml.ScalarNode):
            try:
                value = read_scalar(node.tag, node.value)
            except ValueError as error:
                self._fault(place, path, str(error))
        elif isinstance(node, yaml.SequenceNode):
            items = [self.read(item, (*path, n), depth + 1) for n, item in enumerate(node.value)]
            value = self._checked(items, node.tag == f"{CORE}seq", node, path)
        else:
            entries = self._mapping(node, path, depth)
            value = self._checked(entries, node.tag == f"{CORE}map", node, path)
        self.open.pop()
        return value

    def _place(self, node: Any) -> Place:
        return self.place_at(node.start_mark.line + 1, node.start_mark.column + 1)

    def _fault(self, place: Place, path: KeyPath, message: str) -> None:
        self.problems.append(Problem.at(place, (*self.base, *path), message))
        self.faulty.add(path)

    def _checked(self, value: Any, allowed: bool, node: Any, path: KeyPath) -> Any:
        if allowed:
            return value
        self._fault(self._place(node), path, tag_message(node.tag))
        return None

    def _alias(self, node: Any, path: KeyPath, depth: int) -> Any:
        name, target = node.value
        if target is None:
            self._fault(self._place(node), path, f"no anchor named {show_value(name)} before this alias")
        elif any(each is target for each in self.open):
            self._fault(self._place(node), path, f"the alias {show_value(name)} is inside its own anchor")
        else:
            return self.read(target, path, depth)
        return None

    def _mapping(self, node: Any, path: KeyPath, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place, key = self._place(key_node), key_node.value
            self.cost += _cost(key)
            if message := _key_problem(key_node):
                self.problems.append(Problem.at(place, (*self.base, *path), message))
            elif key in values:
                first = self.keys[(*path, key)]
                where = f"on line {first.line}, column {first.column}" if first.line else "in the same value"
                message = f"given twice, first {where}; remove one"
                self.problems.append(Problem.at(place, (*self.base, *path, key), message))
            else:
                self.keys[(*path, key)] = place
                values[key] = self.read(value_node, (*path, key), depth + 1)
        return values


def _key_problem(node: Any) -> str:
    """Why a node cannot be a key; empty if it can."""
    if not isinstance(node, yaml.ScalarNode):
        return "a key must be a plain text, not a list, mapping or alias"
    if node.tag not in (PLAIN, f"{CORE}str"):
        return tag_message(node.tag)
    if node.tag == PLAIN and node.value == "<<":
        return "merge keys (<<) are not supported; write the keys out"
    if not node.value:
        return "a key is missing before this colon"
    return UNUSABLE_MESSAGE if UNUSABLE.search(node.value) else ""
