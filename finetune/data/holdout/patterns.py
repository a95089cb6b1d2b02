"""A user's pattern (regular expression), matched in bounded time.

Python's engine goes back and tries again: `(a+)+$` takes longer than anybody waits for forty letters that do
not fit. No look at a pattern tells for sure which ones do that, and a thread cannot be stopped in the midst
of a match. So another process matches, and gives up by itself.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

from finetune.errors import DataError, FinetuneError, printable

# For so many names; each takes some microseconds.
SECONDS, NAMES = 10, 1000
# The watchdog is a thread of C, which needs no part of the interpreter that the match holds.
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
    """What the pattern's capture group matches in each name; None where it matches nothing.

    Raises:
        DataError: it takes longer than ``SECONDS`` for ``NAMES`` names; the message has the one it stood at.
        FinetuneError: the process that matches could not do so.
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
        raise FinetuneError(f"data.group_by: cannot start a process to match in ({error.strerror})") from None
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    if len(found) == len(names):
        return found
    if b"Timeout" not in ended.stderr:
        raise FinetuneError("data.group_by: the process that matches the pattern was ended; run it again")
    raise DataError(
        f"{printable(names[len(found)])}: data.group_by ({printable(pattern)}) is still being matched after "
        f"{SECONDS} seconds. A repeated part within a repeated part, such as (a+)+, can take for ever: "
        "repeat one of them only."
    )
