"""The tree of folders below a root, with the images in each folder."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finetune.data.sources.files.image_files import file_kind, is_array_name, is_image_file
from finetune.data.sources.files.walk import file_identity, is_directory, list_folder


@dataclass(eq=False)
class Folder:
    """A folder with its images and subfolders, both sorted by name."""

    name: str
    own_images: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)

    def walk(self) -> Iterator[tuple[int, "Folder"]]:
        """This folder and all folders below it with their depths, parents first."""
        stack = [(0, self)]
        while stack:
            depth, folder = stack.pop()
            yield depth, folder
            stack.extend((depth + 1, each) for each in reversed(folder.folders))

    @property
    def images(self) -> list[str]:
        """All images at any depth."""
        return [path for _, folder in self.walk() for path in folder.own_images]

    @property
    def has_images(self) -> bool:
        """Whether there is an image at any depth."""
        return any(folder.own_images for _, folder in self.walk())

    @property
    def filled_folders(self) -> list["Folder"]:
        """The subfolders that have images at any depth."""
        return [folder for folder in self.folders if folder.has_images]


def read_tree(root: Path) -> tuple[Folder, Counter[str]]:
    """The folders below ``root`` with their images, and the number of other files of each kind.

    Arrays (``.npy``) count as images if there are no other images. Links to folders are followed, except
    circular ones.

    Raises:
        DataError: a folder cannot be listed.
    """
    others = Counter[str]()
    top = Folder("")
    home = file_identity(root)
    arrays = []
    stack = [(top, os.fspath(root), 0, {home})]
    while stack:
        folder, path, depth, seen = stack.pop()
        inner = []
        for entry in list_folder(path):
            if not is_directory(entry):
                if is_image_file(entry.path):
                    folder.own_images.append(entry.path)
                elif is_array_name(entry.name):
                    arrays.append((folder, entry.path, file_kind(entry.name)))
                else:
                    others[file_kind(entry.name)] += 1
                continue
            this = file_identity(entry.path)
            # Below the second level, all folders share one set, so that no folder is read twice in a class.
            within = seen if depth > 1 else {*seen}
            if this in within:
                continue
            within.add(this)
            child = Folder(entry.name)
            folder.folders.append(child)
            inner.append((child, entry.path, depth + 1, within))
        stack.extend(reversed(inner))
    # Arrays beside images were probably computed from them. Arrays alone may be the images.
    alone = not top.has_images
    for folder, path, kind in arrays:
        if alone:
            folder.own_images.append(path)
        else:
            others[kind] += 1
    return top, others
