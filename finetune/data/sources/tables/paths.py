r"""The paths that a table lists, to files: Windows paths, another machine's paths, another case.

Relative paths start at the table's own folder. `photos\a.jpg` is read as `photos/a.jpg` where that is there.
Of absolute paths that another machine wrote (`C:\photos\a.jpg`, `/home/anna/photos/a.jpg`) the beginning
that they share is replaced by the table's folder, if that is where the images are.
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
class Found:
    """Where the paths of a table lead.

    Attributes:
        paths: for each path given, the file; where there is none, what it should have been.
        missing: place in ``paths`` -> what is wrong.
        notes: how paths were read that could not be taken as they are.
        remarks: what is to be done about what is missing, of many paths at once, and their places.
    """

    paths: list[str]
    missing: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    remarks: list[tuple[str, list[int]]] = field(default_factory=list)


def find_paths(given: Sequence[str], folder: Path) -> Found:
    """Find the files that ``given`` names, as a table in ``folder`` does."""
    base = os.fspath(folder)
    found = Found([])
    rewritten = 0
    for place, path in enumerate(given):
        # Not through Path, which is slow, a million times.
        first = os.path.normpath(os.path.join(base, path))  # noqa: PTH118
        fault = _fault(first)
        if fault is not None:
            for other in _readings(path):
                first = os.path.normpath(os.path.join(base, other))  # noqa: PTH118
                if _fault(first) is None:
                    fault = None
                    rewritten += "\\" in path
                    break
        found.paths.append(first)
        if fault is not None:
            found.missing[place] = fault
    if rewritten:
        found.notes.append(f"backslashes were read as slashes, in {rewritten:,} paths")
    foreign = _foreign_paths(given, found)
    if foreign:
        _move_here(foreign, given, folder, found)
    _explain(given, folder, found, foreign)
    return found


def _fault(path: str) -> str | None:
    """Why there is no file at ``path``; None if there is one."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
        return NO_SUCH if missing else str(getattr(error, "strerror", None) or error)
    return None if stat.S_ISREG(mode) else "not a file"


def _readings(path: str) -> list[str]:
    """Other ways to read a path that leads nowhere as it is."""
    readings = []
    trimmed = _without_scheme(path.strip())
    if trimmed.startswith("~"):
        trimmed = os.path.expanduser(trimmed)  # noqa: PTH111
    if trimmed != path:
        readings.append(trimmed)
    if "\\" in trimmed and not PureWindowsPath(trimmed).is_absolute():
        readings.append(trimmed.replace("\\", "/"))
    return readings


def _without_scheme(path: str) -> str:
    """The path in the address of a file; others as they are."""
    if not path.lower().startswith("file:"):
        return path
    try:
        return unquote(urlsplit(path).path)
    except ValueError:
        return path


def _foreign_paths(given: Sequence[str], found: Found) -> dict[int, tuple[str, ...]]:
    """The parts of each missing path that is absolute on another machine: none with its root, or the folder
    below that, is found on this one.
    """
    absolute = {place: parts for place, path in enumerate(given) if (parts := _absolute(path))}
    known = {_root(parts) for place, parts in absolute.items() if place not in found.missing}
    return {
        place: parts
        for place, parts in absolute.items()
        if place in found.missing and _root(parts) not in known
    }


def _absolute(path: str) -> tuple[str, ...] | None:
    """The parts of an absolute path of Windows or Unix, the root or drive first; None for others."""
    path = _without_scheme(path.strip())
    windows, posix = PureWindowsPath(path), PurePosixPath(path)
    # A drive is enough (C:a.jpg), and so is a root (\photos\a.jpg).
    if windows.drive or (windows.root and not posix.root):
        return (windows.drive + windows.root, *windows.parts[1:])
    return posix.parts if posix.root else None


def _root(parts: tuple[str, ...]) -> str:
    """What tells machines apart: a drive, a share, or the first folder below the root."""
    return "/".join(parts[: 2 if parts[0] in ("/", "\\") else 1]).lower()


