"""A run's directory: one process at a time, known files only. Torch-free, so that a refusal comes at once."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from finetune.errors import CheckpointError, RunDirError, SaveError

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
# What is being written has a name that begins so, until it is whole.
TEMPORARY = ".tmp-"
# All that a run ever writes: `--overwrite` removes these and nothing else.
OWN_FILES = (RECIPE, RESOLVED, ENVIRONMENT, WEIGHTS, METRICS, TIMING)
OWN_FOLDERS = (CHECKPOINTS, EXPORT, TENSORBOARD)


def place_of(recipe: str | Path, run_dir: str | Path | None, *, smoke: bool) -> Path:
    """Where the run of a recipe goes: where the user says, or ``runs/NAME-OF-THE-RECIPE``."""
    if run_dir is not None:
        return Path(run_dir)
    stem = Path(recipe).stem
    return Path("runs") / (f"{stem}-smoke" if smoke else stem)


@dataclass(frozen=True)
class Description:
    """What a run is, for its readers and for ``--resume``.

    ``recipe`` is as it was given, ``resolved`` has every default filled in. ``environment`` is what else a
    reader has to know, ``weights`` what was loaded from the source's weights and what was not, and why; both
    are JSON-ready.
    """

    recipe: bytes
    resolved: str
    environment: Mapping[str, Any]
    weights: Mapping[str, Any] | None = None


class RunDir:
    """An open run directory, locked for this process until :meth:`close` or the process's end."""

    def __init__(self, path: Path, lock: IO[bytes], created: bool) -> None:
        self.path = path
        self._lock: IO[bytes] | None = lock
        self._created = created
        _open.append(self)

    @classmethod
    def claim(cls, path: Path, *, resume: bool = False, overwrite: bool = False) -> "RunDir":
        """As :meth:`open`, before it is known what the run is; :meth:`open` then gives what was claimed."""
        run = _claimed[path, resume, overwrite] = cls.open(path, resume=resume, overwrite=overwrite)
        return run

    @classmethod
    def open(cls, path: Path, *, resume: bool = False, overwrite: bool = False) -> "RunDir":
        """Take ``path`` for a run. What ``overwrite`` replaces stays until :meth:`begin`.

        Raises:
            RunDirError: another process trains there; it holds a run and neither ``resume`` nor ``overwrite``
                is given; it holds something that is no run; it cannot be written.
        """
        if (claimed := _claimed.pop((path, resume, overwrite), None)) is not None:
            return claimed
        created = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not _is_run(path) and _strangers(path):
                raise RunDirError(f"{path}: holds files but no run. Choose another place with --run-dir.")
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            lock = (path / LOCK).open("ab")
        except OSError as error:
            raise RunDirError(
                f"{path}: cannot be a run directory ({error.strerror}). Choose another with --run-dir."
            ) from None
        try:
            if not _try_lock(lock) or not _is_at(lock, path / LOCK):
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
        run = cls(path, lock, created)
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
                _remove(self.path / name)
            (self.path / CHECKPOINTS).mkdir(exist_ok=True)
        self.describe(what)

    def describe(self, what: "Description") -> None:
        """Write down what the run is, as :meth:`begin` does, and leave all the rest."""
        with _saving(self.path):
            for name, document in ((ENVIRONMENT, what.environment), (WEIGHTS, what.weights)):
                if document is not None:
                    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
                    write_whole(self.path / name, text.encode("utf-8", "surrogateescape"))
            write_whole(self.path / RECIPE, what.recipe)
            write_whole(self.path / RESOLVED, what.resolved.encode())

    @property
    def begun(self) -> bool:
        return _is_run(self.path)

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
            CheckpointError: there are fewer, so the checkpoint does not belong to this file.
            SaveError: the disk is full or cannot be written.
        """
        path = self.path / file
        kept = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if len(kept) < lines:
            raise CheckpointError(
                f"{path}: has {len(kept)} lines, the checkpoint knows {lines}. Start over with --overwrite."
            )
        with _saving(path):
            write_whole(path, b"".join(kept[:lines]))

    def close(self) -> None:
        """Give the directory free; one that this process made and never began is removed."""
        if self._lock is None:
            return
        if self._created and not self.begun:
            _remove(self.path)
        self._lock.close()
        self._lock = None
        _open.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_claimed: dict[tuple[Path, bool, bool], RunDir] = {}
_open: list[RunDir] = []


def give_up_all() -> bool:
    """Close every run directory that this process has open; whether there was one."""
    runs = list(_open)
    for run in runs:
        run.close()
    return bool(runs)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that has its name only once it is whole and on disk.

    Raises:
        OSError: the disk is full or failing; what was there before still is.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder to flush it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"{path}: cannot be written ({error}). What was saved before is intact; make room and --resume."
        ) from error


def _remove(folder: Path) -> None:
    # Late: a refusal, of which there may be many at once, does not need it.
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what writes that were killed left behind."""
    for stray in folder.glob(f"{TEMPORARY}*"):
        if stray.is_dir() and not stray.is_symlink():
            _remove(stray)
        else:
            stray.unlink(missing_ok=True)


def _is_run(path: Path) -> bool:
    return (path / RESOLVED).is_file()


def _strangers(path: Path) -> set[str]:
    """What a run did not put there; another process may be starting one at this moment."""
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(TEMPORARY)}
    return names - {LOCK, *OWN_FILES, *OWN_FOLDERS}


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether ``path`` still leads to the open ``file``: a run that never began takes its lock away."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


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
