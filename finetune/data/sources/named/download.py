"""Download one file over https: resumed after a broken connection, and checked before it gets its name."""

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
from finetune.offline import NOT_FETCHED, is_offline

log = logging.getLogger("finetune")

CHUNK = 1 << 20
TIMEOUT_SECONDS = 30.0
# Consecutive connections that may fail without new bytes before the download is given up.
MAX_FAILURES = 3

Progress = Callable[[int, int | None], None]


class _RefusedError(Exception):
    """A failure that a retry would not fix."""


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
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
    progress: Progress | None = None,
) -> None:
    """Download ``url`` to ``target`` unless it exists, and check its SHA-1.

    If the connection breaks or the process ends, the received bytes stay in ``<target>.part``, and the next
    call continues from there. The file gets its name when the checksum is right; otherwise it is removed.
    Two processes that need the same file take turns.

    Args:
        progress: called with the received bytes and the total bytes (None if unknown).

    Raises:
        DataError: downloads are off (:mod:`finetune.offline`); there is no connection; the server refuses or
            redirects away from https; the checksum is wrong, also that of an existing ``target``; or the
            disk is full.
    """
    if urlsplit(url).scheme not in schemes:
        raise DataError(f"{url}: only https is allowed")
    if is_offline() and not target.exists():
        raise DataError(f"{url}: {NOT_FETCHED}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f"{target.name}.lock")):
            if target.exists():
                check_sha1(target, sha1)
                return
            part = target.with_name(f"{target.name}.part")
            resumed = part.exists() and part.stat().st_size > 0
            _download_rest(url, part, schemes, progress)
            if resumed and file_sha1(part) != sha1:
                # The bytes from before may belong to another file.
                part.unlink()
                _download_rest(url, part, schemes, progress)
            found = file_sha1(part)
            if found != sha1:
                part.unlink()
                raise DataError(
                    f"{url}: wrong checksum: SHA-1 {found} instead of {sha1}. "
                    "The download was removed; run the command again."
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
            f"{printable(file)}: wrong checksum: SHA-1 {found} instead of {sha1}. "
            "Remove the file or replace it by the right one."
        )


def file_sha1(file: Path) -> str:
    """SHA-1 of a file, in hexadecimal."""
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def _download_rest(url: str, part: Path, schemes: tuple[str, ...], progress: Progress | None) -> None:
    """Download the rest of ``part``, reconnecting after broken connections."""
    opener = urllib.request.build_opener(_HttpsRedirects(schemes))
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(opener, url, part, before, progress):
                return
            reason: Exception = ConnectionError("the connection ended early")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:
                # The server has nothing left to send. The checksum shows whether the file is right.
                return
            if error.code < 500:
                raise _RefusedError(f"the server answers {error.code} {error.reason}") from None
            reason = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        arrived = part.stat().st_size if part.exists() else 0
        failures = 0 if arrived > before else failures + 1
        if failures == MAX_FAILURES:
            kept = f"; the {arrived} bytes received so far are kept" if arrived else ""
            raise _RefusedError(f"{_reason(reason)}{kept}") from None
        log.info("%s: %s; continuing from byte %d", url, _reason(reason), arrived)
        time.sleep(min(0.2 * 2**failures, 5.0))


def _receive(
    opener: urllib.request.OpenerDirector, url: str, part: Path, start: int, progress: Progress | None
) -> bool:
    """Download over one connection; True if the file is complete."""
    headers = {"User-Agent": "finetune", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
        resumes = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        if not resumes:
            # The server sends the whole file again.
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        with part.open("ab" if resumes else "wb") as file:
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
        # Reconnecting does not help if the disk is full.
        raise _RefusedError(f"cannot write {file.name}: {error.strerror or error}") from None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time in, where the system has locks. A lock ends with its process."""
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
            log.info("%s: waiting for another process that downloads it", path.with_suffix(""))
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
