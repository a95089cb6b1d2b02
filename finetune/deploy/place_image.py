"""Copy, link or move an image to a new name, without ever overwriting a file. Torch-free.

The target is never incomplete: a copy is written to a temporary folder, and renamed when it is complete.
"""

import contextlib
import filecmp
import os
import shutil
from pathlib import Path
from typing import Literal

from finetune.disk.atomic import sync

By = Literal["copy", "link", "move"]
# The past tense of each way, for messages.
PLACED: dict[By, str] = {"copy": "copied", "link": "linked", "move": "moved"}


def place_image(source: Path, target: Path, by: By, stage: Path) -> bool:
    """Copy, link or move ``source`` to ``target``; return False if ``target`` exists.

    Args:
        stage: a temporary folder on the disk of ``target``.

    Raises:
        OSError: the file cannot be placed. ``source`` is intact and ``target`` does not exist.
    """
    if os.path.lexists(target):
        return False
    try:
        if by == "link":
            target.symlink_to(source.resolve())
        elif by == "copy" or source.is_symlink() or not _hard_link(source, target):
            _copy(source, target, stage, flush=by == "move")
    except FileExistsError:
        return False
    if by == "move":
        try:
            source.unlink()
        except OSError:
            target.unlink()
            raise
    return True


def is_placed(source: Path, target: Path, by: By) -> bool:
    """Return whether ``target`` is already the copy of, or the link to, ``source``."""
    # Moving an image onto a link to it would lose the image.
    if by != "copy" and target.is_symlink() != (by == "link"):
        return False
    return target.is_file() and filecmp.cmp(source, target, shallow=False)


def _copy(source: Path, target: Path, stage: Path, *, flush: bool) -> None:
    staged = stage / "image"
    try:
        shutil.copyfile(source, staged)
        with contextlib.suppress(OSError):
            shutil.copystat(source, staged)
        if flush:
            sync(staged)  # the caller removes the source next
        if not _hard_link(staged, target):
            # Without hard links, an empty file reserves the name, so that nobody's file is replaced.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                staged.replace(target)
            except OSError:
                target.unlink()
                raise
    finally:
        staged.unlink(missing_ok=True)


def _hard_link(source: Path, target: Path) -> bool:
    """Give a file a second name; return False if the file system has no hard links.

    Raises:
        FileExistsError: ``target`` exists.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True
