"""Expand files, folders and patterns on the command line to paths of images, one by one. Torch-free."""

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

# Stands for the paths on standard input. A file of that name is ./-.
STDIN = "-"
# Bytes of standard input per read.
CHUNK = 65536
BOM = b"\xef\xbb\xbf"


def check_inputs(inputs: Sequence[str]) -> None:
    """Check before any work that each input leads to at least one image; ``STDIN`` is not read.

    Raises:
        UserError: inputs do not exist, patterns match no image, or folders have none; all at once.
        DataError: a folder cannot be listed.
    """
    faults = [fault for text in inputs if text != STDIN and (fault := _fault(text)) is not None]
    if inputs.count(STDIN) > 1:
        faults.append(f"{STDIN}: standard input can be read once; give it once.")
    if faults:
        raise UserError("\n".join(faults))


def read_list(stream: BinaryIO | None, *, null: bool = False) -> Iterator[str]:
    """Yield the paths on a stream as they arrive, one per line, or each ended by a NUL with ``null``.

    Empty paths are skipped. Bytes that are not valid text survive, as on a command line. The function waits
    for the first path before it returns.

    Raises:
        UserError: there are no paths, or NULs end the names although ``null`` is false.
    """
    paths = iter(()) if stream is None else filter(None, _names(stream, b"\0" if null else b"\n"))
    first = next(paths, None)
    if first is None:
        raise UserError("standard input: has no paths. Write one per line, as in: ls *.jpg | finetune ...")
    if "\0" in first:
        raise UserError("standard input: the names end in NUL, not in lines. Add --null (-0).")
    return itertools.chain([first], paths)


def _names(stream: BinaryIO, end: bytes) -> Iterator[str]:
    """Yield the names on a stream, each ended by ``end``, as soon as they arrive."""
    read = getattr(stream, "read1", stream.read)
    rest, is_first = b"", True
    while chunk := read(CHUNK):
        *whole, rest = (rest + chunk).split(end)
        for name in whole:
            yield _decoded(name, is_first)
            is_first = False
    yield _decoded(rest, is_first)


def _decoded(name: bytes, is_first: bool) -> str:
    """Decode a file name. Drop a byte order mark and a carriage return, unless such a file exists."""
    text = os.fsdecode(name)
    if (is_first and name.startswith(BOM)) or text.endswith("\r"):
        bare = os.fsdecode(name.removeprefix(BOM) if is_first else name).removesuffix("\r")
        return text if bare and "\0" not in text and os.path.lexists(text) else bare
    return text


def expand(inputs: Iterable[str], listed: Iterable[str] = ()) -> Iterator[str]:
    """Yield the images of all inputs, in order. Memory does not grow with their number.

    - A file yields itself, whatever its name.
    - A folder yields the images at any depth below it, sorted, without hidden ones.
    - A pattern (``*``, ``?``, ``[...]``; ``**`` for any folders) yields the matching files, sorted. If the
      pattern has no extension, it yields only images
      (:func:`~finetune.data.sources.files.image_files.is_image_file`).
    - ``STDIN`` yields ``listed``: files and folders, never patterns. A path that does not exist is yielded
      too, and reading it reports the error.
    """
    for text in inputs:
        if text == STDIN:
            for name in listed:
                yield from _named(name)
        elif Path(text).is_dir():
            yield from _images_in(text)
        elif os.path.lexists(text) or not glob.has_magic(text):
            yield text
        else:
            yield from _matches(text)


def _named(name: str) -> Iterator[str]:
    images = _images_in(name) if "\0" not in name and Path(name).is_dir() else iter(())
    yield next(images, name)
    yield from images


def _images_in(folder: str) -> Iterator[str]:
    """The images in a folder, or its arrays if it has no images, as for training."""
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
    # A broken link exists; reading it reports the error.
    if not glob.has_magic(text) and not os.path.lexists(text):
        return f"{printable(text)}: no such file or folder.{did_you_mean(text)}"
    return None


def _matches(pattern: str) -> Iterator[str]:
    extension = PurePath(pattern).suffix
    any_kind = extension and not glob.has_magic(extension)
    # Sorted, because file systems list files in no particular order. Path.glob refuses absolute patterns and
    # includes hidden files.
    for path in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if (any_kind or is_image_file(path)) and not Path(path).is_dir():
            yield path
