"""The entry point of the command: claims the run directory and handles signals before it loads anything else.

Many trainings may be started at once in one directory, and all but one are refused. Loading the command line
first, or even ``re`` or ``pathlib``, would make each refusal several times slower.
"""

import os
import sys

from finetune.errors import FinetuneError, plain
from finetune.training.run.claim import Claim, claim_early, place_of, release_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn

VALUED = ("--run-dir", "--set", "--device")
FLAGS = (
    "--resume",
    "--force",
    "--extend",
    "--overwrite",
    "--smoke",
    "--tensorboard",
    "--report",
    "--quiet",
    "-q",
)


def main() -> None:
    """Run the command line. Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end it with 130, 143 and 129."""
    claimed = None
    try:
        claimed = _claim(sys.argv[1:])
        import signal

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        hang_up = getattr(signal, "SIGHUP", None)
        # Stays ignored under nohup.
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            signal.signal(hang_up, _stop)
        from finetune.cli.main import main as command_line

        command_line()
    except FinetuneError as error:
        sys.stderr.write(f"error: {plain(str(error))}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        # Ctrl-C before the handler above was installed.
        sys.exit(130)
    finally:
        if claimed is not None:
            claimed.release()


def _stop(number: int, frame: "FrameType | None") -> "NoReturn":
    import signal

    if release_all():
        # A run that has not begun to train has nothing to save. An exception could be swallowed by an
        # import that is under way.
        os._exit(128 + number)
    # Partly written files are removed on the way out. If that takes too long, a second signal ends the
    # process at once. Not a KeyboardInterrupt: raised in an import, it may end Python by SIGINT although it
    # is caught.
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


def _claim(words: "Sequence[str]") -> Claim | None:
    """Claim the run directory of a plain ``train`` command; None if the words need the full parser."""
    options = _options(words)
    if options is None:
        return None
    path = place_of(options["recipe"], options.get("--run-dir"), smoke="--smoke" in options)
    overwrite = "--overwrite" in options or (
        "--smoke" in options and not options.keys() & {"--resume", "--run-dir"}
    )
    return claim_early(path, resume="--resume" in options, overwrite=overwrite)


def _options(words: "Sequence[str]") -> dict[str, str] | None:
    """The options of a plainly spelled ``train`` command; None for anything else."""
    if not words or words[0] != "train":
        return None
    found: dict[str, str] = {}
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        if name in VALUED:
            value = value if equals else next(rest, "")
            if not value or (name == "--run-dir" and name in found):
                return None
            found[name] = value
        elif word in FLAGS:
            found[word] = word
        elif word.startswith("-") or "recipe" in found:
            return None
        else:
            found["recipe"] = word
    usable = "recipe" in found and os.path.isfile(found["recipe"])
    sensible = not ("--resume" in found and "--overwrite" in found) and not (
        ("--force" in found or "--extend" in found) and "--resume" not in found
    )
    return found if usable and sensible else None
