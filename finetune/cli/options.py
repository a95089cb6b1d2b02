"""The arguments and options that several commands share, each spelled once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Checkpoint(StrEnum):
    """A checkpoint of a run."""

    best = "best"
    last = "last"


class InferencePrecision(StrEnum):
    """The precision of forward passes."""

    fp32 = "fp32"
    bf16 = "bf16"


def run_dir_option(help: str, default: str) -> Any:
    return typer.Option("--run-dir", metavar="DIR", help=help, show_default=default)


def plot_option(help: str, default: str | bool) -> Any:
    return typer.Option("--plot", metavar="FILE.png", help=help, show_default=default)


RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).", show_default=False)
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Images, as data.source names them: a folder, a CSV file or a known set.",
        show_default=False,
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory of `finetune train`.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key: train.phases.0.lr=1e-3. Repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 or mps.", show_default="the best available"),
]
CheckpointOption = Annotated[
    Checkpoint, typer.Option(help="The checkpoint: best on val, or the last of the training.")
]
PrecisionOption = Annotated[
    InferencePrecision,
    typer.Option(help="bf16 is faster on hardware that has it; it changes the class of a few images."),
]
CsvSafeOption = Annotated[
    bool,
    typer.Option(
        "--csv-safe/--no-csv-safe",
        help="Keep spreadsheets from running a CSV cell as a formula: such a cell gets a leading apostrophe, "
        "and control characters become escapes.",
    ),
]
BATCH_SIZE = {"min": 1, "max": 1_000_000, "metavar": "N", "help": "Images per forward pass."}
