"""Match a user's regular expression in bounded time.

Python's engine backtracks, so a pattern such as `(a+)+$` can take practically forever. Such patterns cannot
be recognised reliably, and a thread cannot be stopped during a match. So a child process matches
and ends itself after a time limit.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

from finetune.errors import DataError, FinetuneError, printable

# The time limit for each batch of names. A normal match takes microseconds.
SECONDS, NAMES = 10, 1000
# faulthandler's watchdog is a C thread, so it works although the match holds the interpreter lock.
_MATCHER = f"""
import faulthandler, json, re, sys
pattern, names = json.load(sys.stdin)
compiled = re.compile(pattern)
for number, name in enumerate(names):
    if number % {NAMES} == 0:
        faulthandler.dump_traceback_later({SECONDS}, exit=True)
    found = compiled.search(name)
    print(json.dumps(None if found is None else found[1]), flush=True)
"""


def match_groups(pattern: str, names: Sequence[str]) -> list[str | None]:
    """The text of the pattern's capture group in each name; None if the pattern does not match.

    Raises:
        DataError: ``NAMES`` names take longer than ``SECONDS``. The message names the current one.
        FinetuneError: the child process failed.
    """
    if not names:
        return []
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER],
            input=json.dumps([pattern, list(names)]).encode(),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise FinetuneError(
            f"data.group_by: cannot start a process for matching ({error.strerror})"
        ) from None
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    if len(found) == len(names):
        return found
    if b"Timeout" not in ended.stderr:
        raise FinetuneError(
            "data.group_by: the process that matches the pattern was killed. Run the command again"
        )
    raise DataError(
        f"{printable(names[len(found)])}: matching data.group_by ({printable(pattern)}) takes longer than "
        f"{SECONDS} seconds. Nested repetition such as (a+)+ can take forever. Repeat only one of the parts."
    )
