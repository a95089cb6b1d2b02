"""How words in a recipe are read: by YAML 1.2 rather than PyYAML's YAML 1.1.

- ``true`` and ``false`` are booleans. ``yes``, ``no``, ``on``, ``off``, ``y`` and ``n`` are texts.
- ``1e-3``, ``1E5``, ``.5`` and ``+1`` are numbers. ``1_000``, ``0x1F``, ``1:30`` and dates are texts.
- ``010`` is an error, because YAML 1.1 reads 8 and YAML 1.2 reads 10. So are infinity and NaN.
- ``null``, ``~`` and an empty value are null.
- Only YAML's own tags (``!!str``, ``!!int``, ``!!float``, ``!!bool``, ``!!null``) are allowed.
"""

import re
from math import isinf
from typing import TypeAlias

from finetune.recipe.document import show_value

Scalar: TypeAlias = bool | int | float | str | None

MAX_DIGITS = 20
CORE = "tag:yaml.org,2002:"
# The tag of an unquoted word that has no tag.
PLAIN = "plain"
UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
UNUSABLE_MESSAGE = "a NUL or half a character (surrogate) is not allowed here; remove it"

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
_CORE_TYPES = {"int": (int,), "float": (float, int), "bool": (bool,), "null": (type(None),)}


def tag_message(tag: str) -> str:
    written = f"!!{tag.removeprefix(CORE)}" if tag.startswith(CORE) else tag
    return f"the tag {show_value(written)} is not allowed; a recipe holds plain values only, so remove it"


def read_scalar(tag: str, text: str) -> Scalar:
    """The value of a word with that tag, or with :data:`PLAIN`.

    Raises:
        ValueError: the word or its tag is not allowed. The message says why.
    """
    if UNUSABLE.search(text):
        raise ValueError(UNUSABLE_MESSAGE)
    if tag == PLAIN:
        return read_word(text)
    if tag == f"{CORE}str":
        return text
    core = tag.removeprefix(CORE)
    if core not in _CORE_TYPES or core == tag:
        raise ValueError(tag_message(tag))
    value = read_word(text)
    if type(value) not in _CORE_TYPES[core]:
        raise ValueError(f"{show_value(text)} is not a !!{core}; remove the tag or correct the value")
    return float(value) if core == "float" and value is not None else value


def type_of_word(text: str) -> type | None:
    """The type of an unquoted word; None if it is not allowed."""
    try:
        return type(read_word(text))
    except ValueError:
        return None


def read_word(text: str) -> Scalar:
    """The value of an unquoted word.

    Raises:
        ValueError: the word is ambiguous, or not a usable number.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            f"{show_value(text)} is octal in YAML 1.1 and decimal in YAML 1.2; "
            "remove the leading zeros, or quote it if it is a text"
        )
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            raise ValueError(f"a number of more than {MAX_DIGITS} digits; quote it if it is a text")
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if isinf(value):
            raise ValueError(f"the number {show_value(text)} is too large; quote it if it is a text")
        return value
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{show_value(text)} is not a finite number; quote it if it is a text")
    return text
