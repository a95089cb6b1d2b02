"""The command ``finetune``: its global options, and how an error ends it."""

import contextlib
import os
import sys
from collections.abc import Container
from typing import Annotated, NoReturn, TextIO, cast

import typer

from finetune.cli import output
from finetune.cli.commands import COMMANDS, add_commands
from finetune.cli.stdout import Stdout
from finetune.errors import (
    BrokenPackageError,
    FinetuneError,
    NoMemoryError,
    RecipeError,
    SaveError,
    UserError,
    first_line,
    is_out_of_files,
    is_out_of_memory,
    is_out_of_threads,
    printable,
)
from finetune.offline import forbid_downloads
from finetune.version import __version__

# Set by a shell that asks for completions.
COMPLETING = "_FINETUNE_COMPLETE"
OFFLINE = "--offline"
INTACT = "Saved files are intact; continue a run with --resume."


def command_line(loaded: Container[str]) -> typer.Typer:
    """Build the command line, with the sub-commands loaded that ``loaded`` names."""
    app = typer.Typer(
        help="Fine-tune a pretrained network on your own images, and measure how good it is.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    add_commands(app, loaded)
    return app


def _version(asked: bool) -> None:
    if asked:
        output.data(f"finetune {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            *output.QUIET,
            help="Print data, warnings and errors only: no notes, no progress. Before or after a command.",
        ),
    ] = False,
    offline: Annotated[
        bool,
        typer.Option(OFFLINE, help="Download nothing. FINETUNE_OFFLINE=1 in the environment does the same."),
    ] = False,
) -> None:
    if offline:
        forbid_downloads()
    from finetune.cli.process import configure_process

    configure_process()
    if quiet:
        output.set_quiet(True)
    output.show_log()


def _apply_global_options(words: list[str]) -> list[str]:
    """Apply and remove ``--quiet`` and ``--offline``, which are allowed anywhere before ``--``."""
    end = words.index("--") if "--" in words else len(words)
    output.set_quiet(any(word in output.QUIET for word in words[:end]))
    if OFFLINE in words[:end]:
        forbid_downloads()
    return [word for word in words[:end] if word not in (*output.QUIET, OFFLINE)] + words[end:]


def _called(words: list[str]) -> Container[str]:
    """The sub-commands to load. No option before a sub-command takes a value."""
    if COMPLETING in os.environ:
        return COMMANDS
    return [word for word in words if not word.startswith("-")][:1]


def main() -> None:
    """Run the command line. An expected error ends it with a message and its exit code, no traceback."""
    with contextlib.redirect_stdout(cast(TextIO, Stdout(sys.stdout))):
        try:
            try:
                if COMPLETING not in os.environ:
                    sys.argv[1:] = _apply_global_options(sys.argv[1:])
                command_line(_called(sys.argv[1:]))()
            except SystemExit:
                sys.stdout.flush()
                raise
        except FinetuneError as error:
            _end(error)
        except Exception as error:
            expected = _expected(error)
            if expected is None:
                raise
            _end(expected)


def _expected(error: Exception) -> FinetuneError | None:
    """Turn what can happen anywhere into an error with a message: no memory, permission or package."""
    if is_out_of_memory(error):
        return NoMemoryError(
            f"out of memory ({first_line(error)}). Free memory, raise the limit (`ulimit -v`), or choose a "
            f"smaller train.batch_size, data.image_size or model.backbone. {INTACT}"
        )
    if is_out_of_files(error):
        return FinetuneError(
            f"{first_line(error)}. Allow more open files (`ulimit -n 1024`), or need fewer (data.workers: 0, "
            f"cache: {{decoded: off}}). {INTACT}"
        )
    if is_out_of_threads(error):
        return FinetuneError(
            f"no more processes or threads ({first_line(error)}). Allow more (`ulimit -u`), or need fewer "
            f"(data.workers: 0, OMP_NUM_THREADS=1). {INTACT}"
        )
    if isinstance(error, PermissionError) and error.filename is not None:
        return UserError(
            f"{printable(os.fsdecode(error.filename))}: this user has no permission "
            f"({error.strerror or 'denied'}). Change its permissions, or choose another path."
        )
    package = _broken_package(error)
    return None if package is None else BrokenPackageError(package, error)


def _broken_package(error: Exception) -> str | None:
    """The package whose import failed with ``error``; None for other errors and for our own files."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        return None if top == "finetune" else top
    trace = error.__traceback__
    while trace is not None:
        # A file that is being imported runs as <module>. The first one that is not ours is the package.
        frame, trace = trace.tb_frame, trace.tb_next
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and top not in ("finetune", "__main__"):
            return top
    return None


def _end(error: FinetuneError) -> NoReturn:
    # Problems of a recipe begin with FILE:LINE:COLUMN, which editors and terminals turn into links.
    text = str(error) if isinstance(error, RecipeError) else f"error: {error}"
    with contextlib.suppress(SaveError):  # stdout may be unwritable too; this error says more
        output.error(text)
    sys.exit(error.exit_code)
