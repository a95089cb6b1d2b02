"""Reads YAML text into plain values with their places.

PyYAML composes the text into nodes, which know their lines and columns. No tag constructs an object.
:mod:`finetune.recipe.scalars` defines how words are read. Keys are texts as written. Repeated keys and merge
keys (``<<``) are errors. Aliases are expanded, and the expanded size and depth are bounded.
"""

import re
from collections.abc import Callable
from typing import Any, NoReturn

import yaml

from finetune.recipe.document import Document, KeyPath, Place, Problem, show_value
from finetune.recipe.scalars import CORE, PLAIN, UNUSABLE, UNUSABLE_MESSAGE, read_scalar, tag_message

MAX_VALUES = 10_000
MAX_DEPTH = 32
# A text counts as one more value per this many characters, which bounds the cost of aliases of long texts.
CHARACTERS_PER_VALUE = 64

_ALIAS = "alias"
_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HINTS = {
    "mapping values are not allowed here": "; check the indentation, and quote a text that contains ': '",
    "cannot start any token": "; quote a text that begins with it",
    "could not find expected ':'": "; a key ends in a colon and a space",
}


def read_yaml(text: str, place_at: Callable[[int, int], Place], base: KeyPath = ()) -> Document:
    """Read one YAML document. An empty document is null.

    After a problem that ends the reading, the whole document is faulty.

    Args:
        place_at: makes a place from a line and a column, both from 1.
        base: the path of the document; messages put it before the keys.
    """
    start = place_at(1, 1)
    document = Document(None, {(): start})
    try:
        reader = _Reader(text, place_at, base, document)
        node = reader.compose_root()
        document.value = None if node is None else reader.read(node, (), 0)
    except _UnreadableError as error:
        return Document(None, {(): start}, faulty={()}, problems=[*document.problems, error.problem])
    return document


class _UnreadableError(Exception):
    """The reading ends at this problem."""

    def __init__(self, place: Place, message: str) -> None:
        self.problem = Problem(place, message)
        super().__init__(str(self.problem))


class _Reader(yaml.SafeLoader):
    """Composes nodes, then reads them into a document. Aliases stay nodes, for the places in messages."""

    def __init__(
        self, text: str, place_at: Callable[[int, int], Place], base: KeyPath, document: Document
    ) -> None:
        self.text, self.place_at, self.base, self.document = text, place_at, base, document
        if (bad := _CONTROL.search(text)) is not None:
            before = text[: bad.start()]
            place = place_at(before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise _UnreadableError(place, f"the character U+{ord(bad.group()):04X} is not allowed; remove it")
        super().__init__(text)
        self.composed = self.expanded = 0  # values so far, aliases not expanded and expanded
        self.depth = -1
        self.open: list[Any] = []  # collections that are being read

    def compose_root(self) -> Any:
        """The root node; None for an empty text."""
        try:
            node = self.get_node() if self.check_node() else None
            if self.check_node():
                event: Any = self.peek_event()  # type: ignore[no-untyped-call]
                self._stop(event.start_mark, "a second document begins here; write only one")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark or self.get_mark()
            self._stop(mark, _syntax_message(self.text, mark, error))
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML lets some of Python's own errors through: "\UFFFFFFFF", a %YAML version of 5000 digits.
            self._stop(self.get_mark(), f"not valid YAML near here ({error})")
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.composed += _cost(getattr(event, "value", None))
        self.depth += 1
        self._check_limits(event.start_mark, self.composed, self.depth)
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

    def read(self, node: Any, path: KeyPath, depth: int) -> Any:
        """The plain value of ``node``, whose place and problems go into the document."""
        self.document.places[path] = self._place(node.start_mark)
        self._check_limits(node.start_mark, self.expanded, depth)
        if node.tag == _ALIAS:
            return self._alias(node, path, depth)
        self.expanded += _cost(node.value)
        if isinstance(node, yaml.ScalarNode):
            try:
                return read_scalar(node.tag, node.value)
            except ValueError as error:
                return self._fault(path, str(error))
        self.open.append(node)
        value: Any
        if isinstance(node, yaml.SequenceNode):
            value = [self.read(item, (*path, n), depth + 1) for n, item in enumerate(node.value)]
            allowed = node.tag == f"{CORE}seq"
        else:
            value = self._mapping(node, path, depth)
            allowed = node.tag == f"{CORE}map"
        self.open.pop()
        return value if allowed else self._fault(path, tag_message(node.tag))

    def _mapping(self, node: Any, path: KeyPath, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, place = key_node.value, self._place(key_node.start_mark)
            self.expanded += _cost(key)
            if message := _key_problem(key_node):
                self._report(place, path, message)
            elif key in values:
                first = self.document.keys[(*path, key)]
                where = f"on line {first.line}, column {first.column}" if first.line else "in the same value"
                self._report(place, (*path, key), f"given twice, first {where}; remove one")
            else:
                self.document.keys[(*path, key)] = place
                values[key] = self.read(value_node, (*path, key), depth + 1)
        return values

    def _alias(self, node: Any, path: KeyPath, depth: int) -> Any:
        name, target = node.value
        if target is None:
            return self._fault(path, f"no anchor named {show_value(name)} before this alias")
        if any(each is target for each in self.open):
            return self._fault(path, f"the alias {show_value(name)} is inside its own anchor")
        return self.read(target, path, depth)

    def _place(self, mark: Any) -> Place:
        return self.place_at(mark.line + 1, mark.column + 1)

    def _report(self, place: Place, path: KeyPath, message: str) -> None:
        self.document.problems.append(Problem.at(place, (*self.base, *path), message))

    def _fault(self, path: KeyPath, message: str) -> None:
        self._report(self.document.places[path], path, message)
        self.document.faulty.add(path)

    def _stop(self, mark: Any, message: str) -> NoReturn:
        raise _UnreadableError(self._place(mark), message) from None

    def _check_limits(self, mark: Any, values: int, depth: int) -> None:
        if values > MAX_VALUES:
            self._stop(mark, f"more than {MAX_VALUES} values, with aliases expanded: too many")
        if depth > MAX_DEPTH:
            self._stop(mark, f"nested more than {MAX_DEPTH} deep: too deep")


def _cost(value: Any) -> int:
    return 1 + (len(value) // CHARACTERS_PER_VALUE if isinstance(value, str) else 0)


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
