"""``finetune doctor SOURCE``: examine the images before anything is trained on them."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output, table
from finetune.cli.run_options import show_progress
from finetune.errors import GateMissedError, UserError, printable

if TYPE_CHECKING:
    from finetune.strategy.doctor.examine import Report

FILES_SHOWN = 4


def doctor(
    source: Annotated[
        str,
        typer.Argument(
            help="What a recipe's data.source may be: a folder, a CSV file, a known set.", show_default=False
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all files.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there is any finding.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="How the source is read: data.split_column, data.layout. Repeatable.",
        ),
    ] = None,
) -> None:
    """Find what would spoil a training: broken files, copies, leakage between the splits, classes too small.

    Nothing is changed. Near-duplicates are found among all images, mirrored ones too.
    """
    for each in set_ or []:
        if not each.startswith("data."):
            raise UserError(f"--set {printable(each)}: the doctor takes keys of data only.")
    report = examined(source, set_ or [])
    if as_json:
        output.data(json.dumps(report.to_dict(), indent=2))
    else:
        _show(report)
    if strict and report.findings:
        number = "1 finding" if len(report.findings) == 1 else f"{len(report.findings)} findings"
        raise GateMissedError(f"{number}, and --strict allows none")


def examined(source: str, overrides: Sequence[str] = ()) -> "Report":
    """The doctor's report on ``source``, with its progress shown; of ``overrides``, those of data count."""
    from finetune.data.dataset import SourceOptions
    from finetune.strategy.doctor.examine import examine

    reading = SourceOptions()
    if of_data := [each for each in overrides if each.startswith("data.")]:
        from finetune.recipe.load import minimal_recipe
        from finetune.training.setup.prepare import reading_of

        reading = reading_of(minimal_recipe(source, "resnet18", overrides=of_data, name="doctor").data)
    return examine(source, watch=lambda looks, total: show_progress(looks, "image", total), reading=reading)


def _show(report: "Report") -> None:
    facts = report.facts
    for split, counts in report.classes.items():
        smallest, largest = min(counts.values()), max(counts.values())
        span = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
        total = sum(counts.values())
        output.data(f"{split:<6} {total:,} images that can be read, {len(counts)} classes of {span}")
    if facts["readable"]:
        sides = " x ".join(
            f"{facts[side]['min']:g} to {facts[side]['max']:g}" for side in ("width", "height")
        )
        output.data(
            f"size   {sides} px, aspect ratio {facts['aspect']['min']:.2f} to {facts['aspect']['max']:.2f}"
        )
        shares = [
            ("grey", "grey_share"),
            ("with alpha", "alpha_share"),
            ("EXIF-rotated", "exif_rotated_share"),
        ]
        output.data("shares " + ", ".join(f"{output.percent(facts[key])} {name}" for name, key in shares))
    for note in report.notes:
        output.data(f"note   {printable(note)}")
    output.data("")
    if not report.findings:
        output.data("Nothing found.")
        return
    rows = [(finding.kind, finding.message, _files(finding.files)) for finding in report.findings]
    table.show([("finding", False), ("what", False), ("files", False)], rows)


def _files(names: tuple[str, ...]) -> str:
    shown = "\n".join(printable(name) for name in names[:FILES_SHOWN])
    more = len(names) - FILES_SHOWN
    return f"{shown}\nand {more} more (--json lists all)" if more > 0 else shown
