"""A run directory: it holds known files only, each of them complete. Does not import torch."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetune.disk.atomic import TEMPORARY, write_atomic
from finetune.disk.regular import TABLE_BYTES, read_regular
from finetune.errors import CheckpointError, SaveError, printable
from finetune.training.run.claim import Claim, claim, holds_run
from finetune.training.run.files import (
    CHECKPOINTS,
    ENVIRONMENT,
    OWN_FILES,
    OWN_FOLDERS,
    RECIPE,
    RESOLVED,
    SPLITS,
    WEIGHTS,
)


@dataclass(frozen=True)
class Description:
    """The documents that describe a run.

    Attributes:
        recipe: as the user wrote it.
        resolved: the recipe with every default filled in.
        environment: versions, machine and choices, JSON-ready.
        splits: the table of the images in each split, as CSV.
        weights: which source weights were loaded, which were not, and why, JSON-ready.
    """

    recipe: bytes
    resolved: str
    environment: Mapping[str, Any]
    splits: bytes
    weights: Mapping[str, Any] | None = None


class RunDir:
    """An open run directory, locked for this process until :meth:`close` or the process's end."""

    def __init__(self, path: Path, claim: Claim) -> None:
        self.path = path
        self._claim = claim

    @classmethod
    def open(cls, path: Path, *, resume: bool = False, overwrite: bool = False) -> "RunDir":
        """Claim ``path`` for a run. The run that ``overwrite`` replaces stays until :meth:`begin`.

        Raises:
            RunDirError: another process trains there; the directory holds a run, and neither ``resume`` nor
                ``overwrite`` is given; it holds other files; or it cannot be written.
        """
        run = cls(path, claim(str(path), resume=resume, overwrite=overwrite))
        _sweep(path)
        _sweep(path / CHECKPOINTS)
        return run

    def begin(self, description: Description) -> None:
        """Begin a new run: remove everything that an earlier run wrote here, and nothing else.

        Raises:
            SaveError: the disk is full or cannot be written.
        """
        with _saving(self.path):
            # First the file that marks the directory as a run, so that half a run is never resumed.
            for name in (RESOLVED, *OWN_FILES):
                (self.path / name).unlink(missing_ok=True)
            for name in OWN_FOLDERS:
                shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / CHECKPOINTS).mkdir(exist_ok=True)
        self.describe(description)

    def describe(self, description: Description) -> None:
        """Write the documents of the run and leave all other files."""
        with _saving(self.path):
            for name, document in ((ENVIRONMENT, description.environment), (WEIGHTS, description.weights)):
                if document is not None:
                    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
                    write_atomic(self.path / name, text.encode("utf-8", "surrogateescape"))
            write_atomic(self.path / SPLITS, description.splits)
            write_atomic(self.path / RECIPE, description.recipe)
            write_atomic(self.path / RESOLVED, description.resolved.encode())

    @property
    def begun(self) -> bool:
        return holds_run(str(self.path))

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def append(self, file: str, entry: Mapping[str, Any]) -> None:
        """Append a line to a ``.jsonl`` file and flush it to disk.

        Raises:
            SaveError: the disk is full or cannot be written.
        """
        with _saving(self.path / file), (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def cut_back(self, file: str, lines: int) -> None:
        """Truncate a ``.jsonl`` file to its first ``lines`` lines; the run repeats what came after.

        Raises:
            CheckpointError: the file cannot be read, or has fewer lines than the checkpoint counts.
            SaveError: the disk is full or cannot be written.
        """
        path = self.path / file
        try:
            found = read_regular(path, TABLE_BYTES).splitlines(keepends=True) if path.exists() else []
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}). Start over with --overwrite."
            ) from None
        if len(found) < lines:
            raise CheckpointError(
                f"{printable(path)}: has {len(found)} lines, the checkpoint counts {lines}. Start over with "
                "--overwrite."
            )
        with _saving(path):
            write_atomic(path, b"".join(found[:lines]))

    def close(self) -> None:
        """Release the directory. If this process made it and no run began, remove it."""
        self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"{printable(path)}: cannot be written ({error}). What was saved before is intact; make room "
            "and --resume."
        ) from error


def _sweep(folder: Path) -> None:
    """Remove temporary files that killed writes left behind."""
    for stray in folder.glob(f"{TEMPORARY}*"):
        if stray.is_dir() and not stray.is_symlink():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)
