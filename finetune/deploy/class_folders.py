"""Name one folder per class, with names that every file system accepts. Torch-free."""

import os
import unicodedata
from collections.abc import Collection, Sequence

# The longest folder name in bytes. File systems allow 255; a number may be added.
LONGEST = 200
# Reserved names on Windows.
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}
)
FORBIDDEN = frozenset('/\\:*?"<>|')


def folder_names(classes: Sequence[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Return the folder name of each class. No two are equal on any file system, and none is ``reserved``."""
    names: dict[str, str] = {}
    taken = {_folded(name) for name in reserved}
    for name in classes:
        valid = _valid(name)
        candidates = (valid if number == 1 else f"{valid}-{number}" for number in range(1, len(classes) + 3))
        names[name] = next(each for each in candidates if _folded(each) not in taken)
        taken.add(_folded(names[name]))
    return names


def _valid(name: str) -> str:
    text = "".join("_" if char in FORBIDDEN or not char.isprintable() else char for char in name)
    while len(os.fsencode(text)) > LONGEST:
        text = text[:-1]
    # A leading dot hides a folder. Windows removes dots and spaces at the end.
    text = text.strip(" ").rstrip(". ")
    text = f"_{text[1:]}" if text.startswith(".") else text
    return f"_{text}" if not text or text.split(".")[0].strip().lower() in DEVICES else text


def _folded(name: str) -> str:
    """Equal for names that some file system treats as equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
