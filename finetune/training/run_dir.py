"""A run's directory: one process at a time, known files only. Torch-free, so that a refusal comes at once."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from finetune.errors import CheckpointError, RunDirError

RECIPE = "recipe.yaml"
RESOLVED = "resolved.yaml"
ENVIRONMENT = "environment.json"
WEIGHTS = "weights.json"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
CHECKPOINTS = "checkpoints"
EXPORT = "export"
TENSORBOARD = "tensorboard"
LOCK = ".lock"
# All that a run ever writes: `--overwrite` removes these and nothing else.
OWN_FILES = (RECIPE, RESOLVED, ENVIRONMENT, WEIGHTS, METRICS, TIMING)
OWN_FOLDERS = (CHECKPOINTS, EXPORT, TENSORBOARD)


class RunDir:
    """An open run directory, locked for this process until :meth:`close` or the process's end."""

    def __init__(self, path: Path, lock: IO[bytes], created: bool) -> None:
        self.path = path
        self._lock: IO[bytes] | None = lock
        self._created = created

    @classmethod
    def open(cls, path: Path, *, resume: bool = False, overwrite: bool = False) -> Self:
        """Take ``path`` for a run. What ``overwrite`` replaces stays until :meth:`begin`.

        Raises:
            RunDirError: another process trains there; it holds a run and neither ``resume`` nor ``overwrite``
                is given; it holds something that is no run; it cannot be written.
        """
        created = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not _is_run(path) and _strangers(path):
                raise RunDirError(f"{path}: holds files but no run. Choose another place with --run-dir.")
            lock = (path / LOCK).open("ab")
        except OSError as error:
            raise RunDirError(
                f"{path}: cannot be a run directory ({error.strerror}). Choose another with --run-dir."
            ) from None
        run = cls(path, lock, created)
        try:
            if not _try_lock(lock):
                raise RunDirError(
                    f"{path}: another process is training here. Wait for it, or choose another --run-dir."
                )
            if _is_run(path) and not (resume or overwrite):
                raise RunDirError(
                    f"{path}: holds a run already. Add --resume to continue it, --overwrite to replace it, "
                    "or choose another --run-dir."
                )
        except BaseException:
            lock.close()
            raise
        return run

    def begin(self, recipe: bytes, resolved: str) -> None:
        """Make this directory a new run: the recipe as given, and with every default filled in.

        All that an earlier run wrote here is removed; what it did not write is left alone.
        """
        for name in OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in OWN_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / CHECKPOINTS).mkdir(exist_ok=True)
        (self.path / RECIPE).write_bytes(recipe)
        (self.path / RESOLVED).write_text(resolved, encoding="utf-8")

    @property
    def begun(self) -> bool:
        return _is_run(self.path)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        self._write(ENVIRONMENT, environment)

    def write_weights(self, report: Mapping[str, Any]) -> None:
        """What was loaded from the source's weights and what was not, and why."""
        self._write(WEIGHTS, report)

    def _write(self, file: str, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (self.path / file).write_text(text, encoding="utf-8")

    def append(self, file: str, entry: Mapping[str, Any]) -> None:
        """Add a line to a ``.jsonl`` file; it is on disk when this returns."""
        with (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def cut_back(self, file: str, lines: int) -> None:
        """Keep the first ``lines`` lines of a ``.jsonl`` file: what came after is about to be done again.

        Raises:
            CheckpointError: there are fewer, so the checkpoint does not belong to this file.
        """
        path = self.path / file
        kept = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if len(kept) < lines:
            raise CheckpointError(
                f"{path}: has {len(kept)} lines, the checkpoint knows {lines}. Start over with --overwrite."
            )
        temporary = path.with_name(f".{file}.tmp")
        temporary.write_bytes(b"".join(kept[:lines]))
        temporary.replace(path)

    def close(self) -> None:
        """Give the directory free; one that this process made and never began is removed."""
        if self._lock is None:
            return
        if self._created and not self.begun:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_run(path: Path) -> bool:
    return (path / RESOLVED).is_file()


def _strangers(path: Path) -> set[str]:
    """What a run did not put there; another process may be starting one at this moment."""
    return {entry.name for entry in path.iterdir()} - {LOCK, *OWN_FILES, *OWN_FOLDERS}


def _try_lock(file: IO[bytes]) -> bool:
    """Lock ``file`` for this process alone; False if another has it.

    A POSIX record lock belongs to the process: loader workers don't inherit it, and it dies with its owner
    however that ends. Closing any other handle of the file would release it, so it is opened once.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
