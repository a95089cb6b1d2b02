"""``finetune predict RUN|MODEL.onnx PATH...``: class names and probabilities for images."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.api.model import load
from finetune.api.paths import check_model
from finetune.cli import options, output
from finetune.cli.options import argument, flag, option
from finetune.decision.wanted import Wanted
from finetune.errors import CheckpointError, FinetuneError, UserError, printable

if TYPE_CHECKING:
    from finetune.checkpoint.card import ModelCard
    from finetune.deploy.predict import Prediction
    from finetune.deploy.prediction_text import Writer
    from finetune.deploy.sorting import SortCounts


# Why a model may know no novelty.
UNKNOWN = "train.novelty is none, it is the checkpoint `last`, or an earlier version wrote it"


class By(StrEnum):
    """How an image gets into the folder of its class."""

    copy = "copy"
    link = "link"
    move = "move"


def predict(
    model: Annotated[
        Path,
        argument("A run directory, or an ONNX file of `finetune export`.", "RUN|MODEL.onnx"),
    ],
    paths: Annotated[
        list[str],
        argument(
            "Images, folders with their subfolders, or quoted patterns: 'a/**/*.jpg'. A single - reads "
            "paths from standard input, one per line.",
            "PATH...",
        ),
    ],
    null: Annotated[
        bool, typer.Option("--null", "-0", help="With -: paths end in NUL, as `find -print0` writes them.")
    ] = False,
    top: Annotated[
        int, option("Classes per image, most probable first.", "N", True, min=1, max=1_000_000)
    ] = 5,
    coverage: options.Coverage = None,
    sets: options.Sets = None,
    abstain: options.Abstain = None,
    csv: Annotated[Path | None, option("Write a CSV file.", "FILE.csv")] = None,
    csv_safe: options.CsvSafe = True,
    jsonl: Annotated[bool, flag("--jsonl", "Print one JSON object per image.")] = False,
    move_into: Annotated[
        Path | None,
        option("Sort the images into FOLDER, one folder per class, and write sorted.csv there.", "FOLDER"),
    ] = None,
    by: Annotated[
        By | None,
        option("With --move-into: copy the images, link them symbolically, or move them.", default="copy"),
    ] = None,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
    batch_size: Annotated[int, options.batch_size(True)] = 32,
    precision: options.Precision = options.InferencePrecision.fp32,
    device: options.Device = None,
) -> None:
    """Predict the classes of images with a run or an exported ONNX file.

    An image that cannot be read is reported on its own line, and the others are still predicted. The exit
    code is then 1.
    """
    check_model(model, precision.value)
    if csv is not None:
        from finetune.disk.outputs import check_output

        check_output(csv)
    wanted = options.wanted(top, coverage, sets, abstain)
    if by is not None and move_into is None:
        raise UserError(f"--by {by.value} goes with --move-into FOLDER.")
    from finetune.cli.progress import open_progress
    from finetune.deploy.inputs import STDIN, check_inputs, expand, read_list

    if null and STDIN not in paths:
        raise UserError("--null goes with -, for the paths on standard input.")
    check_inputs(paths)
    if STDIN in paths and sys.stdin is not None and sys.stdin.isatty():
        output.note("reading paths, one per line; Ctrl-D ends them")
    listed = read_list(getattr(sys.stdin, "buffer", None), null=null) if STDIN in paths else iter(())
    found = expand(paths, listed)
    done = failed = seen = novel = 0
    with contextlib.ExitStack() as stack:
        opened = load(model, checkpoint=checkpoint.value, device=device, precision=precision.value)
        output.note(f"computed in {precision.value}")
        classes, point = opened.classes, opened.card.decision.working_point
        if point is not None:
            output.note(f"decides {point.in_words}")
        if opened.card.decision.novelty is None:
            output.note(f"does not know which images are unlike the training images: {UNKNOWN}")
        writers = stack.enter_context(_writers(opened.card, csv, jsonl, wanted, csv_safe))
        sorter = None
        if move_into is not None:
            from finetune.deploy.sorting import sorting

            sorter = stack.enter_context(sorting(move_into, classes, (by or By.copy).value))
            found, writers = sorter.unsorted(found), [*writers, sorter]
        batches: Iterable[list[Prediction]] = opened.predict_batches(
            found,
            top=top,
            coverage=coverage,
            sets=wanted.sets,
            abstain=abstain,
            batch_size=batch_size,
        )
        for promise in opened.card.decision.promises(wanted, classes):
            output.note(promise)
        # A table on the terminal is progress enough: a bar would get between its lines.
        if csv is not None or not sys.stdout.isatty():
            progress = stack.enter_context(open_progress())
            batches = progress.reporter.watch(batches, "batch")
        count_seen = _counter_of_seen(model)
        for batch in batches:
            # Before the writers: --by move takes the files away.
            seen += count_seen([each.name for each in batch if each.error is None])
            for writer in writers:
                writer.write(batch)
            done += len(batch)
            failed += sum(prediction.error is not None for prediction in batch)
            novel += sum(prediction.is_novel is True for prediction in batch)
    if csv is not None:
        output.note(f"{printable(csv)}: {done:,} images")
    if sorter is not None and move_into is not None:
        _report_sorting(sorter.counts, move_into, by or By.copy)
    if seen:
        output.note(
            f"{seen:,} of {done:,} images are in the run's train or val: expect lower accuracy on others"
        )
    if novel:
        output.note(
            f"{novel:,} of {done:,} images are unlike the training images, and perhaps none of the classes"
        )
    if failed:
        raise FinetuneError(f"{failed:,} of {done:,} images could not be predicted; each line says why")


def _report_sorting(counts: "SortCounts", target: Path, by: By) -> None:
    from finetune.deploy.place_image import PLACED
    from finetune.deploy.sorted_table import TABLE

    where = printable(str(target))
    folders = f" into {len(counts.classes)} folder{'s' if len(counts.classes) != 1 else ''}"
    parts = [f"{counts.placed:,} {PLACED[by.value]}{folders if counts.placed else ''}"]
    parts += [f"{counts.already_there:,} there already"] if counts.already_there else []
    parts += [f"{counts.unreadable:,} not readable, left where they are"] if counts.unreadable else []
    parts += [f"{counts.skipped:,} in its class folders, skipped"] if counts.skipped else []
    output.note(
        f"{where}: {', '.join(parts)}"
        + (f"; {TABLE} has each" if counts.classes or counts.unreadable else "")
    )
    if counts.in_other_class:
        output.warn(
            f"{where}: {counts.in_other_class:,} lie in another class's folder too, from an earlier sorting"
        )


def _counter_of_seen(model: Path) -> "Callable[[list[str]], int]":
    """Make a function that counts the files that a run was trained on or chosen by; 0 for an ONNX file."""
    if model.is_dir():
        from finetune.training.evaluation_images import SEEN
        from finetune.training.run.own_data import read_record

        try:
            if (record := read_record(model)) is not None:
                return lambda paths: len(paths) - record.splits_by_content(paths, SEEN).count(None)
        except CheckpointError as error:
            output.warn(str(error))
    return lambda paths: 0


@contextlib.contextmanager
def _writers(
    card: "ModelCard", csv: Path | None, jsonl: bool, wanted: Wanted, csv_safe: bool
) -> "Iterator[list[Writer]]":
    """Yield the writers of predictions: a table or JSON on stdout, a CSV file, or both."""
    from finetune.deploy.prediction_text import CsvWriter, JsonWriter, TableWriter
    from finetune.disk.outputs import TextOutput, publish, staging

    writers: list[Writer] = []
    if jsonl:
        writers.append(JsonWriter(sys.stdout))
    elif csv is None:
        writers.append(TableWriter(sys.stdout, card.classes))
    if csv is None:
        yield writers
        return
    with staging(csv) as stage:
        staged = stage / "predictions"
        with TextOutput(staged, csv) as text:
            writers.append(CsvWriter(text, len(card.classes), wanted, safe=csv_safe, decision=card.decision))
            yield writers
        publish(staged, csv)
