"""What a word in a recipe stands for: YAML 1.2 rather than PyYAML's 1.1.

- ``true`` and ``false`` are the booleans; ``yes``, ``no``, ``on``, ``off``, ``y``, ``n`` are texts;
- ``1e-3``, ``1E5``, ``.5`` and ``+1`` are numbers; ``1_000``, ``0x1F``, ``1:30`` and dates are texts;
- ``010`` is refused, since YAML 1.1 reads 8 and YAML 1.2 reads 10; so are infinity and NaN;
- ``null``, ``~`` and nothing at all are null;
- of tags, only YAML's own (``!!str`` and so on) are taken.
"""

import re
from typing import Any

from finetune.recipe.tree import shown

MAX_DIGITS = 20
CORE = "tag:yaml.org,2002:"
UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
UNUSABLE_MESSAGE = "a NUL or half a character (surrogate) cannot stand here; remove it"

_INTEGER = re.compile(r"[-+]?[0-9]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_CORE_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}


def tag_message(tag: str) -> str:
    written = f"!!{tag.removeprefix(CORE)}" if tag.startswith(CORE) else tag
    return f"the tag {shown(written)} is not allowed; a recipe holds plain values only, so remove it"


def resolve_event(event: Any) -> bool | int | float | str | None:
    """The value of a scalar event. ValueError says what is wrong with it."""
    text = event.value
    if UNUSABLE.search(text):
        raise ValueError(UNUSABLE_MESSAGE)
    if event.tag is None:
        return resolve_plain(text) if event.implicit[0] else str(text)
    core = event.tag.removeprefix(CORE)
    if core not in _CORE_TYPES or core == event.tag:
        raise ValueError(tag_message(event.tag))
    if core == "str":
        return str(text)
    value = resolve_plain(text)
    if type(value) not in _CORE_TYPES[core]:
        raise ValueError(f"{shown(text)} is no !!{core}; remove the tag or correct the value")
    return float(value) if core == "float" and value is not None else value


def resolve_plain(text: str) -> bool | int | float | str | None:
    """What an unquoted word stands for. ValueError where that is not safe to say."""
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            f"{shown(text)} is 8-based to some and 10-based to others; drop the zeros, or quote a text"
        )
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            raise ValueError("a number with so many digits is surely wrong; quote it if it is a text")
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"the number {shown(text)} is too large; quote it if it is a text")
        return value
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a finite number; write one, or quote it if it is a text")
    return text