def _move_here(foreign: dict[int, tuple[str, ...]], given: Sequence[str], folder: Path, found: Found) -> None:
    """Replace the beginning that foreign paths share by ``folder``, if most of them are found so."""
    here = printable(os.fspath(folder))
    groups: dict[str, list[int]] = {}
    for place, parts in foreign.items():
        groups.setdefault(_root(parts), []).append(place)
    for members in groups.values():
        shared = _shared([foreign[place][:-1] for place in members])
        whole = _written(foreign[members[0]], shared, given[members[0]])
        if os.path.isdir(whole):  # noqa: PTH112  (a Path raises on odd names)
            continue  # the folder is here, and the files are missing in it
        best: dict[int, str] = {}
        most, cut = 0, 1
        for length in range(1, len(shared) + 1):
            tails = {place: os.path.join(folder, *foreign[place][length:]) for place in members}  # noqa: PTH118
            there = sum(_fault(tail) is None for tail in tails.values())
            if there > most:
                best, most, cut = tails, there, length
            if there == len(members):
                break
        whole = printable(whole)
        if 2 * most < len(members) or not most:
            number = "1 path starts" if len(members) == 1 else f"{len(members):,} paths start"
            remark = (
                f"{number} with {whole}, which is not on this machine, and the files are not below {here} "
                "either. Put the images beside the table, and write the paths from there on: without "
                f"{whole}, and with / between folders"
            )
            found.remarks.append((remark, members))
            for place in members:
                found.paths[place] = given[place].strip()
            continue
        for place, tail in best.items():
            found.paths[place] = os.path.normpath(tail)
            if _fault(tail) is None:
                del found.missing[place]
            else:
                found.missing[place] = f"{NO_SUCH}, and none below the table's folder either"
        prefix = printable(_written(foreign[members[0]], shared[:cut], given[members[0]]))
        found.notes.append(
            f"{prefix} is not on this machine; the images listed there were found below {here} "
            f"({most:,} of {len(members):,})"
        )


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The parts that all paths begin with."""
    low, high = min(paths), max(paths)
    same = next((i for i, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))
    return low[:same]


def _written(parts: tuple[str, ...], shared: Sequence[str], path: str) -> str:
    """The beginning ``shared`` in the way that ``path`` is written."""
    separator = "\\" if "\\" in path else "/"
    head = parts[0].replace("\\", separator)
    return head + "".join(part + separator for part in shared[1:])


def _explain(given: Sequence[str], folder: Path, found: Found, foreign: dict[int, tuple[str, ...]]) -> None:
    """Say of missing files what may be meant: another case, an ending, another folder to start at."""
    listings: dict[str, dict[str, str]] = {}
    lost = [place for place, fault in found.missing.items() if fault == NO_SUCH and place not in foreign]
    for place in lost:
        if given[place].strip().lower().startswith(("http:", "https:", "s3:", "gs:")):
            found.missing[place] = "an address on the web; images must be files"
        elif near := _near(found.paths[place], folder, listings):
            found.missing[place] = f"{NO_SUCH}. Did you mean '{printable(near)}'?"
    relative = [place for place, path in enumerate(given) if not os.path.isabs(path)]  # noqa: PTH117
    if len(lost) < 2 or any(place not in found.missing for place in relative):
        return
    parts = [PurePosixPath(given[place].strip().replace("\\", "/")).parts for place in lost]
    shared = _shared([each[:-1] for each in parts])
    start = f"relative paths start at the table's folder, {printable(os.fspath(folder))}"
    for cut in range(1, len(shared) + 1):
        if _all_there(folder, [each[cut:] for each in parts]):
            left_out = printable("/".join(shared[:cut]))
            found.remarks.append((f"{start}, where the files are. Leave out {left_out}/ in each path", lost))
            return
    for other in (Path(), *folder.absolute().parents):
        if _all_there(other, parts):
            where = printable(os.fspath(other.absolute()))
            remark = f"{start}. Seen from {where} all of the files are there: move the table to that folder"
            found.remarks.append((remark, lost))
            return


def _all_there(folder: Path, paths: Sequence[tuple[str, ...]]) -> bool:
    return all(_fault(os.path.join(folder, *each)) is None for each in paths)  # noqa: PTH118


def _near(path: str, folder: Path, listings: dict[str, dict[str, str]]) -> str | None:
    """A file that is there, in another case or with an ending, relative to ``folder``."""
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
    return os.path.relpath(here, folder) if _fault(here) is None else None


def _listing(folder: str) -> dict[str, str]:
    """What there is in a folder: by its name, and where no other is so called without its ending, by that."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return {}
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(os.path.splitext(name)[0].casefold(), name)  # noqa: PTH122
    return found | {name.casefold(): name for name in names}
