"""What the user named (files, folders, patterns) -> paths of pictures, one at a time. Torch-free."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from finetune.data.sources.files import is_image_name, walk
from finetune.errors import UserError, printable


def check_inputs(inputs: Sequence[str]) -> None:
    """Look at each input as far as its first picture, before any work is done.

    Raises:
        UserError: inputs that do not exist, patterns that match no picture, folders without one; all at once.
        DataError: a folder that cannot be listed.
    """
    faults = [fault for text in inputs if (fault := _fault(text)) is not None]
    if faults:
        raise UserError("\n".join(faults))


def expand(inputs: Iterable[str]) -> Iterator[str]:
    """The pictures of all inputs, in the order given; memory does not grow with their number.

    A file is taken as it is, whatever its name. A folder gives the pictures anywhere below it, sorted,
    without hidden ones. A pattern (``*``, ``?``, ``[...]``; ``**`` for any folders) gives the files that
    match it, sorted; unless it ends in an extension itself, those with a picture's extension.
    """
    for text in inputs:
        if Path(text).is_dir():
            yield from filter(is_image_name, walk(text))
        elif _exists(text) or not glob.has_magic(text):
            yield text
        else:
            yield from _matches(text)


def _fault(text: str) -> str | None:
    if next(expand([text]), None) is None:
        kind = "a folder without pictures" if Path(text).is_dir() else "no picture matches this pattern"
        return f"{printable(text)}: {kind}."
    if not glob.has_magic(text) and not _exists(text):
        return f"{printable(text)}: no such file or folder."
    return None


def _matches(pattern: str) -> Iterator[str]:
    extension = PurePath(pattern).suffix
    any_kind = extension and not glob.has_magic(extension)
    # Sorted, since the order in which a file system lists its files means nothing; names only are held.
    # Path.glob takes no absolute patterns and does not leave hidden files out.
    for path in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if (any_kind or is_image_name(path)) and not Path(path).is_dir():
            yield path


def _exists(text: str) -> bool:
    """Whether there is such an entry; a link that leads nowhere is one, and reading it says what is wrong."""
    return os.path.lexists(text)
