"""Under ``--offline``, no library downloads anything."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune import offline
from finetune.data.sources.named.download import fetch
from finetune.errors import DataError

Cli = Callable[..., Any]
CONTENT = b"all of it"
SHA1 = hashlib.sha1(CONTENT).hexdigest()
# Requests for a download, and the words in each refusal besides the environment variable.
ASKING = {
    "weights": (
        ("probe", "digits", "--backbone", "resnet18"),
        ("https://download.pytorch.org/models/resnet18-", "checkpoints"),
    ),
    "weights by name": (
        ("probe", "digits", "--backbone", "resnet50", "--set", "model.weights=IMAGENET1K_V1"),
        ("https://download.pytorch.org/models/resnet50-", "checkpoints"),
    ),
    "a known set": (("doctor", "hotdog"), ("hotdog.zip", "save it as")),
    "torchvision, by mirrors": (("doctor", "torchvision:MNIST"), ("train-images-idx3", "Put its files")),
    "torchvision, by an address": (("doctor", "torchvision:CIFAR10"), ("cifar-10-python", "Put its files")),
    "advice": (("advise", "digits", "--backbone", "resnet18"), ("resnet18-", "checkpoints")),
    "images alone": (("train", "hotdog"), ("hotdog.zip", "save it as")),
    "timm": (("probe", "digits", "--backbone", "timm:resnet10t"), ("huggingface.co", "model.weights")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the environment after the test."""
    for name in (offline.VARIABLE, offline.HUB_VARIABLE):
        monkeypatch.setenv(name, "")


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that were looked up or connected to."""
    found: list[Any] = []

    def refuse(*words: Any, **_: Any) -> Any:
        found.append(words[-1] if isinstance(words[0], socket.socket) else words[0])
        raise OSError("the tests stay on this machine")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return found


@pytest.mark.parametrize("what", ASKING)
@pytest.mark.parametrize("how", ["before", "after", "environment"])
def test_offline_connects_nowhere_and_names_the_missing_file(
    what: str, how: str, cli: Cli, chdir_tmp: Path, reached: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, named = ASKING[what]
    if what == "timm":
        pytest.importorskip("timm")
    if how == "environment":
        monkeypatch.setenv(offline.VARIABLE, "1")
    else:
        words = ("--offline", *words) if how == "before" else (*words, "--offline")
    ended = cli(*words)
    assert ended.code == 2, ended.err
    assert reached == []
    assert offline.VARIABLE in ended.err
    for part in named:
        assert part in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("what", ["weights", "torchvision, by an address"])
def test_without_offline_a_download_is_tried(
    what: str, cli: Cli, chdir_tmp: Path, reached: list[Any]
) -> None:
    """The positive control."""
    ended = cli(*ASKING[what][0])
    assert ended.code == 2
    assert reached != []


def test_offline_uses_files_that_are_present(cli: Cli, chdir_tmp: Path, reached: list[Any]) -> None:
    ended = cli("--offline", "doctor", "drawn")
    assert ended.code == 0, ended.err
    assert reached == []


@pytest.mark.parametrize(
    ("value", "forbids"), [("1", True), ("true", True), ("", False), ("0", False), ("no", False)]
)
def test_the_environment_variable_forbids_downloads(
    value: str, forbids: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(offline.VARIABLE, value)
    assert offline.is_offline() is forbids


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback, and the requests that it got."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}/set.zip", asked
        finally:
            served.shutdown()
            thread.join()


def test_offline_does_not_ask_a_reachable_server(
    server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = server
    target = tmp_path / "set.zip"
    monkeypatch.setenv(offline.VARIABLE, "1")
    with pytest.raises(DataError, match=f"--offline or {offline.VARIABLE}"):
        fetch(url, target, SHA1, schemes=("http",))
    assert asked == []
    monkeypatch.setenv(offline.VARIABLE, "0")
    fetch(url, target, SHA1, schemes=("http",))
    assert (target.read_bytes(), len(asked)) == (CONTENT, 1)
    monkeypatch.setenv(offline.VARIABLE, "1")
    fetch(url, target, SHA1, schemes=("http",))  # what is there is checked, and that is all
    assert len(asked) == 1
