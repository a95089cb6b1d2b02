"""``finetune predict RUN|MODEL.onnx PATH...``: class names and probabilities for images."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output
from finetune.cli.run_options import (
    Checkpoint,
    CheckpointOption,
    CsvSafeOption,
    DeviceOption,
    InferencePrecision,
    PrecisionOption,
    check_run,
    show_progress,
    warn_of_software_bf16,
)
from finetune.errors import FinetuneError, UserError, printable

if TYPE_CHECKING:
    from finetune.deploy.predict import Classifier
    from finetune.deploy.prediction_text import Writer
    from finetune.deploy.sorting import Counts


class By(StrEnum):
    """How images are sorted into folders."""

    copy = "copy"
    link = "link"
    move = "move"


def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="RUN|MODEL.onnx", help="A run directory, or what `finetune export` wrote."),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders (all below them), or quoted patterns: 'a/**/*.jpg'. A single - reads "
            "paths from standard input, one a line.",
        ),
    ],
    null: Annotated[
        bool, typer.Option("--null", "-0", help="With -: paths end in NUL, as `find -print0` writes them.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many of the best classes to give.")] = 5,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV file.", show_default=False)
    ] = None,
    csv_safe: CsvSafeOption = True,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print a JSON object an image.")] = False,
    move_into: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Sort the images into FOLDER: a folder a class, and a table, sorted.csv. They are "
            "copied, unless --by says otherwise.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        By | None,
        typer.Option(help="How --move-into sorts: symbolic links, or files moved.", show_default="copy"),
    ] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images at a time.")] = 32,
    precision: PrecisionOption = InferencePrecision.fp32,
    device: DeviceOption = None,
) -> None:
    """Classify images. One that cannot be read is reported on its line; the others go on.

    Exit code 1 if any could not be read.
    """
    _check_model(model, precision)
    if csv is not None:
        from finetune.disk.outputs import check_output

        check_output(csv)
    if by is not None and move_into is None:
        raise UserError(f"--by {by.value} goes with --move-into FOLDER.")
    from finetune.deploy.inputs import STDIN, check_inputs, expand, read_list
    from finetune.deploy.predict import predict_batches

    if null and STDIN not in paths:
        raise UserError("--null goes with -, for the paths on standard input.")
    check_inputs(paths)
    if STDIN in paths and sys.stdin is not None and sys.stdin.isatty():
        output.note("reading paths, one a line; Ctrl-D ends them")
    listed = read_list(getattr(sys.stdin, "buffer", None), null=null) if STDIN in paths else iter(())
    found = expand(paths, listed)
    done = failed = seen = 0
    with contextlib.ExitStack() as stack:
        classifier = _open(model, checkpoint, precision, device)
        output.note(f"computed in {precision.value}")
        writers = stack.enter_context(_writers(classifier, csv, jsonl, top, csv_safe))
        sorter = None
        if move_into is not None:
            from finetune.deploy.sorting import sorting

            classes = classifier.card.classes
            sorter = stack.enter_context(sorting(move_into, classes, (by or By.copy).value))
            found, writers = sorter.unsorted(found), [*writers, sorter]
        batches = predict_batches(classifier, found, batch_size=batch_size, top=top)
        # Lines on the terminal are progress enough, and a bar between them would be in the way.
        silent = csv is None and sys.stdout.isatty()
        count_seen = _seen_by(model)
        for batch in batches if silent else show_progress(batches, "batch"):
            # Before the writers: --by move takes the files away.
            seen += count_seen([each.name for each in batch if each.error is None])
            for writer in writers:
                writer.write(batch)
            done += len(batch)
            failed += sum(prediction.error is not None for prediction in batch)
    if csv is not None:
        output.note(f"{printable(csv)}: {done:,} images")
    if sorter is not None and move_into is not None:
        _tell(sorter.counts, move_into, by or By.copy)
    if seen:
        output.note(
            f"{seen:,} of {done:,} images are in the run's train or val: on others it is less often right"
        )
    if failed:
        raise FinetuneError(f"{failed:,} of {done:,} images could not be predicted; each line says why")


def _tell(counts: "Counts", target: Path, by: By) -> None:
    """What sorting came to, each number where it is not 0."""
    from finetune.deploy.sorting import DONE, TABLE

    where = printable(str(target))
    folders = f" into {len(counts.classes)} folder{'s' if len(counts.classes) != 1 else ''}"
    parts = [f"{counts.placed:,} {DONE[by.value]}{folders if counts.placed else ''}"]
    parts += [f"{counts.there:,} there already"] if counts.there else []
    parts += [f"{counts.left:,} not readable, left where they are"] if counts.left else []
    parts += [f"{counts.sorted:,} in its class folders, not looked at"] if counts.sorted else []
    output.note(
        f"{where}: {', '.join(parts)}" + (f"; {TABLE} has each" if counts.classes or counts.left else "")
    )
    if counts.elsewhere:
        output.warn(
            f"{where}: {counts.elsewhere:,} lie in another class's folder too, from an earlier sorting"
        )


def _seen_by(model: Path) -> "Callable[[list[str]], int]":
    """What counts the images among files that a run was trained on or chosen by; 0 of a model in a file."""
    if not model.is_dir():
        return lambda paths: 0
    from finetune.errors import CheckpointError
    from finetune.training.evaluation_images import SEEN
    from finetune.training.run.own_data import read_record

    try:
        record = read_record(model)
    except CheckpointError as error:
        output.warn(str(error))
        record = None
    if record is None:
        return lambda paths: 0
    known = record
    return lambda paths: len(paths) - known.splits_by_content(paths, SEEN).count(None)


def _check_model(model: Path, precision: InferencePrecision) -> None:
    if model.is_dir():
        check_run(model)
    elif not model.exists():
        from finetune.disk.nearby import did_you_mean, is_run

        hint = did_you_mean(str(model), lambda path: is_run(path) or path.lower().endswith(".onnx"))
        raise UserError(f"{printable(str(model))}: no such run directory or ONNX model.{hint}")
    elif model.suffix.lower() != ".onnx":
        raise UserError(f"{printable(str(model))}: neither a run directory nor an .onnx file.")
    elif precision is not InferencePrecision.fp32:
        raise UserError(
            f"--precision {precision.value}: an ONNX model computes in what it was exported in, fp32. "
            "Give the run directory, or leave this out."
        )


def _open(
    model: Path, checkpoint: Checkpoint, precision: InferencePrecision, device: str | None
) -> "Classifier":
    from finetune.deploy.open_model import open_model

    if model.is_dir() and precision is InferencePrecision.bf16:
        from finetune.training.compute.precision import pick_device

        warn_of_software_bf16(pick_device(device), precision)
    return open_model(model, checkpoint=checkpoint.value, precision=precision.value, device=device)


@contextlib.contextmanager
def _writers(
    classifier: "Classifier", csv: Path | None, jsonl: bool, top: int, csv_safe: bool
) -> "Iterator[list[Writer]]":
    """Where the predictions go: to the screen as a table or as JSON, to a CSV file, or both."""
    from finetune.deploy.prediction_text import CsvWriter, JsonWriter, TableWriter
    from finetune.disk.outputs import TextOutput, publish, staging

    classes = classifier.card.classes
    writers: list[Writer] = []
    if jsonl:
        writers.append(JsonWriter(sys.stdout))
    elif csv is None:
        writers.append(TableWriter(sys.stdout, classes))
    if csv is None:
        yield writers
        return
    with staging(csv) as stage:
        staged = stage / "predictions"
        with TextOutput(staged, csv) as text:
            writers.append(CsvWriter(text, min(top, len(classes)), safe=csv_safe))
            yield writers
        publish(staged, csv)
