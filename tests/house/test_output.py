"""Output appears in the order in which it was written, and failures to write it are reported."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FINETUNE = str(Path(sys.executable).with_name("finetune"))
SAID = """
from finetune.cli import output
output.data("one")
output.note("two")
output.data("three")
"""


def environment(unbuffered: str) -> dict[str, str]:
    """Whether Python buffers stdout if it is not a terminal, as it does by default."""
    return {**os.environ, "PYTHONUNBUFFERED": unbuffered}


def test_data_and_notes_in_one_file_are_in_order() -> None:
    """As in a log of CI."""
    done = subprocess.run(
        [sys.executable, "-c", SAID],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        env=environment(""),
    )
    assert done.stdout.split() == ["one", "two", "three"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words", [["backbones"], ["layers", "alexnet"], ["--version"], ["--help"]], ids=" ".join
)
def test_a_full_disk_is_reported(words: list[str], unbuffered: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [FINETUNE, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(unbuffered),
        )
    assert done.returncode == 1
    assert done.stderr == "error: stdout: cannot be written (No space left on device)\n"


BOTH = """
from finetune.cli import main, output
from finetune.errors import UserError

def fails():
    output.data("said before")
    raise UserError("the file is missing")

main.command_line = lambda loaded: fails
main.main()
"""


def test_an_error_is_reported_although_the_disk_is_full() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", BOTH],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(""),
        )
    assert (done.returncode, done.stderr) == (2, "error: the file is missing\n")


def test_a_closed_stdout_gets_no_output() -> None:
    done = subprocess.run(
        f"{FINETUNE} backbones >&- && {FINETUNE} recipe show missing.yaml >&-",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 2
    assert "missing.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_the_command_silently(unbuffered: str) -> None:
    with subprocess.Popen(
        [FINETUNE, "backbones"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(unbuffered),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (MemoryError(), 1, "error: out of memory (MemoryError)"),
        (
            RuntimeError("could not create a primitive"),
            1,
            "error: out of memory (could not create a primitive)",
        ),
    ],
)
def test_out_of_memory_is_one_message_wherever_it_happens(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int, says: str
) -> None:
    from finetune.cli import main

    def fails() -> None:
        raise raised

    monkeypatch.setattr(main, "command_line", lambda loaded: fails)
    ended = cli("backbones")
    assert ended.code == code
    assert ended.err.startswith(says)


def test_other_faults_are_not_reported_as_out_of_memory(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.cli import main

    def fails() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(main, "command_line", lambda loaded: fails)
    with pytest.raises(RuntimeError, match="mat1"):
        cli("backbones")
