"""The command ``finetune``: its sub-commands, and how an error ends it.

Of the sub-commands only the one that is called is loaded. The others stand in the list with their names and
what they do, so that ``finetune --help`` need not load fifteen files to print as many lines.
"""

import contextlib
import os
import sys
from collections.abc import Container
from importlib import import_module
from typing import Annotated, NamedTuple, NoReturn, TextIO, cast

import typer

import finetune
from finetune.cli import output
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
from finetune.offline import forbid


class _Command(NamedTuple):
    """A function, or a ``typer.Typer``, of the file in ``finetune.cli`` that is called as the sub-command."""

    name: str
    help: str


# In the order in which a user comes to them, each with the first line of its own help.
COMMANDS = {
    "doctor": _Command(
        "doctor",
        "Find what would spoil a training: broken files, copies, leakage between the splits, classes too "
        "small.",
    ),
    "advise": _Command(
        "advise",
        "Measure the images, say which fine-tuning fits them and why, and write the recipe.",
    ),
    "probe": _Command(
        "probe",
        "Linear SVM, logistic regression, nearest class mean and nearest neighbours on a network's features.",
    ),
    "rank": _Command(
        "rank",
        "Rank source networks on the training images: a probe's cross-validated accuracy, quick scores, "
        "cost.",
    ),
    "lr": _Command(
        "lr",
        "Raise the learning rate until the loss explodes, and suggest one, for the recipe's first phase.",
    ),
    "train": _Command(
        "train",
        "Fine-tune a network as RECIPE says, or as `finetune advise` would say of IMAGES.",
    ),
    "cv": _Command(
        "cv",
        "Train on all folds but one, for each fold, and judge every image by the network that did not "
        "see it.",
    ),
    "compare": _Command(
        "compare",
        "Compare on the same images: accuracy, difference and its interval, McNemar's test, curves, cost.",
    ),
    "eval": _Command(
        "evaluate",
        "Measure top-1 with its 95 % interval, loss, per-class metrics, confusion and calibration.",
    ),
    "predict": _Command(
        "predict",
        "Classify images. One that cannot be read is reported on its line; the others go on.",
    ),
    "export": _Command(
        "export",
        "Write the network with its class names and preprocessing; only if it agrees with the run is it "
        "kept.",
    ),
    "layers": _Command(
        "layers",
        "Print the numbered layers of a backbone, in the order in which they run, and its head.",
    ),
    "backbones": _Command(
        "backbones",
        "List the backbones that can be fine-tuned, with the cost and accuracy of their default weights.",
    ),
    "recipe": _Command("recipe_app", "Write, check and print recipes, without running them."),
    "cache": _Command(
        "cache_app",
        "Look at what is kept on disk (features, decoded images), or remove it.",
    ),
}
# By which a shell says that it wants the words that could come next.
COMPLETING = "_FINETUNE_COMPLETE"
OFFLINE = "--offline"


def command_line(loaded: Container[str]) -> typer.Typer:
    """The command line, with those of its sub-commands loaded that ``loaded`` names."""
    app = typer.Typer(
        help="Carry a pretrained network over to your own images, and know how good it really is.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for word, command in COMMANDS.items():
        if word not in loaded:
            app.command(word, help=command.help)(_not_loaded)
            continue
        found = getattr(import_module(f"finetune.cli.{word}"), command.name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=word)
        else:
            app.command(word)(found)
    return app


def _not_loaded() -> None:
    raise AssertionError("a sub-command runs that was not loaded")


def _version(asked: bool) -> None:
    if asked:
        output.data(f"finetune {finetune.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            *output.QUIET,
            help="No notes and no progress: data, warnings and errors alone. Before or after a command.",
        ),
    ] = False,
    offline: Annotated[
        bool,
        typer.Option(OFFLINE, help="Download nothing; so does FINETUNE_OFFLINE=1 in the environment."),
    ] = False,
) -> None:
    if offline:
        forbid()
    from finetune.cli.process import settle_process

    settle_process()
    if quiet:
        output.be_quiet(True)
    output.show_log()


def _without_quiet(words: list[str]) -> list[str]:
    """The words but for ``--quiet``, which may stand anywhere before ``--``; it takes effect at once."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word not in output.QUIET]
    output.be_quiet(len(kept) < end)
    return kept + words[end:]


def _called(words: list[str]) -> Container[str]:
    """Which sub-commands have to be loaded. None of the options before their names takes a value."""
    if COMPLETING in os.environ:
        return COMMANDS
    return [word for word in words if not word.startswith("-")][:1]


def _offline_first(words: list[str]) -> list[str]:
    """``--offline``, which is every command's, may stand after a command too."""
    end = words.index("--") if "--" in words else len(words)
    others = [word for word in words[:end] if word != OFFLINE]
    return words if len(others) == end else [OFFLINE, *others, *words[end:]]


def main() -> None:
    """Run the command line. An expected error is one message on stderr and its exit code, no traceback."""
    with contextlib.redirect_stdout(cast(TextIO, Stdout(sys.stdout))):
        try:
            try:
                if COMPLETING not in os.environ:
                    sys.argv[1:] = _offline_first(_without_quiet(sys.argv[1:]))
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
    """What may come up anywhere, as a message: no memory, no permission, a package that cannot load."""
    if is_out_of_memory(error):
        return NoMemoryError(
            f"out of memory ({first_line(error)}). Free some, or ask for less: a smaller "
            "train.batch_size, data.image_size or model.backbone. A limit (`ulimit -v`) can be raised. What "
            "was saved is intact; a run goes on with --resume."
        )
    if is_out_of_files(error):
        return FinetuneError(
            f"{first_line(error)}. Allow this process more of them (`ulimit -n 1024`), or have it need fewer "
            "(data.workers: 0, cache: {decoded: off}). What was saved is intact; a run goes on with --resume."
        )
    if is_out_of_threads(error):
        return FinetuneError(
            f"no more processes or threads ({first_line(error)}). Allow more (`ulimit -u`), or ask for fewer "
            "(data.workers: 0, OMP_NUM_THREADS=1). What was saved is intact; a run goes on with --resume."
        )
    if isinstance(error, PermissionError) and error.filename is not None:
        return UserError(
            f"{printable(os.fsdecode(error.filename))}: this user has no permission "
            f"({error.strerror or 'denied'}). Change who may read or write it, or give another place."
        )
    package = _broken_package(error)
    return None if package is None else BrokenPackageError(package, error)


def _broken_package(error: Exception) -> str | None:
    """The package whose import ended in ``error``; None of any other error, and of files of ours."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        return None if top == finetune.__name__ else top
    trace = error.__traceback__
    while trace is not None:
        # A file that is being imported runs as <module>; the first that is not ours is what was asked for.
        frame, trace = trace.tb_frame, trace.tb_next
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and top not in (finetune.__name__, "__main__"):
            return top
    return None


def _end(error: FinetuneError) -> NoReturn:
    # A recipe's lines begin with their place, FILE:LINE:COLUMN, which editors and terminals follow.
    text = str(error) if isinstance(error, RecipeError) else f"error: {error}"
    with contextlib.suppress(SaveError):  # Of stdout: this error says more.
        output.error(text)
    sys.exit(error.exit_code)
