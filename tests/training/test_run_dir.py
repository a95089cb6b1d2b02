"""A run directory: who can claim it, and which of its files are removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import CheckpointError, RunDirError
from finetune.training.run.directory import Description, RunDir
from finetune.training.run.files import METRICS

HOLD = """
import sys
from pathlib import Path
from finetune.training.run.directory import Description, RunDir
run = RunDir.open(Path(sys.argv[1]))
run.begin(Description(b"", "", {}, b""))
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "one"
    with RunDir.open(path) as run:
        run.begin(Description(b"data: {}\n", "resolved: true\n", {}, b""))
    return path


def test_a_run_is_neither_continued_nor_replaced_unasked(run_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"--resume .* --overwrite"):
        RunDir.open(run_path)
    with RunDir.open(run_path, resume=True):
        assert (run_path / "recipe.yaml").read_text() == "data: {}\n"


def test_a_replaced_run_stays_until_the_new_one_begins(run_path: Path) -> None:
    with RunDir.open(run_path, overwrite=True):
        pass
    assert (run_path / "recipe.yaml").read_text() == "data: {}\n"


def test_overwrite_removes_what_a_run_writes_and_nothing_else(run_path: Path) -> None:
    (run_path / "my notes.txt").write_text("keep me")
    (run_path / "checkpoints" / "best").mkdir(parents=True)
    with RunDir.open(run_path, overwrite=True) as run:
        run.begin(Description(b"new", "", {}, b""))
    assert list((run_path / "checkpoints").iterdir()) == []
    assert (run_path / "recipe.yaml").read_text() == "new"
    assert (run_path / "my notes.txt").read_text() == "keep me"


def test_a_folder_of_other_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunDirError, match="holds files but no run"):
            RunDir.open(tmp_path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


def test_the_folders_made_for_it_are_removed_too(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "there" / "runs" / "one"):
        pass
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()
    with RunDir.open(tmp_path / "runs" / "one"):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


def test_a_folder_that_holds_other_files_by_then_stays(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "notes.txt").touch()
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["notes.txt"]


def test_a_folder_that_another_process_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    mkdir = os.mkdir

    def late(path: str, *more: int) -> None:
        monkeypatch.setattr(os, "mkdir", mkdir)
        (tmp_path / "runs").rmdir()
        mkdir(path, *more)

    monkeypatch.setattr(os, "mkdir", late)
    with RunDir.open(tmp_path / "runs" / "one"):
        assert (tmp_path / "runs" / "one").is_dir()


def test_a_file_at_the_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirError, match="cannot be a run directory"):
        RunDir.open(tmp_path / "run")


def test_two_processes_cannot_share_one_and_a_kill_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(RunDirError, match="another process"):
                RunDir.open(path, **options)
    finally:
        holder.kill()
        holder.communicate()
    RunDir.open(path, resume=True).close()


def test_metrics_are_truncated(run_path: Path) -> None:
    with RunDir.open(run_path, resume=True) as run:
        for epoch in range(4):
            run.append(METRICS, {"epoch": epoch})
        run.cut_back(METRICS, 2)
        assert (run_path / METRICS).read_text() == '{"epoch": 0}\n{"epoch": 1}\n'
        with pytest.raises(CheckpointError, match="has 2 lines"):
            run.cut_back(METRICS, 3)
