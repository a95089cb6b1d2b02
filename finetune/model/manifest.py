"""Whether the files of a checkpoint are the ones that were saved. Torch-free.

A checkpoint's ``manifest.json`` holds the SHA-256 of every other file of it.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from finetune.disk.regular import DOCUMENT_BYTES, open_regular, read_regular

MANIFEST = "manifest.json"
CHECKED = (".safetensors", ".json")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault(folder: Path, needed: Collection[str]) -> str | None:
    """What is wrong with the checkpoint ``folder``, which must have the files ``needed``.

    None if each file is the one that was saved, and none is there of which the manifest does not know.
    """
    try:
        digests = json.loads(read_regular(folder / MANIFEST, DOCUMENT_BYTES))["sha256"]
        if not isinstance(digests, dict) or not set(needed) <= set(digests):
            return f"{folder / MANIFEST}: is not the manifest of a checkpoint"
        for file, expected in digests.items():
            if Path(file).name != file or file == "..":
                return f"{folder / MANIFEST}: names a file outside of its folder"
            if digest(folder / file) != expected:
                return f"{folder / file}: is not the file that was saved (its SHA-256 differs)"
        for path in folder.iterdir():
            if path.suffix in CHECKED and path.name not in digests and path.name != MANIFEST:
                return f"{path}: is no part of the checkpoint that was saved"
    except FileNotFoundError as error:
        return f"{folder}: the checkpoint is incomplete ({Path(error.filename).name} is missing)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{folder}: the checkpoint cannot be read ({error})"
    return None
