"""The folders below a root with the images in each, from one look or remembered."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from finetune.data.sources.files import identity, is_directory, scan
from finetune.data.sources.left_out import kind_of
from finetune.data.sources.listings import Visits, recall, remember
from finetune.data.sources.recognise import is_array_name, is_image


@dataclass(eq=False)
class Folder:
    """A folder: the images directly in it, and the folders in it, sorted by name."""

    name: str
    direct: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)

    def walk(self) -> Iterator[tuple[int, "Folder"]]:
        """This folder and all below it with their depths, each before those in it."""
        stack = [(0, self)]
        while stack:
            depth, folder = stack.pop()
            yield depth, folder
            stack.extend((depth + 1, each) for each in reversed(folder.folders))

    @property
    def images(self) -> list[str]:
        """All images in it, at any depth."""
        return [path for _, folder in self.walk() for path in folder.direct]

    @property
    def has_images(self) -> bool:
        """Whether there is an image in it, at any depth."""
        return any(folder.direct for _, folder in self.walk())

    @property
    def holding(self) -> list["Folder"]:
        """Those of its folders that have images in them, at any depth."""
        return [folder for folder in self.folders if folder.has_images]


def look_through(root: Path) -> tuple[Folder, Counter[str]]:
    """Every file below ``root`` once: the folders, and the kinds of other files.

    Arrays (``.npy``) count as images where there are no others.

    From an earlier run where nothing has changed since. Linked folders are followed, but a link that goes
    round is not, and none twice within a folder of a folder of the root.

    Raises:
        DataError: a folder that cannot be listed.
    """
    found = recall(root)
    if found is not None:
        facts, paths = found
        return _built(facts["folders"], paths), Counter(facts["others"])
    visits = Visits(root)
    top, others = _look(root, visits)
    counts = [(depth, folder.name, len(folder.direct)) for depth, folder in top.walk()]
    remember(root, visits, {"folders": counts, "others": others}, top.images)
    return top, others


def _built(counts: list[tuple[int, str, int]], paths: list[str]) -> Folder:
    rest = iter(paths)
    above: list[Folder] = []
    for depth, name, direct in counts:
        folder = Folder(name, list(islice(rest, direct)))
        del above[depth:]
        if above:
            above[-1].folders.append(folder)
        above.append(folder)
    return above[0]


def _look(root: Path, visits: Visits) -> tuple[Folder, Counter[str]]:
    others = Counter[str]()
    top = Folder("")
    home = identity(root)
    arrays = []
    stack = [(top, os.fspath(root), 0, {home})]
    while stack:
        folder, path, depth, seen = stack.pop()
        inner = []
        for entry in scan(path, visits):
            if not is_directory(entry):
                if is_image(entry.path, visits):
                    folder.direct.append(entry.path)
                elif is_array_name(entry.name):
                    arrays.append((folder, entry.path, kind_of(entry.name)))
                else:
                    others[kind_of(entry.name)] += 1
                continue
            this = identity(entry.path)
            # From the second level on, all that lies below one folder shares what was seen.
            within = seen if depth > 1 else {*seen}
            if this in within:
                continue
            within.add(this)
            child = Folder(entry.name)
            folder.folders.append(child)
            inner.append((child, entry.path, depth + 1, within))
        stack.extend(reversed(inner))
    # Beside images, arrays are what somebody computed of them; alone, they may be the images.
    alone = not top.has_images
    for folder, path, kind in arrays:
        if alone:
            folder.direct.append(path)
        else:
            others[kind] += 1
    return top, others
