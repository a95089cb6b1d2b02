"""One file over https: resumed where it broke off, checked before anyone sees it under its name."""

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from finetune.disk.regular import open_regular
from finetune.errors import DataError, printable
from finetune.offline import because, is_offline

log = logging.getLogger("finetune")

CHUNK = 1 << 20
TIMEOUT_SECONDS = 30.0
# A connection that breaks is taken up again so often without having brought anything new.
PATIENCE = 3

Progress = Callable[[int, int | None], None]


class _RefusedError(Exception):
    """What is wrong is no matter of trying again."""


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def __init__(self, schemes: tuple[str, ...]) -> None:
        self.schemes = schemes

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in self.schemes:
            fp.close()
            raise _RefusedError(f"the server redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    target: Path,
    sha1: str,
    *,
    schemes: tuple[str, ...] = ("https",),
    timeout: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> None:
    """Download ``url`` to ``target``, unless it is there already, and check its SHA-1.

    What has arrived stays in ``<target>.part`` when the connection breaks or the process ends, and the next
    call goes on from there. The file gets its name when its checksum is right; a download with a wrong one is
    removed. Two processes that want the same file take turns. ``progress`` is called with the bytes that have
    arrived and the bytes in total (None: not known).

    Raises:
        DataError: downloads are forbidden (:mod:`finetune.offline`), no connection, a wrong answer, a
            redirect away from https, a wrong checksum (also of a ``target`` that was there), or no room on
            the disk.
    """
    if urlsplit(url).scheme not in schemes:
        raise DataError(f"{url}: only https is allowed")
    if is_offline() and not target.exists():
        raise DataError(f"{url}: {because()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f"{target.name}.lock")):
            if target.exists():
                check_sha1(target, sha1)
                return
            part = target.with_name(f"{target.name}.part")
            resumed = part.exists() and part.stat().st_size > 0
            _fill(url, part, schemes, timeout, progress)
            if resumed and file_sha1(part) != sha1:
                # What was there before may have been of another file.
                part.unlink()
                _fill(url, part, schemes, timeout, progress)
            found = file_sha1(part)
            if found != sha1:
                part.unlink()
                raise DataError(
                    f"{url}: the checksum is wrong: SHA-1 {found} instead of {sha1}. "
                    "The download was removed."
                )
            part.replace(target)
    except _RefusedError as error:
        raise DataError(f"{url}: {error}") from None
    except OSError as error:
        raise DataError(f"{url}: {_reason(error)}") from None


def check_sha1(file: Path, sha1: str) -> None:
    """Raise DataError unless ``file`` has this SHA-1."""
    found = file_sha1(file)
    if found != sha1:
        raise DataError(
            f"{printable(file)}: the checksum is wrong: SHA-1 {found} instead of {sha1}. "
            "Remove the file, or put the right one there."
        )


def file_sha1(file: Path) -> str:
    """SHA-1 of a file, in hexadecimal."""
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def _fill(url: str, part: Path, schemes: tuple[str, ...], timeout: float, progress: Progress | None) -> None:
    """Bring ``part`` to its full length, taking up broken connections."""
    opener = urllib.request.build_opener(_SameSafety(schemes))
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(opener, url, part, before, timeout, progress):
                return
            reason: Exception = ConnectionError("the connection ended early")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:
                # Nothing is left to send; the checksum will tell whether that is right.
                return
            if error.code < 500:
                raise _RefusedError(f"the server answers {error.code} {error.reason}") from None
            reason = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        arrived = part.stat().st_size if part.exists() else 0
        failures = 0 if arrived > before else failures + 1
        if failures == PATIENCE:
            kept = f"; {arrived} bytes arrived and are kept" if arrived else ""
            raise _RefusedError(f"{_reason(reason)}{kept}") from None
        log.info("%s: %s; going on from byte %d", url, _reason(reason), arrived)
        time.sleep(min(0.2 * 2**failures, 5.0))


def _receive(
    opener: urllib.request.OpenerDirector,
    url: str,
    part: Path,
    start: int,
    timeout: float,
    progress: Progress | None,
) -> bool:
    """One connection; whether it brought the file to its end."""
    headers = {"User-Agent": "finetune", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with opener.open(request, timeout=timeout) as answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        if not goes_on:
            # The server sends everything again.
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        with part.open("ab" if goes_on else "wb") as file:
            arrived = start
            while chunk := answer.read(CHUNK):
                _write(file, chunk)
                arrived += len(chunk)
                if progress is not None:
                    progress(arrived, total)
    return total is None or arrived == total


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        # Unlike a broken connection, a full disk is not cured by going on.
        raise _RefusedError(f"cannot write {file.name}: {error.strerror or error}") from None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time, where the operating system has such locks; they end with the process."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            log.info("%s: another process is fetching it; waiting for that", path.with_suffix(""))
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
