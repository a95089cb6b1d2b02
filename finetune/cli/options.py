"""The arguments and options that several commands share, each spelled once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from finetune.decision.wanted import Wanted
from finetune.errors import UserError


class Checkpoint(StrEnum):
    """A checkpoint of a run."""

    best = "best"
    last = "last"


class SplitName(StrEnum):
    """A split of a run's images."""

    train = "train"
    val = "val"
    test = "test"


class SetsName(StrEnum):
    """A kind of prediction sets (:mod:`finetune.decision.conformal`)."""

    smallest = "smallest"
    adaptive = "adaptive"
    per_class = "per-class"


class InferencePrecision(StrEnum):
    """The precision of forward passes."""

    fp32 = "fp32"
    bf16 = "bf16"


def argument(help: str, metavar: str) -> Any:
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def option(help: str, metavar: str | None = None, default: str | bool = False, **limits: Any) -> Any:
    """An option with a value. ``default`` is how the help describes it; False: not, True: as it is."""
    return typer.Option(help=help, metavar=metavar, show_default=default, **limits)


def flag(name: str, help: str) -> Any:
    return typer.Option(name, help=help)


def run_dir(help: str, default: str) -> Any:
    return typer.Option("--run-dir", metavar="DIR", help=help, show_default=default)


def plot(help: str, default: str | bool) -> Any:
    return typer.Option("--plot", metavar="FILE.png", help=help, show_default=default)


RecipeFile = Annotated[Path, argument("A recipe file (YAML).", "RECIPE")]
Source = Annotated[
    str, argument("Images, as data.source names them: a folder, a CSV file or a known set.", "SOURCE")
]
RunDir = Annotated[Path, argument("A run directory of `finetune train`.", "RUN")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key: train.phases.0.lr=1e-3. Repeatable."
    ),
]
Json = Annotated[bool, flag("--json", "Print JSON instead of text.")]
Overwrite = Annotated[bool, flag("--overwrite", "Replace what is there already.")]
Resume = Annotated[bool, flag("--resume", "Continue from the last checkpoint.")]
Device = Annotated[str | None, option("cpu, cuda, cuda:1 or mps.", "DEVICE", "the best available")]
WhichCheckpoint = Annotated[
    Checkpoint, typer.Option(help="The checkpoint: best on val, or the last of the training.")
]
Precision = Annotated[
    InferencePrecision,
    typer.Option(help="bf16 is faster on hardware that has it; it changes the class of a few images."),
]
CsvSafe = Annotated[
    bool,
    typer.Option(
        "--csv-safe/--no-csv-safe",
        help="Keep spreadsheets from running a CSV cell as a formula: such a cell gets a leading apostrophe, "
        "and control characters become escapes.",
    ),
]


def batch_size(default: str | bool) -> Any:
    return option("Images per forward pass.", "N", default, min=1, max=1_000_000)


Coverage = Annotated[
    float | None,
    option(
        "Prediction sets: the classes that fit an image. They hold the true class for this share of images.",
        "SHARE",
    ),
]
Sets = Annotated[
    SetsName | None,
    option(
        "With --coverage: the smallest sets on average; adaptive ones, larger for hard images; or per class, "
        "with the coverage within each class.",
        default="smallest",
    ),
]
Abstain = Annotated[
    float | None,
    option("Answer only images that are sure enough to reach this accuracy among them.", "ACCURACY"),
]


def wanted(top: int | None, coverage: float | None, sets: SetsName | None, abstain: float | None) -> Wanted:
    """What the flags want of a prediction.

    Raises:
        UserError: one is out of range, or ``sets`` stands without ``coverage``.
    """
    if sets is not None and coverage is None:
        raise UserError(f"--sets {sets.value} goes with --coverage SHARE.")
    return Wanted(top, coverage, "smallest" if sets is None else sets.value, abstain)
