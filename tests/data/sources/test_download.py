"""Downloads from a local server that breaks off, redirects and sends wrong data."""

import hashlib
import io
import multiprocessing
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune.data.sources.named import download
from finetune.data.sources.named.download import fetch
from finetune.errors import DataError

CONTENT = bytes(range(256)) * 400
SHA1 = hashlib.sha1(CONTENT).hexdigest()


@dataclass
class Served:
    """The server's behaviour and the requests it received."""

    url: str = ""
    content: bytes = CONTENT
    # Each connection breaks after the next number of bytes in this list.
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 200
    location: str = ""
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    state = Served()
    monkeypatch.setattr(time, "sleep", lambda _: None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            status = state.status if state.status != 200 or not start else 206
            if start and start >= len(state.content):
                status = 416
            self.send_response(status)
            if state.location:
                self.send_header("Location", state.location)
            body = state.content[start:] if status in (200, 206) else b""
            if status == 206:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}"
                )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if body and state.breaks:
                body = body[: state.breaks.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/set.zip"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def get(served: Served, target: Path, sha1: str = SHA1) -> None:
    fetch(served.url, target, sha1, schemes=("http", "https"))


def refused(served: Served, target: Path, sha1: str = SHA1) -> str:
    with pytest.raises(DataError) as caught:
        get(served, target, sha1)
    return str(caught.value)


def test_a_file_is_downloaded_with_progress(served: Served, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "er" / "set.zip"
    fetch(
        served.url,
        target,
        SHA1,
        schemes=("http",),
        progress=lambda arrived, total: seen.append((arrived, total)),
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not target.with_name("set.zip.part").exists()


def test_an_existing_file_is_not_downloaded_again(served: Served, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(CONTENT)
    get(served, tmp_path / "set.zip")
    assert served.asked == []


def test_an_existing_wrong_file_is_an_error_and_stays(served: Served, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"mine")
    assert "wrong checksum" in refused(served, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == b"mine"
    assert served.asked == []


def test_broken_connections_are_resumed(served: Served, tmp_path: Path) -> None:
    served.breaks = [1000, 5000]
    get(served, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert served.asked == [None, "bytes=1000-", "bytes=6000-"]


def test_the_next_call_continues_the_download(served: Served, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:777])
    get(served, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert served.asked == ["bytes=777-"]


def test_a_complete_part_is_renamed(served: Served, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    get(served, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_file(served: Served, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"x" * 777)
    served.ranges = False
    get(served, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [777, len(CONTENT), len(CONTENT) + 5])
def test_a_part_of_another_file_is_discarded(size: int, served: Served, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"x" * size)
    get(served, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_server_that_always_breaks_off_is_an_error(served: Served, tmp_path: Path) -> None:
    served.breaks = [1000] + [0] * 20
    message = refused(served, tmp_path / "set.zip")
    assert "1000 bytes received so far are kept" in message
    assert len(served.asked) == 1 + download.MAX_FAILURES
    assert (tmp_path / "set.zip.part").read_bytes() == CONTENT[:1000]


def test_a_wrong_checksum_is_an_error(served: Served, tmp_path: Path) -> None:
    served.content = b"a virus"
    message = refused(served, tmp_path / "set.zip")
    assert hashlib.sha1(b"a virus").hexdigest() in message
    assert SHA1 in message
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip.lock"]


@pytest.mark.parametrize(("status", "said"), [(404, "404 Not Found"), (403, "403"), (503, "503")])
def test_a_server_that_refuses_is_an_error(status: int, said: str, served: Served, tmp_path: Path) -> None:
    served.status = status
    assert said in refused(served, tmp_path / "set.zip")


def test_an_unreachable_server_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(DataError, match="no connection"):
        fetch("http://127.0.0.1:9/set.zip", tmp_path / "set.zip", SHA1, schemes=("http",))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_only_https_addresses_are_accepted(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only https"):
        fetch(url, tmp_path / "x", SHA1)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_another_scheme_is_refused(served: Served, tmp_path: Path) -> None:
    served.status, served.location = 302, "ftp://127.0.0.1/x"
    assert "redirects to ftp://127.0.0.1/x, which is not https" in refused(served, tmp_path / "set.zip")


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request = urllib.request.Request("https://example.org/x")
    handler = download._HttpsRedirects(("https",))
    assert handler.redirect_request(request, io.BytesIO(), 302, "", {}, "https://example.org/y") is not None
    with pytest.raises(Exception, match=r"redirects to http://example\.org/x, which is not https"):
        handler.redirect_request(request, io.BytesIO(), 302, "", {}, "http://example.org/x")


def test_a_redirect_within_the_schemes_is_followed(served: Served, tmp_path: Path) -> None:
    served.status, served.location = 302, served.url
    # The redirects form a circle; urllib gives up.
    assert "302" in refused(served, tmp_path / "set.zip")


def test_two_processes_take_turns(served: Served, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (served.url, tmp_path / "set.zip", SHA1)
    processes = [context.Process(target=_fetch_over_http, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(served.asked) == 1


def _fetch_over_http(url: str, target: Path, sha1: str) -> None:
    fetch(url, target, sha1, schemes=("http",))


def test_a_full_disk_is_an_error(served: Served, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "set.zip.part").symlink_to(full)
    assert "No space left" in refused(served, tmp_path / "set.zip")
