"""Suggest an existing path for one that does not exist.

A suggestion differs in letter case or Unicode form, by one or two letters or by its extension, or has the
same name in a nearby folder.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePath

from finetune.errors import printable

# Limits on the names that are compared and the folders that are listed, so that a hint comes quickly.
MOST_NAMES = 5000
MOST_FOLDERS = 200
# Longer names must match apart from letter case and Unicode form.
LONGEST = 80

Accepts = Callable[[str], bool]


def did_you_mean(path: str, accepts: Accepts = os.path.exists, names: Iterable[str] = ()) -> str:
    """``" Did you mean 'photos'?"`` with the best suggestion for ``path``, or ``""`` if there is none.

    Args:
        path: a path that does not exist, as the user wrote it.
        accepts: whether an existing path is of the kind that the caller needs.
        names: words that are valid instead of a path, such as names of known data sets.
    """
    found = nearest(path, accepts, names)
    return "" if found is None else f" Did you mean {printable(found)!r}?"


def nearest(path: str, accepts: Accepts = os.path.exists, names: Iterable[str] = ()) -> str | None:
    """The path or name that the user most likely meant by ``path``; None if nothing is similar."""
    try:
        return next(_candidates(path, accepts, list(names)), None)
    except (OSError, ValueError, RuntimeError):
        return None


def is_run(path: str) -> bool:
    """Whether ``path`` is a run directory."""
    return (Path(path) / "resolved.yaml").is_file()


def is_recipe(path: str) -> bool:
    """Whether ``path`` is a YAML file."""
    return path.lower().endswith((".yaml", ".yml")) and Path(path).is_file()


def distance(one: str, other: str) -> int:
    """Edit distance in letters: insertions, deletions, replacements and swaps of neighbours.

    This is the optimal string alignment distance, a restricted Damerau-Levenshtein distance.
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, its in enumerate(other, 1):
            least = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                least = min(least, last[j - 2] + 1)
            row.append(least)
    return row[-1]


def _candidates(path: str, accepts: Accepts, names: list[str]) -> Iterator[str]:
    """All suggestions, best first."""
    if not path.strip() or "\0" in path:
        return
    bare = path.strip().strip("'\"").strip()
    if bare and bare != path and accepts(bare):
        yield bare
    yield from (name for name in names if _folded(name) == _folded(bare))
    respellings = _respellings(bare)
    yield from (each for cost, each in respellings if cost == 0 and accepts(each))
    yield from filter(accepts, _in_nearby_folders(bare))
    yield from (each for _, each in respellings if accepts(each))
    close = [(off, name) for name in names if (off := _distance(bare, name)) is not None]
    yield from (name for _, name in sorted(close))


def _respellings(path: str) -> list[tuple[int, str]]:
    """Existing paths in which some parts are spelt differently, with edit distances; nearest first."""
    whole = Path(path).expanduser()
    found = [(0, Path(whole.anchor))]
    for part in whole.parts[1:] if whole.anchor else whole.parts:
        longer = []
        for cost, folder in found:
            if os.path.lexists(folder / part):
                longer.append((cost, folder / part))
            else:
                near = ((_distance(part, name), name) for name in _names(folder))
                longer += [(cost + off, folder / name) for off, name in near if off is not None]
        found = sorted(longer)[:5]
    return [(cost, str(each)) for cost, each in found]


def _in_nearby_folders(path: str) -> Iterator[str]:
    """Paths of the same name, in any case and with or without its extension, in nearby folders.

    These are the deepest existing folder of ``path``, the working directory, the folders in these two, and
    the parent of the working directory.
    """
    name, there = Path(path).name, Path(path).expanduser().parent
    if name in ("", ".."):
        return
    while not there.is_dir() and there != there.parent:
        there = there.parent
    for base in dict.fromkeys((there, Path())):
        inner = [base / each for each in _names(base)[:MOST_FOLDERS]]
        for folder in [base, *(each for each in inner if each.is_dir())]:
            yield from _same_names(name, folder)
    yield from _same_names(name, Path(os.pardir))


def _same_names(name: str, folder: Path) -> list[str]:
    return [str(folder / each) for each in _names(folder) if _distance(name, each) == 0]


def _distance(word: str, name: str) -> int | None:
    """The edit distance: 0 if only case, form or extension differ, None if the names are too different."""
    one, other = _folded(word), _folded(name)
    if one == other or one == PurePath(other).stem or PurePath(one).stem == other:
        return 0
    if max(len(one), len(other)) > LONGEST:
        return None
    off = min(distance(one, other), distance(one, PurePath(other).stem))
    return off if off <= (1 if max(len(one), len(other)) < 6 else 2) else None


def _folded(name: str) -> str:
    """``name`` without differences in case, Unicode form, outer spaces and word separators."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return plain.strip().replace("-", "_").replace(" ", "_")


def _names(folder: Path) -> list[str]:
    """The names in ``folder`` that are not hidden; none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, MOST_NAMES)]
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith("."))
