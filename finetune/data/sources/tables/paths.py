r"""Find the files that a table lists, also from Windows paths and paths of another machine.

Relative paths start at the folder of the table. `photos\a.jpg` is read as `photos/a.jpg` if that file exists.
Absolute paths from another machine (`C:\photos\a.jpg`, `/home/anna/photos/a.jpg`) share a prefix; it is
replaced by the folder of the table if the images are there.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from finetune.errors import printable

NO_SUCH = "no such file"


@dataclass
class FoundPaths:
    """The files that the paths of a table refer to.

    Attributes:
        paths: the file for each given path; for a missing file, the path that was searched.
        missing: index into ``paths`` -> error message.
        notes: remarks on paths that were rewritten.
        shared_causes: an explanation that covers many missing files, and their indices.
    """

    paths: list[str]
    missing: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shared_causes: list[tuple[str, list[int]]] = field(default_factory=list)


def find_paths(given: Sequence[str], folder: Path) -> FoundPaths:
    """Find the files that the paths in ``given`` refer to, for a table in ``folder``."""
    base = os.fspath(folder)
    found = FoundPaths([])
    rewritten = 0
    for place, path in enumerate(given):
        # os.path, because a Path is slow for a million files.
        first = os.path.normpath(os.path.join(base, path))  # noqa: PTH118
        fault = _file_error(first)
        if fault is not None:
            for other in _interpretations(path):
                first = os.path.normpath(os.path.join(base, other))  # noqa: PTH118
                if _file_error(first) is None:
                    fault = None
                    rewritten += "\\" in path
                    break
        found.paths.append(first)
        if fault is not None:
            found.missing[place] = fault
    if rewritten:
        found.notes.append(f"backslashes were read as slashes in {rewritten:,} paths")
    foreign = _foreign_paths(given, found)
    if foreign:
        _relocate(foreign, given, folder, found)
    _suggest(given, folder, found, foreign)
    return found


def _file_error(path: str) -> str | None:
    """The error message if ``path`` is not a file; None if it is one."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
        return NO_SUCH if missing else str(getattr(error, "strerror", None) or error)
    return None if stat.S_ISREG(mode) else "not a file"


def _interpretations(path: str) -> list[str]:
    """Other ways to interpret a path that does not exist."""
    found = []
    trimmed = _without_scheme(path.strip())
    if trimmed.startswith("~"):
        trimmed = os.path.expanduser(trimmed)  # noqa: PTH111
    if trimmed != path:
        found.append(trimmed)
    if "\\" in trimmed and not PureWindowsPath(trimmed).is_absolute():
        found.append(trimmed.replace("\\", "/"))
    return found


def _without_scheme(path: str) -> str:
    """The path of a ``file:`` URL; other paths unchanged."""
    if not path.lower().startswith("file:"):
        return path
    try:
        return unquote(urlsplit(path).path)
    except ValueError:
        return path


def _foreign_paths(given: Sequence[str], found: FoundPaths) -> dict[int, tuple[str, ...]]:
    """Index -> parts of the missing paths that come from another machine.

    These are absolute paths whose root, or first folder below it, no found path shares.
    """
    absolute = {place: parts for place, path in enumerate(given) if (parts := _absolute(path))}
    known = {_root(parts) for place, parts in absolute.items() if place not in found.missing}
    return {
        place: parts
        for place, parts in absolute.items()
        if place in found.missing and _root(parts) not in known
    }


def _absolute(path: str) -> tuple[str, ...] | None:
    """The parts of an absolute Windows or Unix path, root or drive first; None for relative paths."""
    path = _without_scheme(path.strip())
    windows, posix = PureWindowsPath(path), PurePosixPath(path)
    # A drive alone (C:a.jpg) or a root alone (\photos\a.jpg) is enough.
    if windows.drive or (windows.root and not posix.root):
        return (windows.drive + windows.root, *windows.parts[1:])
    return posix.parts if posix.root else None


def _root(parts: tuple[str, ...]) -> str:
    """The drive, the share, or the first folder below the root, which differs between machines."""
    return "/".join(parts[: 2 if parts[0] in ("/", "\\") else 1]).lower()


