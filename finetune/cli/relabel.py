"""``finetune relabel SOURCE --from FILE.csv -o labels.csv``: a source with corrected labels."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import options, output
from finetune.cli.options import flag
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.strategy.doctor.relabel import Relabelled


def relabel(
    source: options.Source,
    table: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="FILE.csv",
            help="The table of `finetune doctor --labels --csv`, with the right classes in new_label.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE.csv", help="The source to write.", show_default=False),
    ],
    accept: Annotated[
        bool, flag("--accept", "Rows with an empty new_label take the suggested class.")
    ] = False,
    new_classes: Annotated[bool, flag("--new-classes", "Allow classes that SOURCE does not have.")] = False,
    overwrite: options.Overwrite = False,
    csv_safe: options.CsvSafe = True,
    as_json: options.Json = False,
    set_: options.Set = None,
) -> None:
    """Write a CSV source with corrected labels, from the reviewed table of `finetune doctor`.

    A row of the table changes a label if its column new_label has another class. No image is moved or
    changed, and every image stays in its split. --set takes keys of data, as for the training.
    """
    for each in set_ or []:
        if not each.startswith("data."):
            raise UserError(f"--set {printable(each)}: relabel takes keys of data only.")
    from finetune.disk.outputs import check_new_file

    _refuse_inputs(out, table, source)
    check_new_file(out, overwrite=overwrite, option="--overwrite replaces it. ")
    from finetune.recipe.load import minimal_recipe
    from finetune.strategy.doctor.relabel import relabel as apply

    recipe = minimal_recipe(source, "resnet18", overrides=set_ or [], name="relabel")
    found = apply(recipe.data, table, accept=accept, new_classes=new_classes, seed=recipe.seed)
    found.write(out, safe=csv_safe)
    if as_json:
        output.json_data(_summary(found, out), indent=2)
    else:
        _show(found, out)


def _refuse_inputs(out: Path, table: Path, source: str) -> None:
    """Refuse to write over what is read, or into a folder of images."""
    target, given = os.path.realpath(out), os.path.realpath(Path(source).expanduser())
    if target == os.path.realpath(table):
        raise UserError(f"{printable(out)}: is the table of --from. Choose another name.")
    if target == given:
        raise UserError(f"{printable(out)}: is SOURCE itself, which stays as it is. Choose another name.")
    if target.startswith(os.path.join(given, "")):  # noqa: PTH118
        raise UserError(
            f"{printable(out)}: lies in SOURCE, and would be a file of the data set. Choose a place outside."
        )


def _summary(found: "Relabelled", out: Path) -> dict[str, object]:
    return {
        "source": str(out),
        "images": sum(found.counts().values()),
        "splits": found.counts(),
        "changed": [
            {"label": old, "new_label": new, "images": number} for (old, new), number in found.changed.items()
        ],
        "confirmed": found.confirmed,
        "undecided": found.undecided,
        "notes": list(found.notes),
    }


def _show(found: "Relabelled", out: Path) -> None:
    changes, total = sum(found.changed.values()), sum(found.counts().values())
    if found.changed:
        pairs = sorted(found.changed.items(), key=lambda each: (-each[1], each[0]))
        output.table(
            [
                {"label": printable(old), "new label": printable(new), ">images": f"{number:,}"}
                for (old, new), number in pairs
            ]
        )
        output.data("")
    output.data(
        f"{changes:,} of {total:,} labels changed; {found.confirmed:,} confirmed, {found.undecided:,} "
        "undecided"
    )
    splits = ", ".join(f"{number:,} {name}" for name, number in found.counts().items() if name != "all")
    for note in found.notes:
        output.data(f"note   {printable(note)}")
    output.note(f"source       {printable(out)}: {splits or f'{total:,} images'}")
    output.note(f"Next:        finetune train {printable(out)}, or data.source: {printable(out)} in a recipe")
