"""A contestant's process: its output with times, its duration, and its peak memory.

Neither this file nor its callers import torch: on Linux, the peak memory of a child starts at its parent's.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
# How many of its last lines a failure is shown with.
LINES_SHOWN = 5


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        lines: stdout and stderr, each line with the seconds since the start of the process.
        seconds: from its start to its end.
        peak_bytes: the most memory that it, or the largest of its loader processes, had at once.
    """

    code: int
    lines: tuple[tuple[float, str], ...]
    seconds: float
    peak_bytes: int

    @property
    def last_words(self) -> str:
        """The last lines, for the message of a failure."""
        return "\n".join(line for _, line in self.lines[-LINES_SHOWN:])


def run(words: Sequence[str], threads: int, cache: Path) -> Ended:
    """Run ``python WORDS`` to its end, with ``threads`` compute threads and its own cache of features."""
    began = time.perf_counter()
    command = [sys.executable, *words]
    with subprocess.Popen(
        command,
        env=_environment(os.environ, threads, cache),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None
            lines = tuple((time.perf_counter() - began, line.rstrip()) for line in process.stdout)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return Ended(process.returncode, lines, seconds, usage.ru_maxrss * unit)


def _environment(outer: Mapping[str, str], threads: int, cache: Path) -> dict[str, str]:
    path = [str(SCRIPTS), *filter(None, [outer.get("PYTHONPATH")])]
    return {
        **outer,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "FINETUNE_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
    }
