"""Loaders work without shared memory, and with few file descriptors, processes or threads."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processes import gone, in_training, linux_only, recipe_text

resource = pytest.importorskip("resource")
SECONDS = 120  # A hang is a failure; nothing takes so long.


@functools.cache
def own_mounts() -> bool:
    """Whether this user can mount a private /dev/shm."""
    unshare = shutil.which("unshare")
    if unshare is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    tried = [unshare, "-m", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /dev/shm"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def with_shm(mount: str) -> list[str]:
    """The beginning of a command line that runs the rest with a private /dev/shm."""
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]


SMALL = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
FULL = f"{SMALL} && {{ head -c 1000000 /dev/zero > /dev/shm/full 2>/dev/null; true; }}"
READ_ONLY = "mount -t tmpfs -o ro,size=64k tmpfs /dev/shm"


def metrics(run: Path) -> list[Any]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def ends(start: Any) -> Callable[..., tuple[int, str, str]]:
    """Runs a command to its end: exit code, stdout, stderr."""

    def run(*words: str | Path, **options: Any) -> tuple[int, str, str]:
        process = start(*words, **options)
        out, err = process.communicate(timeout=SECONDS)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> list[Any]:
    """The metrics of a run without loader processes."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "recipe.yaml").write_text(recipe_text(shapes))
    words = ["train", folder / "recipe.yaml", "--run-dir", folder / "run", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "finetune", *map(str, words)], env=environment, check=True)
    return metrics(folder / "run")


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("mount", [FULL, slow(SMALL), slow(READ_ONLY)])
def test_shared_memory_is_not_needed(
    mount: str, plain: list[Any], recipe: Callable[..., Path], tmp_path: Path, ends: Any
) -> None:
    if not own_mounts():
        pytest.skip("only root can mount a small /dev/shm")
    run, before = tmp_path / "run", with_shm(mount)
    words = ["train", recipe(workers=2), "--run-dir", run, "--device", "cpu"]
    code, _, err = ends(*words, before=before)
    assert code == 0, err
    assert "could not continue" not in err
    assert metrics(run) == plain
    code, out, err = ends("eval", run, "--json", "--device", "cpu", before=before)
    assert code == 0, err
    assert json.loads(out)["top1"] == plain[-1]["test_top1"]


def test_loaders_leave_shared_memory_empty(recipe: Callable[..., Path], tmp_path: Path, start: Any) -> None:
    """Without a private mount."""
    run, shared = tmp_path / "run", Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("not here")
    process = start("train", recipe(workers=2, epochs=500), "--run-dir", run, "--device", "cpu")
    loaders = in_training(process, run, 2)
    for pid in (process.pid, *loaders):
        maps = Path(f"/proc/{pid}/maps").read_text().split()
        # Other code creates small locks there.
        assert not [word for word in maps if word.startswith("/dev/shm") and "/sem." not in word]


@pytest.mark.parametrize("count", [20, slow(24), slow(28), slow(40)])
def test_few_file_descriptors_suffice(
    count: int, plain: list[Any], recipe: Callable[..., Path], tmp_path: Path, ends: Any
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    run = tmp_path / "run"
    words = ["train", recipe(workers=2), "--run-dir", run, "--device", "cpu"]
    code, _, err = ends(*words, within=limit)
    assert code == 0, err
    assert "Traceback" not in err
    assert ("a loader process could not continue (Too many open files)" in err) == (count <= 24)
    assert metrics(run) == plain


NO_PROCESSES = """
import errno, os, threading
FAILS
from finetune.cli.start import main
main()
"""
NO_FORK = """
def fork():
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
os.fork = fork
"""
NO_THREAD = """
def start(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""


@pytest.mark.parametrize("fails", [NO_FORK, slow(NO_THREAD)])
def test_a_limit_on_processes_and_threads_is_reported(
    fails: str, plain: list[Any], recipe: Callable[..., Path], tmp_path: Path, ends: Any
) -> None:
    run = tmp_path / "run"
    words = ["train", recipe(workers=2), "--run-dir", run, "--device", "cpu"]
    code, _, err = ends(*words, program=("-c", NO_PROCESSES.replace("FAILS", fails)))
    assert code == 0, err
    assert "a loader process could not continue" in err
    assert metrics(run) == plain


@linux_only
@pytest.mark.parametrize("killed", ["loader", slow("run")])
def test_a_killed_run_leaves_no_temporary_folder(
    killed: str, recipe: Callable[..., Path], tmp_path: Path, start: Any
) -> None:
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    words = ["train", recipe(workers=2, epochs=500), "--run-dir", run, "--device", "cpu"]
    process = start(*words, environment={"TMPDIR": str(temporary)})
    loaders = in_training(process, run, 2)
    os.kill(process.pid if killed == "run" else loaders[0], signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert gone(loaders, 30)
    assert not list(temporary.glob("pymp-*"))
