"""A run's directory: known files only, each whole or not there. Torch-free, as all that reads one need be."""

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
    """What a run is, for its readers and for ``--resume``.

    ``recipe`` is as it was given, ``resolved`` has every default filled in. ``environment`` is what else a
    reader has to know, ``weights`` what was loaded from the source's weights and what was not, and why; both
    are JSON-ready. ``splits`` is the table of which image is in which split.
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
        """Take ``path`` for a run. What ``overwrite`` replaces stays until :meth:`begin`.

        Raises:
            RunDirError: another process trains there; it holds a run and neither ``resume`` nor ``overwrite``
                is given; it holds something that is no run; it cannot be written.
        """
        run = cls(path, claim(str(path), resume=resume, overwrite=overwrite))
        _sweep(path)
        _sweep(path / CHECKPOINTS)
        return run

    def begin(self, what: "Description") -> None:
        """Make this directory a new run; all that an earlier one wrote here is removed, and nothing else.

        Raises:
            SaveError: the disk is full or cannot be written.
        """
        with _saving(self.path):
            # First of all the file that makes it a run: half a run is none, and is begun anew.
            for name in (RESOLVED, *OWN_FILES):
                (self.path / name).unlink(missing_ok=True)
            for name in OWN_FOLDERS:
                shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / CHECKPOINTS).mkdir(exist_ok=True)
        self.describe(what)

    def describe(self, what: "Description") -> None:
        """Write down what the run is, as :meth:`begin` does, and leave all the rest."""
        with _saving(self.path):
            for name, document in ((ENVIRONMENT, what.environment), (WEIGHTS, what.weights)):
                if document is not None:
                    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
                    write_atomic(self.path / name, text.encode("utf-8", "surrogateescape"))
            write_atomic(self.path / SPLITS, what.splits)
            write_atomic(self.path / RECIPE, what.recipe)
            write_atomic(self.path / RESOLVED, what.resolved.encode())

    @property
    def begun(self) -> bool:
        return holds_run(str(self.path))

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def append(self, file: str, entry: Mapping[str, Any]) -> None:
        """Add a line to a ``.jsonl`` file; it is on disk when this returns.

        Raises:
            SaveError: the disk is full or cannot be written.
        """
        with _saving(self.path / file), (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def cut_back(self, file: str, lines: int) -> None:
        """Keep the first ``lines`` lines of a ``.jsonl`` file: what came after is about to be done again.

        Raises:
            CheckpointError: it cannot be read, or there are fewer: the checkpoint does not belong to it.
            SaveError: the disk is full or cannot be written.
        """
        path = self.path / file
        try:
            kept = read_regular(path, TABLE_BYTES).splitlines(keepends=True) if path.exists() else []
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}). Start over with --overwrite."
            ) from None
        if len(kept) < lines:
            raise CheckpointError(
                f"{printable(path)}: has {len(kept)} lines, the checkpoint knows {lines}. Start over with "
                "--overwrite."
            )
        with _saving(path):
            write_atomic(path, b"".join(kept[:lines]))

    def close(self) -> None:
        """Give the directory free; one that this process made and never began is removed."""
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
    """Remove what writes that were killed left behind."""
    for stray in folder.glob(f"{TEMPORARY}*"):
        if stray.is_dir() and not stray.is_symlink():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)
