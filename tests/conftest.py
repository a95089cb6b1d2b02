"""Fixtures of all tests: loopback network only, one thread, and separate caches."""

import contextlib
import importlib.machinery
import importlib.util
import io
import logging
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def a_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's caches are neither read nor written; this cache is deleted at the end."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FINETUNE_CACHE", str(home / "finetune"))
        environment.setenv("TORCH_HOME", str(home / "torch"))
        yield
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For fixtures of modules and sessions, which run before the cache of a test exists."""
    with a_cache(tmp_path_factory):
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with a_cache(tmp_path_factory):
        yield


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that uses the network fails, even if a network is available."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"the tests stay on loopback, not {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """Removes the command line's log handler after each test."""
    logger = logging.getLogger("finetune")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of tests draw no curves, which would take as long as the smallest trainings themselves.

    ``@pytest.mark.curves`` turns them on. Runs in other processes draw them.
    """
    if request.node.get_closest_marker("curves") is None:
        monkeypatch.setattr("finetune.training.curves.write_curves", lambda *_: None)


@pytest.fixture
def chdir_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """``load_script("kill-storm")``: that file of ``scripts/`` as a module."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / "scripts" / name
        module_name = name.replace("-", "_")
        spec = importlib.util.spec_from_loader(
            module_name, importlib.machinery.SourceFileLoader(module_name, str(path))
        )
        assert spec is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        # A loader would write bytecode beside the script.
        exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
        return module

    return load


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """``cli("train", "recipe.yaml")``: the command line, in this process."""
    from finetune.cli.main import main

    def run(*words: str | Path) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["finetune", *map(str, words)])
        logging.getLogger("finetune").handlers.clear()
        code: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        return Ended(int(code), out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn images of 40 px in two classes: 16, 6 and 6 per class in train, val and test."""
    from PIL import Image, ImageDraw

    root = tmp_path_factory.mktemp("shapes")
    for split, count in {"train": 16, "val": 6, "test": 6}.items():
        for name in ("disc", "square"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (40, 40), (index * 9, 90, 200 - index * 5))
                draw = ImageDraw.Draw(image)
                box = (4 + index % 7, 5, 30 + index % 5, 33)
                (draw.ellipse if name == "disc" else draw.rectangle)(box, fill=(250, 220 - index, 40))
                image.save(folder / f"{name}_{index:02}.png")
    return root


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """One headless Chromium for all tests."""
    from browser import chromium

    with chromium() as started:
        yield started
