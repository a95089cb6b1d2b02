"""Claim a run directory for one process at a time.

Of many trainings that start at once in one directory, all but one are refused. Refusing takes less time than
importing anything, so this module imports only small modules of the standard library that are loaded anyway.
"""

import errno
import os

from finetune.disk.atomic import TEMPORARY
from finetune.errors import RunDirError, SaveError, check_unicode, printable
from finetune.training.run.files import LOCK, OWN_FILES, OWN_FOLDERS, RESOLVED

# Errors of the machine, not of the chosen path.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def place_of(
    recipe: "str | os.PathLike[str]", run_dir: "str | os.PathLike[str] | None", *, smoke: bool = False
) -> str:
    """The run directory of a recipe: the one the user gives, or ``runs/NAME-OF-THE-RECIPE``."""
    if run_dir is not None:
        return os.fspath(run_dir)
    stem = os.path.splitext(os.path.basename(recipe))[0]
    return os.path.join("runs", f"{stem}-smoke" if smoke else stem)


class Claim:
    """A directory that only this process may train in, until :meth:`release` or the end of the process.

    Args:
        lock: descriptor of the lock file.
        made: the folders that this process created, the directory first, then its parents.
    """

    def __init__(self, path: str, lock: int, made: list[str]) -> None:
        self.path = path
        self._lock: int | None = lock
        self._made = made
        _held.append(self)

    def release(self) -> None:
        """Release the directory. If this process made it and no run began, remove it and its new parents."""
        if self._lock is None:
            return
        if self._made and not holds_run(self.path):
            # Imported late: a refusal does not need it.
            import shutil

            shutil.rmtree(self.path, ignore_errors=True)
            _remove_empty(self._made[1:])
        os.close(self._lock)
        self._lock = None
        _held.remove(self)


_held: list[Claim] = []
_early: dict[tuple[str, bool, bool], Claim] = {}


def claim(path: str, *, resume: bool, overwrite: bool) -> Claim:
    """Claim ``path`` for a run, or hand over the claim that :func:`claim_early` made with the same arguments.

    Raises:
        RunDirError: another process trains there; the directory holds a run, and neither ``resume`` nor
            ``overwrite`` is given; it holds other files; or it cannot be written.
        UserError: its name is not valid UTF-8.
        SaveError: the disk is full or failing.
    """
    early = _early.pop((os.path.normpath(path), resume, overwrite), None)
    return early if early is not None else _take(path, resume, overwrite)


def claim_early(path: str, *, resume: bool, overwrite: bool) -> Claim:
    """Claim ``path`` before anything else is loaded; :func:`claim` hands the claim over later."""
    taken = _early[os.path.normpath(path), resume, overwrite] = _take(path, resume, overwrite)
    return taken


def release_all() -> bool:
    """Release every claim of this process. Return whether there was one."""
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
                f"{printable(path)}: holds files but no run. Choose another directory with --run-dir."
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
                "replace it, or choose another --run-dir."
            )
    except OSError as error:
        if error.errno in _FULL:
            raise SaveError(
                f"{printable(path)}: cannot be written ({error.strerror}). Free some space, or choose "
                "another directory with --run-dir."
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
    """The folders of ``path`` that do not exist, ``path`` first, then its parents."""
    found, path = [], os.path.normpath(path)
    while path and not os.path.exists(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileNotFoundError:
        # Meanwhile another process removed a parent folder that it had made.
        os.makedirs(path, exist_ok=True)


def _remove_empty(folders: list[str]) -> None:
    """Remove folders one by one, up to the first that is not empty."""
    for each in folders:
        try:
            os.rmdir(each)
        except OSError:
            return


def _strangers(path: str) -> set[str]:
    """The names in ``path`` that no run creates; another process may be starting a run right now."""
    names = {name for name in os.listdir(path) if not name.startswith(TEMPORARY)}
    return names - {LOCK, *OWN_FILES, *OWN_FOLDERS}


def _is_at(lock: int, path: str) -> bool:
    """Whether ``path`` is still the open file: a run that never began removes its lock."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(lock: int) -> bool:
    """Lock an open file for this process alone; False if another has it.

    A POSIX record lock belongs to the process: loader workers do not inherit it, and it ends with its owner.
    Closing another descriptor of the file would release it, so the file is opened only once.
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
