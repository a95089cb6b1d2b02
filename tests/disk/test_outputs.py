"""Files appear whole or not at all, and a kill leaves nothing that stays."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.disk.outputs import publish, staging
from finetune.errors import UserError


def write(target: Path, text: str) -> None:
    with staging(target) as stage:
        (stage / target.name).write_text(text)
        publish(stage / target.name, target)


def test_what_is_published_replaces_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a[1]*.csv"
    write(target, "one")
    write(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("before")

    def fail() -> None:
        with staging(target) as stage:
            (stage / target.name).write_text("half")
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_takes_back_a_folder_that_was_made(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staging(tmp_path / "export" / "model.onnx"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from finetune.disk.outputs import staging
with staging(Path(sys.argv[1])) as stage:
    (stage / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_the_next_start_removes_what_a_kill_left_and_nothing_in_use(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1  # the control: there is something to remove
    with staging(target) as first:
        (first / "mine").write_text("x")
        write(target, "whole")
        assert (first / "mine").exists()
        assert sorted(tmp_path.iterdir()) == sorted([first, target])


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"), staging(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), staging(tmp_path / "file" / "a.csv"):
        pass
