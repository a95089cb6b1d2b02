"""Taking a run directory: one process at a time.

Of many trainings started at once in one directory all but one are refused, and loading anything takes longer
than that: this module and what it imports are small modules of the standard library that are there anyway.
"""

import errno
import os

from finetune.disk.atomic import TEMPORARY
from finetune.errors import RunDirError, SaveError, check_unicode, printable
from finetune.training.run.files import LOCK, OWN_FILES, OWN_FOLDERS, RESOLVED

# The machine's fault, and not that of the name.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def place_of(
    recipe: "str | os.PathLike[str]", run_dir: "str | os.PathLike[str] | None", *, smoke: bool = False
) -> str:
    """Where the run of a recipe goes: where the user says, or ``runs/NAME-OF-THE-RECIPE``."""
    if run_dir is not None:
        return os.fspath(run_dir)
    stem = os.path.splitext(os.path.basename(recipe))[0]
    return os.path.join("runs", f"{stem}-smoke" if smoke else stem)


class Claim:
    """A directory that this process alone may train in, until :meth:`release` or the process's end.

    ``made``: those of it and the folders above it that this process made, from it upward.
    """

    def __init__(self, path: str, lock: int, made: list[str]) -> None:
        self.path = path
        self._lock: int | None = lock
        self._made = made
        _held.append(self)

    def release(self) -> None:
        """Give the directory free; one that this process made and that no run began in is removed, and so
        are the folders made for it alone."""
        if self._lock is None:
            return
        if self._made and not holds_run(self.path):
            # Late: a refusal, of which there may be many at once, does not need it.
            import shutil

            shutil.rmtree(self.path, ignore_errors=True)
            _remove_empty(self._made[1:])
        os.close(self._lock)
        self._lock = None
        _held.remove(self)


_held: list[Claim] = []
_early: dict[tuple[str, bool, bool], Claim] = {}


def claim(path: str, *, resume: bool, overwrite: bool) -> Claim:
    """Take ``path`` for a run; one that :func:`claim_early` has taken in the same words is handed over.

    Raises:
        RunDirError: another process trains there; it holds a run and neither ``resume`` nor ``overwrite``
            is given; it holds something that is no run; it cannot be written.
        UserError: its name is no UTF-8.
        SaveError: the disk is full or failing.
    """
    early = _early.pop((os.path.normpath(path), resume, overwrite), None)
    return early if early is not None else _take(path, resume, overwrite)


def claim_early(path: str, *, resume: bool, overwrite: bool) -> Claim:
    """As :func:`claim`, which hands it over later, when it is known what the run is."""
    taken = _early[os.path.normpath(path), resume, overwrite] = _take(path, resume, overwrite)
    return taken


def release_all() -> bool:
    """Release every claim of this process; whether there was one."""
    claims = list(_held)
    for each in claims:
        each.release()
    return bool(claims)


def holds_run(path: str) -> bool:
    return os.path.isfile(os.path.join(path, RESOLVED))


def _take(path: str, resume: bool, overwrite: bool) -> Claim:
    check_unicode("run directory", path, "Choose another with --run-dir.")
    made = _missing(path)
    lock = None
    try:
        _make(path)
        if not holds_run(path) and _strangers(path):
            raise RunDirError(
                f"{printable(path)}: holds files but no run. Choose another place with --run-dir."
            )
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        place = os.path.join(path, LOCK)
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if not _try_lock(lock) or not _is_at(lock, place):
            raise RunDirError(
                f"{printable(path)}: another process is training here. Wait for it, or choose another "
                "--run-dir."
            )
        if holds_run(path) and not (resume or overwrite):
            raise RunDirError(
                f"{printable(path)}: holds a run already. Add --resume to continue it, --overwrite to "
                "replace it, "
                "or choose another --run-dir."
            )
    except OSError as error:
        if error.errno in _FULL:
            raise SaveError(
                f"{printable(path)}: cannot be written ({error.strerror}). Make room, or choose "
                "another place with --run-dir."
            ) from None
        raise RunDirError(
            f"{printable(path)}: cannot be a run directory ({error.strerror}). Choose another with --run-dir."
        ) from None
    except RunDirError:
        if lock is not None:
            os.close(lock)
        raise
    return Claim(path, lock, made)


def _missing(path: str) -> list[str]:
    """What of ``path`` and the folders above it there is not, from it upward."""
    found, path = [], os.path.normpath(path)
    while path and not os.path.exists(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileNotFoundError:
        # In between, another process has removed a folder above that it had made for nothing.
        os.makedirs(path, exist_ok=True)


def _remove_empty(folders: list[str]) -> None:
    """Remove them one by one, up to the first that holds other things by now."""
    for each in folders:
        try:
            os.rmdir(each)
        except OSError:
            return


def _strangers(path: str) -> set[str]:
    """What a run did not put there; another process may be starting one at this moment."""
    names = {name for name in os.listdir(path) if not name.startswith(TEMPORARY)}
    return names - {LOCK, *OWN_FILES, *OWN_FOLDERS}


def _is_at(lock: int, path: str) -> bool:
    """Whether ``path`` still leads to the open file: a run that never began takes its lock away."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(lock: int) -> bool:
    """Lock an open file for this process alone; False if another has it.

    A POSIX record lock belongs to the process: loader workers don't inherit it, and it dies with its owner
    however that ends. Closing any other handle of the file would release it, so it is opened once.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        import msvcrt

        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