def _relocate(
    foreign: dict[int, tuple[str, ...]], given: Sequence[str], folder: Path, found: FoundPaths
) -> None:
    """Replace the prefix that foreign paths share by ``folder``, if that finds at least half of the files."""
    here = printable(os.fspath(folder))
    groups: dict[str, list[int]] = {}
    for place, parts in foreign.items():
        groups.setdefault(_root(parts), []).append(place)
    for members in groups.values():
        shared = _common_prefix([foreign[place][:-1] for place in members])
        whole = _as_written(foreign[members[0]], shared, given[members[0]])
        if os.path.isdir(whole):  # noqa: PTH112  (a Path raises on odd names)
            continue  # The folder exists on this machine, so its files are missing.
        best: dict[int, str] = {}
        most, cut = 0, 1
        for length in range(1, len(shared) + 1):
            tails = {place: os.path.join(folder, *foreign[place][length:]) for place in members}  # noqa: PTH118
            there = sum(_file_error(tail) is None for tail in tails.values())
            if there > most:
                best, most, cut = tails, there, length
            if there == len(members):
                break
        whole = printable(whole)
        if 2 * most < len(members) or not most:
            number = "1 path starts" if len(members) == 1 else f"{len(members):,} paths start"
            cause = (
                f"{number} with {whole}, which does not exist here, and the files are not below {here} "
                f"either. Put the images beside the table and write relative paths: without {whole} and "
                "with / between folders"
            )
            found.shared_causes.append((cause, members))
            for place in members:
                found.paths[place] = given[place].strip()
            continue
        for place, tail in best.items():
            found.paths[place] = os.path.normpath(tail)
            if _file_error(tail) is None:
                del found.missing[place]
            else:
                found.missing[place] = f"{NO_SUCH}, and not below the table's folder either"
        prefix = printable(_as_written(foreign[members[0]], shared[:cut], given[members[0]]))
        found.notes.append(
            f"{prefix} does not exist here; its images were found below {here} ({most:,} of {len(members):,})"
        )


def _common_prefix(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest common prefix of all paths."""
    low, high = min(paths), max(paths)
    same = next((i for i, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))
    return low[:same]


def _as_written(parts: tuple[str, ...], shared: Sequence[str], path: str) -> str:
    """The prefix ``shared`` as text, with the separators that ``path`` uses."""
    separator = "\\" if "\\" in path else "/"
    head = parts[0].replace("\\", separator)
    return head + "".join(part + separator for part in shared[1:])


def _suggest(
    given: Sequence[str], folder: Path, found: FoundPaths, foreign: dict[int, tuple[str, ...]]
) -> None:
    """Suggest what missing paths may mean: another case, an extension, or another folder to start at."""
    listings: dict[str, dict[str, str]] = {}
    lost = [place for place, fault in found.missing.items() if fault == NO_SUCH and place not in foreign]
    for place in lost:
        if given[place].strip().lower().startswith(("http:", "https:", "s3:", "gs:")):
            found.missing[place] = "a web address; images must be files. Download it first"
        elif near := _near(found.paths[place], folder, listings):
            found.missing[place] = f"{NO_SUCH}. Did you mean '{printable(near)}'?"
    relative = [place for place, path in enumerate(given) if not os.path.isabs(path)]  # noqa: PTH117
    if len(lost) < 2 or any(place not in found.missing for place in relative):
        return
    parts = [PurePosixPath(given[place].strip().replace("\\", "/")).parts for place in lost]
    shared = _common_prefix([each[:-1] for each in parts])
    start = f"relative paths start at the table's folder, {printable(os.fspath(folder))}"
    for cut in range(1, len(shared) + 1):
        if _all_there(folder, [each[cut:] for each in parts]):
            prefix = printable("/".join(shared[:cut]))
            found.shared_causes.append(
                (f"{start}, where the files are. Remove {prefix}/ from each path", lost)
            )
            return
    for other in (Path(), *folder.absolute().parents):
        if _all_there(other, parts):
            where = printable(os.fspath(other.absolute()))
            cause = f"{start}. All files exist relative to {where}. Move the table to that folder"
            found.shared_causes.append((cause, lost))
            return


def _all_there(folder: Path, paths: Sequence[tuple[str, ...]]) -> bool:
    return all(_file_error(os.path.join(folder, *each)) is None for each in paths)  # noqa: PTH118


def _near(path: str, folder: Path, listings: dict[str, dict[str, str]]) -> str | None:
    """An existing file with another case or an added extension, relative to ``folder``."""
    here = os.fspath(folder)
    relative = os.path.relpath(path, here) if path.startswith(os.path.join(here, "")) else ""  # noqa: PTH118
    if not relative:
        return None
    for part in Path(relative).parts:
        if here not in listings:
            listings[here] = _listing(here)
        name = listings[here].get(part.casefold())
        if name is None:
            return None
        here = os.path.join(here, name)  # noqa: PTH118
    return os.path.relpath(here, folder) if _file_error(here) is None else None


def _listing(folder: str) -> dict[str, str]:
    """Names in a folder by their casefolded name, and also by their casefolded stem if that is no name."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return {}
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(os.path.splitext(name)[0].casefold(), name)  # noqa: PTH122
    return found | {name.casefold(): name for name in names}
