"""Arguments and options that the commands on a finished run share."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from finetune.cli import output
from finetune.errors import RunDirError, check_unicode, printable

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Checkpoint(StrEnum):
    """Which of a run's checkpoints."""

    best = "best"
    last = "last"


Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run directory, as `finetune train` made it.", show_default=False),
]
CheckpointOption = Annotated[Checkpoint, typer.Option(help="best: of the epoch that val liked most.")]


class InferencePrecision(StrEnum):
    """What a trained network computes in."""

    fp32 = "fp32"
    bf16 = "bf16"


PrecisionOption = Annotated[
    InferencePrecision,
    typer.Option(help="bf16: faster where the hardware has it; a few images change their class."),
]
CsvSafeOption = Annotated[
    bool,
    typer.Option(
        "--csv-safe/--no-csv-safe",
        help="In CSV files, a cell that a spreadsheet would take for a formula gets an apostrophe in front, "
        "and control characters become escapes; or each cell as it is.",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.", show_default="the best there is")
]


def show_progress(things: Iterable[T], unit: str, total: int | None = None) -> Iterator[T]:
    """Pass ``things`` on, with a bar on stderr if that is a terminal."""
    if not output.shows_progress():
        yield from things
        return
    from tqdm import tqdm

    yield from tqdm(things, total=total, unit=unit, leave=False, file=sys.stderr)


def name_of(source: str) -> str:
    """What a run on ``source`` is called: after the folder or file, or the set."""
    path = Path(source)
    name = path.resolve().stem if path.exists() else source.rpartition(":")[2]
    return name or "images"


@contextmanager
def keeping_features(where: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what goes on within; what they leave is told.

    Args:
        where: the recipe's ``cache.where``.
    """
    try:
        yield
    except SystemExit:
        if where not in ("memory", "off"):
            output.note("stopped; features computed so far are kept, and the same command goes on from there")
        raise


def warn_of_software_bf16(device: "torch.device", precision: InferencePrecision) -> None:
    """Say so where ``--precision bf16`` makes nothing faster."""
    from finetune.training.compute.precision import computes_bf16

    if precision is InferencePrecision.bf16 and not computes_bf16(device):
        output.warn(f"--precision bf16: this {device.type} computes bf16 in software, slower than fp32.")


def check_run(run: Path) -> None:
    """Find out that ``run`` is none before torch is loaded.

    Raises:
        RunDirError: there is no such folder, or it holds no run.
    """
    from finetune.disk.nearby import did_you_mean, is_run
    from finetune.training.run.files import RESOLVED

    check_unicode("run directory", run, "Rename it.")
    name = printable(run)
    if not run.is_dir():
        hint = did_you_mean(str(run), is_run) or " Give the run directory that `finetune train` printed."
        raise RunDirError(f"{name}: no such folder.{hint}")
    if not (run / RESOLVED).is_file():
        inside = next((each for each in sorted(run.glob("*")) if is_run(str(each))), None)
        hint = "" if inside is None else f" There are runs in it: give one, such as {printable(str(inside))}."
        raise RunDirError(f"{name}: not a run directory (it has no {RESOLVED}).{hint}")
