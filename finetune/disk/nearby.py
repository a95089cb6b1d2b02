"""What a path was meant to be that leads nowhere: another spelling, another folder, an ending left out.

Only what is there is proposed, and only what is near: in another case or Unicode form, a letter or two off,
without its extension, or of the same name in a folder near by.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePath

from finetune.errors import printable

# Names compared, and folders looked into, at most: a hint is not worth a wait.
MOST_NAMES = 5000
MOST_FOLDERS = 200
# Longer names are compared by their case and form alone.
LONGEST = 80

Accepts = Callable[[str], bool]


def did_you_mean(path: str, accepts: Accepts = os.path.exists, names: Iterable[str] = ()) -> str:
    """``" Did you mean 'photos'?"`` for the nearest thing to ``path``, which is not there, or ``""``.

    Args:
        path: as the user wrote it; relative to the working directory.
        accepts: whether a path is the kind of thing that is wanted.
        names: words that may stand in its place, such as known data sets.
    """
    found = nearest(path, accepts, names)
    return "" if found is None else f" Did you mean {printable(found)!r}?"


def nearest(path: str, accepts: Accepts = os.path.exists, names: Iterable[str] = ()) -> str | None:
    """The path or name that ``path`` was most likely meant to be; None if none is near."""
    try:
        return next(_candidates(path, accepts, list(names)), None)
    except (OSError, ValueError, RuntimeError):
        return None


def is_run(path: str) -> bool:
    """Whether there is a run directory."""
    return (Path(path) / "resolved.yaml").is_file()


def is_recipe(path: str) -> bool:
    """Whether there is a YAML file."""
    return path.lower().endswith((".yaml", ".yml")) and Path(path).is_file()


def distance(one: str, other: str) -> int:
    """Letters to insert, remove, replace or swap with their neighbour (optimal string alignment)."""
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
    """Nearest first."""
    if not path.strip() or "\0" in path:
        return
    bare = path.strip().strip("'\"").strip()
    if bare and bare != path and accepts(bare):
        yield bare
    yield from (name for name in names if _folded(name) == _folded(bare))
    respelt = _respelt(bare)
    yield from (each for cost, each in respelt if cost == 0 and accepts(each))
    yield from filter(accepts, _elsewhere(bare))
    yield from (each for _, each in respelt if accepts(each))
    close = [(off, name) for name in names if (off := _off(bare, name)) is not None]
    yield from (name for _, name in sorted(close))


def _respelt(path: str) -> list[tuple[int, str]]:
    """How many letters off, and paths in which one part or more is spelt another way; the nearest first."""
    whole = Path(path).expanduser()
    found = [(0, Path(whole.anchor))]
    for part in whole.parts[1:] if whole.anchor else whole.parts:
        longer = []
        for cost, folder in found:
            if os.path.lexists(folder / part):
                longer.append((cost, folder / part))
            else:
                near = ((_off(part, name), name) for name in _names(folder))
                longer += [(cost + off, folder / name) for off, name in near if off is not None]
        found = sorted(longer)[:5]
    return [(cost, str(each)) for cost, each in found]


def _elsewhere(path: str) -> Iterator[str]:
    """Things of the same name (in any case, with or without its extension) in folders near by.

    They are looked for in the last folder of the path that is there, in the working directory, in all folders
    of these two, and in the one around the working directory.
    """
    name, there = Path(path).name, Path(path).expanduser().parent
    if name in ("", ".."):
        return
    while not there.is_dir() and there != there.parent:
        there = there.parent
    for base in dict.fromkeys((there, Path())):
        inner = [base / each for each in _names(base)[:MOST_FOLDERS]]
        for folder in [base, *(each for each in inner if each.is_dir())]:
            yield from _alike(name, folder)
    yield from _alike(name, Path(os.pardir))


def _alike(name: str, folder: Path) -> list[str]:
    return [str(folder / each) for each in _names(folder) if _off(name, each) == 0]


def _off(word: str, name: str) -> int | None:
    """How many letters ``name`` is off: 0 if only case, form or ending differ; None if it is too far."""
    one, other = _folded(word), _folded(name)
    if one == other or one == PurePath(other).stem or PurePath(one).stem == other:
        return 0
    if max(len(one), len(other)) > LONGEST:
        return None
    off = min(distance(one, other), distance(one, PurePath(other).stem))
    return off if off <= (1 if max(len(one), len(other)) < 6 else 2) else None


def _folded(name: str) -> str:
    """The same for names that differ in case, Unicode form, spaces around them, or what joins their words."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return plain.strip().replace("-", "_").replace(" ", "_")


def _names(folder: Path) -> list[str]:
    """What there is in a folder, as far as it can be seen, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, MOST_NAMES)]
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith("."))
