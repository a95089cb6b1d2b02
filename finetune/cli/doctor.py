"""``finetune doctor SOURCE``: check images before training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from finetune.api.advice import examine, examine_folds, is_folds, write_sheet
from finetune.cli import options, output
from finetune.cli.options import argument, flag, option
from finetune.disk.nearby import is_run
from finetune.errors import GateMissedError, UserError, printable
from finetune.recipe.catalog import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from finetune.strategy.doctor.doubts import DoubtfulLabels
    from finetune.strategy.doctor.examine import Report

FILES_SHOWN = 4
DOUBTS_SHOWN = 50
DOUBTFUL = "doubtful-label"


def doctor(
    source: Annotated[
        str,
        argument(
            "Images, as data.source names them: a folder, a CSV file or a known set. With --labels also a "
            "folder of `finetune cv`.",
            "SOURCE",
        ),
    ],
    as_json: options.Json = False,
    strict: Annotated[bool, flag("--strict", "Exit with 1 if there is any finding.")] = False,
    near_copies: Annotated[
        bool,
        option(
            "Search for near-duplicates: recompressed, resized, cropped or mirrored copies.", default=True
        ),
    ] = True,
    labels: Annotated[
        bool,
        flag(
            "--labels", "Also search for doubtful labels: images that look like another class. Needs torch."
        ),
    ] = False,
    backbone: Annotated[
        str | None,
        option("With --labels: the network that looks at the images.", "NAME", "efficientnet_lite0"),
    ] = None,
    csv: Annotated[
        Path | None,
        option("With --labels: write the doubtful labels to a table, for `finetune relabel`.", "FILE.csv"),
    ] = None,
    csv_safe: options.CsvSafe = True,
    sheet: Annotated[
        Path | None,
        option("With --labels: write a page that shows the images with doubtful labels.", "FILE.html"),
    ] = None,
    overwrite: options.Overwrite = False,
    set_: options.Set = None,
    device: options.Device = None,
) -> None:
    """Check your images before training: broken files, duplicates, leaks between splits, small classes.

    No file is changed. --set takes keys of data, such as data.split_column.
    """
    for each in set_ or []:
        if not each.startswith("data."):
            raise UserError(f"--set {printable(each)}: the doctor takes keys of data only.")
    given = {"--backbone": backbone, "--csv": csv, "--sheet": sheet, "--device": device}
    for name, value in given.items():
        if value is not None and not labels:
            raise UserError(f"{name} goes with --labels.")
    for target in (csv, sheet):
        if target is not None:
            from finetune.disk.outputs import check_new_file

            check_new_file(target, overwrite=overwrite, option="--overwrite replaces it. ")
    if is_run(source):
        raise UserError(
            f"{printable(source)}: a run, not images. `finetune report {printable(source)}` lists its "
            "doubtful labels; to examine the images, give these."
        )
    folds = is_folds(source)
    if folds and not labels:
        raise UserError(
            f"{printable(source)}: a folder of `finetune cv`. Its predictions show doubtful labels: add "
            "--labels. To examine the images, give these."
        )
    if folds and (backbone is not None or set_):
        raise UserError(
            f"{printable(source)}: its own networks look at its own images. Leave out --backbone and --set."
        )
    labels_by = (backbone or DEFAULT_BACKBONE) if labels else None
    from finetune.cli.progress import open_progress

    with open_progress() as progress:
        if folds:
            report = examine_folds(source, progress.reporter, device)
        else:
            report = examine(
                source,
                set_ or [],
                progress.reporter,
                near_copies=near_copies,
                labels_by=labels_by,
                device=device,
            )
    if report.doubts is not None and csv is not None:
        from finetune.disk.outputs import staging, write_table

        with staging(csv) as stage:
            write_table(report.doubts.table(), stage, csv, safe=csv_safe)
    if report.doubts is not None and sheet is not None:
        write_sheet(report.doubts, source, sheet)
    if as_json:
        output.json_data(report.to_dict(), indent=2)
    else:
        _show(report)
    if report.doubts is not None:
        _say_next(report.doubts, source, csv, sheet)
    # Among a few hundred images, some always look like another class.
    certain = [each for each in report.findings if each.kind != DOUBTFUL]
    if strict and certain:
        number = "1 finding" if len(certain) == 1 else f"{len(certain)} findings"
        raise GateMissedError(f"{number}, and --strict allows none")


def _say_next(doubts: "DoubtfulLabels", place: str, csv: Path | None, sheet: Path | None) -> None:
    from finetune.data.sources.read import is_path

    if sheet is not None:
        output.note(f"sheet        {printable(sheet)}")
    if csv is not None:
        output.note(f"table        {printable(csv)}")
    if not is_path(doubts.source):
        return  # the images of a known set have no labels of the user's
    if csv is not None:
        out = "labels.csv" if Path(doubts.source).name != "labels.csv" else "labels2.csv"
        output.note(
            f"Next:        write the right class of an image in the column new_label, then\n"
            f"             finetune relabel {printable(doubts.source)} --from {printable(csv)} -o {out}"
        )
    elif doubts.found and sheet is None:
        output.note(
            f"Next:        finetune doctor {printable(place)} --labels --csv doubts.csv --sheet doubts.html\n"
            "             (a table to write the right classes in, and a page to look at the images)"
        )


def _show(report: "Report") -> None:
    facts = report.facts
    for split, counts in report.classes.items():
        smallest, largest = min(counts.values()), max(counts.values())
        span = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
        total = sum(counts.values())
        output.data(f"{split:<6} {total:,} images that can be read, {len(counts)} classes of {span}")
    if "width" in facts:
        sides = " x ".join(
            f"{facts[side]['min']:g} to {facts[side]['max']:g}" for side in ("width", "height")
        )
        output.data(
            f"size   {sides} px, aspect ratio {facts['aspect']['min']:.2f} to {facts['aspect']['max']:.2f}"
        )
        shares = {"grey": "grey_share", "with alpha": "alpha_share", "EXIF-rotated": "exif_rotated_share"}
        named = [f"{output.percent(facts[key])} {name}" for name, key in shares.items()]
        output.data(f"shares {', '.join(named)}")
    for note in report.notes:
        output.data(f"note   {printable(note)}")
    if not facts.get("near_copies_searched", True):
        output.data("note   near-duplicates were not searched (--no-near-copies)")
    output.data("")
    doubts = [each for each in report.findings if each.kind == DOUBTFUL]
    others = [each for each in report.findings if each.kind != DOUBTFUL]
    if not report.findings:
        output.data("Nothing found.")
    if others:
        output.table(
            [{"finding": each.kind, "what": each.message, "files": _files(each.files)} for each in others]
        )
    if doubts:
        if others:
            output.data("")
        output.data(
            f"{len(doubts):,} images look like another class than their label, the most doubtful first:"
        )
        output.table([{"image": each.files[0], "what": each.message} for each in doubts[:DOUBTS_SHOWN]])
        if len(doubts) > DOUBTS_SHOWN:
            output.data(f"and {len(doubts) - DOUBTS_SHOWN:,} more (--json lists all)")


def _files(names: tuple[str, ...]) -> str:
    shown = "\n".join(printable(name) for name in names[:FILES_SHOWN])
    more = len(names) - FILES_SHOWN
    return f"{shown}\nand {more} more (--json lists all)" if more > 0 else shown
