"""What the user named (files, folders, patterns) -> paths of images, one at a time. Torch-free."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from finetune.data.sources.files.image_files import is_array_name, is_image_file
from finetune.data.sources.files.walk import walk_files
from finetune.disk.nearby import did_you_mean
from finetune.errors import UserError, printable

# Stands for the paths that come on standard input; a file of that name is ./-.
STDIN = "-"
# Bytes of standard input that are waited for at a time.
CHUNK = 65536
BOM = b"\xef\xbb\xbf"


def check_inputs(inputs: Sequence[str]) -> None:
    """Look at each input as far as its first image, before any work is done; ``STDIN`` is left alone.

    Raises:
        UserError: inputs that do not exist, patterns that match no image, folders without one; all at once.
        DataError: a folder that cannot be listed.
    """
    faults = [fault for text in inputs if text != STDIN and (fault := _fault(text)) is not None]
    if inputs.count(STDIN) > 1:
        faults.append(f"{STDIN}: standard input can be read once; give it once.")
    if faults:
        raise UserError("\n".join(faults))


def read_list(stream: BinaryIO | None, *, null: bool = False) -> Iterator[str]:
    """The paths on a stream as they come, one a line, or each ended by a NUL; empty ones are left out.

    Bytes that are no valid names survive, as they do on a command line. The first path is waited for here.

    Raises:
        UserError: there is none, or NULs end the names where lines are read.
    """
    paths = iter(()) if stream is None else filter(None, _names(stream, b"\0" if null else b"\n"))
    first = next(paths, None)
    if first is None:
        raise UserError("standard input: no paths on it. Write one a line, as in: ls *.jpg | finetune ...")
    if "\0" in first:
        raise UserError("standard input: the names end in NUL, not in lines. Add --null (-0).")
    return itertools.chain([first], paths)


def _names(stream: BinaryIO, end: bytes) -> Iterator[str]:
    """Pieces of a stream between ``end``s, each as soon as it is there."""
    read = getattr(stream, "read1", stream.read)
    rest, is_first = b"", True
    while chunk := read(CHUNK):
        *whole, rest = (rest + chunk).split(end)
        for name in whole:
            yield _decoded(name, is_first)
            is_first = False
    yield _decoded(rest, is_first)


def _decoded(name: bytes, is_first: bool) -> str:
    """A name as the system has it. What Windows puts around a line (a mark, a carriage return) is none of it,
    unless there is such a file.
    """
    text = os.fsdecode(name)
    if (is_first and name.startswith(BOM)) or text.endswith("\r"):
        bare = os.fsdecode(name.removeprefix(BOM) if is_first else name).removesuffix("\r")
        return text if bare and "\0" not in text and _exists(text) else bare
    return text


def expand(inputs: Iterable[str], listed: Iterable[str] = ()) -> Iterator[str]:
    """The images of all inputs, in the order given; memory does not grow with their number.

    A file is taken as it is, whatever its name. A folder gives the images anywhere below it, sorted,
    without hidden ones. A pattern (``*``, ``?``, ``[...]``; ``**`` for any folders) gives the files that
    match it, sorted; unless it ends in an extension itself, those that are images, as
    :func:`~finetune.data.sources.files.image_files.is_image_file` tells. ``STDIN`` gives ``listed``: files
    and folders, whose names are taken as they are. What of these is not there is given all the same:
    reading it says what is wrong.
    """
    for text in inputs:
        if text == STDIN:
            for name in listed:
                yield from _named(name)
        elif Path(text).is_dir():
            yield from _images_in(text)
        elif _exists(text) or not glob.has_magic(text):
            yield text
        else:
            yield from _matches(text)


def _named(name: str) -> Iterator[str]:
    images = _images_in(name) if "\0" not in name and Path(name).is_dir() else iter(())
    yield next(images, name)
    yield from images


def _images_in(folder: str) -> Iterator[str]:
    """Arrays where there are no other images, as when a folder is trained on."""
    images = filter(is_image_file, walk_files(folder))
    first = next(images, None)
    if first is None:
        yield from filter(is_array_name, walk_files(folder))
        return
    yield first
    yield from images


def _fault(text: str) -> str | None:
    if next(expand([text]), None) is None:
        kind = "a folder without images" if Path(text).is_dir() else "no image matches this pattern"
        return f"{printable(text)}: {kind}."
    if not glob.has_magic(text) and not _exists(text):
        return f"{printable(text)}: no such file or folder.{did_you_mean(text)}"
    return None


def _matches(pattern: str) -> Iterator[str]:
    extension = PurePath(pattern).suffix
    any_kind = extension and not glob.has_magic(extension)
    # Sorted, since the order in which a file system lists its files means nothing; names only are held.
    # Path.glob takes no absolute patterns and does not leave hidden files out.
    for path in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if (any_kind or is_image_file(path)) and not Path(path).is_dir():
            yield path


def _exists(text: str) -> bool:
    """Whether there is such an entry; a link that leads nowhere is one, and reading it says what is wrong."""
    return os.path.lexists(text)
