"""Output files appear whole or not at all, and what a killed process leaves is removed."""

import errno
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.disk.outputs import check_new_file, publish, staging, write_output
from finetune.errors import SaveError, UserError

posix = pytest.mark.skipif(os.name != "posix", reason="no such files here")


def write(target: Path, text: str) -> None:
    with staging(target) as stage:
        (stage / target.name).write_text(text)
        publish(stage / target.name, target)


def test_publishing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a[1]*.csv"
    write(target, "one")
    write(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_an_error_leaves_the_earlier_file(tmp_path: Path) -> None:
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


def test_an_error_removes_a_created_folder(tmp_path: Path) -> None:
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
def test_the_next_write_removes_the_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1  # the control: there is something to remove
    with staging(target) as first:
        (first / "mine").write_text("x")
        write(target, "whole")
        assert (first / "mine").exists()
        assert sorted(tmp_path.iterdir()) == sorted([first, target])


def test_unwritable_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"), staging(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), staging(tmp_path / "file" / "a.csv"):
        pass


ERRNOS = ("ENOSPC", "EFBIG", "EDQUOT", "EIO", "EROFS", "EACCES")


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("name", ERRNOS)
def test_a_failed_write_is_one_message_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    target = tmp_path / "a.csv"
    target.write_text("before")
    number = getattr(errno, name)

    def refuse(*_words: object, **_options: Any) -> None:
        raise OSError(number, os.strerror(number))

    if where == "write":
        monkeypatch.setattr(Path, "open", lambda *_: RefusingFile(refuse))
    elif where == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises((UserError, SaveError)) as raised:
        write_output(target, b"after")
    monkeypatch.undo()
    assert raised.value.exit_code == (2 if name in ("EROFS", "EACCES") else 1)
    assert f"{target}: cannot be written ({os.strerror(number)}). " in str(raised.value)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


class RefusingFile(io.BytesIO):
    """A file on a full disk."""

    def __init__(self, refuse: Callable[..., None]) -> None:
        super().__init__()
        self.write = refuse  # type: ignore[assignment, method-assign]


LIMITED = """
import resource, sys
from pathlib import Path
from finetune.disk.outputs import TextOutput, publish, staging
from finetune.errors import SaveError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
target = Path(sys.argv[1])
try:
    with staging(target) as stage:
        with TextOutput(stage / "text", target) as text:
            for _ in range(int(sys.argv[2])):
                text.write("0123456789" * 10)
        publish(stage / "text", target)
except SaveError as error:
    print(error)
"""


@posix
@pytest.mark.parametrize("lines", [11, 1000])  # refused as the file is closed, and before
def test_a_file_size_limit_is_an_error(tmp_path: Path, lines: int) -> None:
    target = tmp_path / "a.csv"
    target.write_text("before")
    words = [sys.executable, "-c", LIMITED, str(target), str(lines)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "a.csv: cannot be written (File too large). Raise the limit" in ended.stdout
    assert ended.stderr == ""
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@posix
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "real.csv").write_text("before")
    (inner / "real.csv").chmod(0o640)
    for name, leads_to in (("a", "inner/real.csv"), ("b", "a"), ("new", "inner/new.csv")):
        (tmp_path / name).symlink_to(leads_to)
    for name in ("a", "b", "new"):
        write_output(tmp_path / name, name.encode())
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).resolve().read_text() == name
    assert (inner / "real.csv").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in inner.iterdir()) == ["new.csv", "real.csv"]


@posix
def test_pipes_and_devices_receive_the_bytes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_output(pipe, b"x" * 100_000)
    assert reader.communicate()[0] == b"x" * 100_000
    assert pipe.is_fifo()
    (tmp_path / "null").symlink_to("/dev/null")
    write_output(tmp_path / "null", b"x")
    assert (tmp_path / "null").is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


@posix
def test_a_pipe_without_a_reader_is_an_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["head", "-c", "1", str(pipe)], stdout=subprocess.DEVNULL)
    with pytest.raises(SaveError, match=r"pipe: cannot be written \(Broken pipe\)"):
        write_output(pipe, b"x" * 1_000_000)
    reader.wait()


@posix
def test_a_full_device_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(
        SaveError, match=r"full: cannot be written \(No space left on device\)\. Free some space"
    ):
        write_output(tmp_path / "full", b"x")
    assert (tmp_path / "full").is_symlink()


STDOUT = """
import sys
from pathlib import Path
from typing import Any
from finetune.disk.outputs import write_output
print("before")
write_output(Path(sys.argv[1]), b"written\\n")
print("after")
"""


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_output_to_stdout_stays_in_order(tmp_path: Path, name: str) -> None:
    if not Path(name).parent.exists():
        pytest.skip("no such place here")
    words = [sys.executable, "-c", STDOUT, name]
    assert subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout == b"before\nwritten\nafter\n"
    log = tmp_path / "log"
    log.write_text("earlier\n")
    with log.open("ab") as appended:
        subprocess.run(words, check=True, stdout=appended)
    assert log.read_text() == "earlier\nbefore\nwritten\nafter\n"


@posix
def test_folders_sockets_and_circles_are_refused(chdir_tmp: Path) -> None:
    tmp_path = chdir_tmp
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "to-folder").symlink_to(".")
    own = socket.socket(socket.AF_UNIX)
    own.bind("socket")
    own.close()
    for name, message in (
        ("circle", "Too many levels"), ("to-folder", "is a folder"), ("socket", "is a socket"),
        ("x" * 300, "name too long"), (f"{'x' * 300}/a.csv", "name too long"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"(?i){message}"):
            write_output(tmp_path / name, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "socket", "to-folder"]


def test_the_longest_file_name_works(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".csv")
    write_output(target, b"x")
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = tmp_path / "recipe.yaml"
    check_new_file(target)
    target.write_text("mine")
    with pytest.raises(UserError, match=r"already exists\. Choose another name"):
        check_new_file(target)
    check_new_file(target, overwrite=True)
    with pytest.raises(UserError, match="it does not exist"):
        check_new_file(tmp_path / "no" / "recipe.yaml")
    if os.name == "posix":
        check_new_file(Path("/dev/null"))
