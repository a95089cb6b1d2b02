"""Only regular files of limited size are read: nothing blocks on a pipe or fills memory."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.disk.regular import check_regular, open_regular, read_regular, read_regular_text

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
# Longer than any command here takes; a reader that waits for a pipe waits for ever.
PATIENCE_S = 120


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("read", [check_regular, open_regular, lambda path: read_regular(path, 10)])
def test_pipes_devices_and_folders_are_refused(
    pipe: Path, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    with pytest.raises(OSError, match="a named pipe, not a regular file"):
        read(pipe)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="a device, not a regular file"):
        read(tmp_path / "link")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\n\xc3\xa9")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 5) == b"a\r\n\xc3\xa9"
    assert read_regular_text(tmp_path / "link", 5) == "a\r\né"


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 1 KiB"):
        read_regular(tmp_path / "sparse", 1 << 10)


def test_a_file_without_a_size_is_read_up_to_the_limit() -> None:
    source = Path("/proc/self/maps")
    if not source.exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(OSError, match="larger than"):
        read_regular(source, 100)


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one step."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = {
        "data": {"source": str(shapes), "image_size": 32, "workers": 0},
        "model": {"backbone": "squeezenet1_1", "weights": "none"},
        "train": {"max_steps": 1, "precision": "fp32"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ended = command("train", folder / "recipe.yaml", "--run-dir", folder / "run", "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    return folder / "run"


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetune", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def refused(*words: str | Path) -> str:
    ended = command(*words)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


# A file of a run, and a command that reads it.
READERS = {
    "resolved.yaml": ("resume",),
    "environment.json": ("resume",),
    "splits.csv": ("resume", "eval"),
    "checkpoints/best/card.json": ("eval", "as weights"),
    "checkpoints/best/manifest.json": ("eval", "as weights"),
    "checkpoints/best/model.safetensors": ("eval", "as weights"),
    "checkpoints/last/state.json": ("resume",),
    "checkpoints/last/optimizer.safetensors": ("resume",),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("file", READERS)
def test_pipes_in_a_run_never_block(
    run: Path, file: str, kind: str, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    recipe, mine = run.parent / "recipe.yaml", tmp_path / "run"
    shutil.copytree(run, mine)
    (mine / file).unlink()
    if kind == "pipe":
        os.mkfifo(mine / file)
    else:
        (mine / file).symlink_to("/dev/zero")
    commands = {
        "resume": ("train", recipe, "--run-dir", mine, "--resume", "--device", "cpu"),
        "eval": ("eval", mine, "--device", "cpu"),
        "as weights": (
            *("train", recipe, "--run-dir", tmp_path / "other", "--device", "cpu"),
            *("--set", f"model.weights={mine}"),
        ),
    }
    for name in READERS[file]:
        ended = cli(*commands[name])
        assert "Traceback" not in ended.err
        # A run without recorded splits is of an earlier version, and `last` has a previous checkpoint.
        goes_on = file == "splits.csv" or "using the checkpoint before it" in ended.err
        assert ended.code == 2 or (goes_on and ended.code == 0), (name, ended.err)


def test_pipes_that_a_user_names_never_block(tmp_path: Path, run: Path, shapes: Path) -> None:
    names = ("p.yaml", "p.csv", "p.onnx", "p.safetensors", "p.pth")
    for name in names:
        os.mkfifo(tmp_path / name)
    recipe = run.parent / "recipe.yaml"
    said = refused("train", tmp_path / "p.yaml")
    assert "p.yaml: cannot be read (a named pipe, not a regular file); save it to a file" in said
    assert "named pipe" in refused("predict", tmp_path / "p.onnx", shapes)
    assert "p.csv" in refused("doctor", tmp_path / "p.csv")
    for name in names[3:]:
        words = ("--run-dir", tmp_path / "run", "--set", f"model.weights={tmp_path / name}")
        assert "named pipe" in refused("train", recipe, *words)


def test_metrics_that_are_no_regular_file_are_refused(tmp_path: Path) -> None:
    from finetune.errors import CheckpointError
    from finetune.training.run.directory import RunDir

    with RunDir.open(tmp_path / "run") as run:
        os.mkfifo(run.path / "metrics.jsonl")
        with pytest.raises(CheckpointError, match="named pipe"):
            run.cut_back("metrics.jsonl", 0)


def test_pipes_as_archive_or_table_are_refused(pipe: Path) -> None:
    from finetune.checkpoint.manifest import find_damage
    from finetune.data.sources.named.archives import unpack
    from finetune.data.sources.tables.cells import read_cells
    from finetune.errors import DataError

    with pytest.raises(DataError, match="named pipe"):
        unpack(pipe, pipe.parent / "out", member="a")
    with pytest.raises(DataError, match="named pipe"):
        read_cells(pipe, "table.csv")
    os.mkfifo(pipe.with_name("manifest.json"))
    assert "named pipe" in str(find_damage(pipe.parent, ()))
    pipe.with_name("manifest.json").unlink()
    pipe.with_name("manifest.json").write_text(json.dumps({"sha256": {"pipe": "0"}}))
    assert "named pipe" in str(find_damage(pipe.parent, ()))
