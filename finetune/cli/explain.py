"""``finetune explain``: what a network looks at, and what its layers have learned.

One function per mode: heat-maps of images, and one for each of ``--layers``, ``--map`` and ``--nearest``.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from finetune.api.model import load
from finetune.api.paths import check_model, check_run
from finetune.cli import options, output
from finetune.cli.options import argument, flag, option
from finetune.errors import FinetuneError, UserError, printable

if TYPE_CHECKING:
    from finetune.api.layers import LayerRequest

# The folder in a run directory that explanations go to.
EXPLAIN = "explain"


class Method(StrEnum):
    """How a heat-map is computed."""

    gradient = "gradient"
    occlusion = "occlusion"


class Asked(NamedTuple):
    """What every mode takes."""

    what: str
    images: list[str]
    out: Path | None
    checkpoint: options.Checkpoint
    as_json: bool
    device: str | None


def explain(
    what: Annotated[str, argument("A run directory; with --layers also a backbone.", "RUN|BACKBONE")],
    images: Annotated[
        list[str] | None,
        argument("Images, folders with their subfolders, or quoted patterns: 'a/**/*.jpg'.", "IMAGE..."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Draw the heat-map of this class, too. Repeatable.",
            show_default="the predicted class",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        option("gradient: fast; occlusion: covers parts of the image, slow.", default="gradient"),
    ] = None,
    layers: Annotated[
        bool, flag("--layers", "Draw what the layers have learned, from first to last.")
    ] = False,
    as_map: Annotated[
        bool, flag("--map", "Draw all images of a split in the plane by their features.")
    ] = False,
    nearest: Annotated[bool, flag("--nearest", "List the training images most like each IMAGE.")] = False,
    split: Annotated[
        options.SplitName | None,
        option("With --map: the split.", default="test, or val if there is no test split"),
    ] = None,
    at: Annotated[
        str | None,
        option(
            "With --layers: which ones, by number or name (`finetune layers`).",
            "1,5,9",
            "five, evenly spaced",
        ),
    ] = None,
    data: Annotated[
        str | None, option("With --layers: the images; with a RUN, where its own are now.", "SOURCE")
    ] = None,
    weights: Annotated[
        str | None, option("With a BACKBONE: as model.weights in a recipe.", "default|none|FILE", "default")
    ] = None,
    out: Annotated[
        Path | None,
        option("Where to write. With --layers, also a file: .png, .svg, .pdf.", "FOLDER", "RUN/explain"),
    ] = None,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Show what a network looks at: heat-maps, what its layers have learned, nearest images."""
    modes = {"--layers": layers, "--map": as_map, "--nearest": nearest}
    given = [name for name, on in modes.items() if on]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: give one of them.")
    mode = given[0] if given else "heat-maps"
    if given and (class_ or method is not None):
        raise UserError(f"--class and --method go with heat-maps, not with {mode}.")
    for name, value in (("--data", data), ("--weights", weights), ("--at", at)):
        if value is not None and not layers:
            raise UserError(f"{name} goes with --layers.")
    if split is not None and not as_map:
        raise UserError("--split goes with --map.")
    asked = Asked(what, images or [], out, checkpoint, as_json, device)
    if mode == "--layers":
        _layers(asked, data, weights, at)
    elif mode == "--map":
        _map(asked, None if split is None else split.value)
    elif mode == "--nearest":
        _nearest(asked)
    else:
        _heat_maps(asked, class_ or [], method or Method.gradient)


def _heat_maps(asked: Asked, classes: list[str], method: Method) -> None:
    run = Path(asked.what)
    check_model(run)
    if not run.is_dir():
        raise UserError(
            f"{printable(run)}: an ONNX file has no gradients and no layers. Give the run directory that "
            "it was exported from."
        )
    if not asked.images:
        raise UserError("give the images to explain: finetune explain RUN IMAGE...")
    from finetune.deploy.inputs import STDIN, check_inputs, expand

    if STDIN in asked.images:
        raise UserError("explain reads no paths from standard input. Give files, folders or patterns.")
    check_inputs(asked.images)
    model = load(run, checkpoint=asked.checkpoint.value, device=asked.device)
    from finetune.cli.progress import open_progress
    from finetune.explain.heatmaps.explanations import check_classes
    from finetune.explain.heatmaps.files import HeatMapWriter, in_words

    check_classes(classes, model.classes)
    folder = asked.out or run / EXPLAIN
    writer = HeatMapWriter(folder, model.classes)
    listed: list[dict[str, object]] = []
    paths = list(dict.fromkeys(expand(asked.images)))
    failed = 0
    with open_progress() as progress:
        explained = model.explain_each(paths, classes, method.value)
        for each in progress.reporter.watch(explained, "image", len(paths)):
            rows = writer.write(each)
            failed += each.error is not None
            listed += rows
            if not asked.as_json:
                output.data(in_words(rows))
    if asked.as_json:
        output.json_data(listed, indent=2)
    elif failed < len(paths):
        output.note(f"{printable(folder)}: heat-maps of {len(paths) - failed:,} images")
    if failed:
        raise FinetuneError(f"{failed:,} of {len(paths):,} images could not be explained; each line says why")


def _layers(asked: Asked, data: str | None, weights: str | None, at: str | None) -> None:
    from finetune.api.layers import LayerRequest

    if len(asked.images) > 1:
        raise UserError("--layers shows the values of one IMAGE. Give one, or none for the first of val.")
    image = Path(asked.images[0]) if asked.images else None
    request = LayerRequest(asked.what, image, data, weights, at)
    request.check()
    from finetune.cli.progress import open_progress
    from finetune.disk.figure import check_figure, write_figure
    from finetune.explain.layers.figure import draw_layers
    from finetune.explain.layers.views import described

    path = _figure_of_layers(request, asked.out)
    check_figure(path)
    with open_progress() as progress:
        views = request.find(
            asked.checkpoint.value,
            asked.device,
            lambda done, total: progress.reporter.work("image", done, total),
        )
    write_figure(draw_layers(views), path)
    rows = described(views)
    if asked.as_json:
        output.json_data({"figure": str(path), "layers": rows}, indent=2)
        return
    output.table(
        [
            {
                ">#": str(row["number"]),
                "layer": row["name"],
                ">sees": f"{row['sees']} px",
                ">moved": "" if row["moved"] is None else f"{row['moved']:.4f}",
                "channels": ", ".join(str(each["channel"]) for each in row["channels"]),
            }
            for row in rows
        ]
    )
    output.note(f"drawn: {printable(path)}")


def _figure_of_layers(request: "LayerRequest", out: Path | None) -> Path:
    if out is not None and out.suffix and not out.is_dir():
        return out
    if request.of_run:
        return (out or Path(request.what) / "explain") / "layers.png"
    return (out or Path("runs") / "explain") / f"{request.what.replace(':', '-')}-layers.png"


def _map(asked: Asked, split: str | None) -> None:
    if asked.images:
        raise UserError("--map shows the images of a split. Leave out IMAGE, or choose with --split.")
    run = Path(asked.what)
    check_run(run)
    from finetune.cli.progress import open_progress
    from finetune.disk.figure import write_figure
    from finetune.disk.outputs import check_output, write_output
    from finetune.explain.features.feature_map import map_of_run
    from finetune.explain.features.map_figure import draw_map
    from finetune.explain.features.map_page import render_map
    from finetune.training.compute.precision import pick_device
    from finetune.training.trained import load_trained

    page = _in_folder(asked, "map.html")
    figures = {"tsne": page.with_suffix(".png"), "pca": page.with_name(f"{page.stem}-pca.png")}
    for path in (page, *figures.values()):
        check_output(path)
    with open_progress() as progress:
        trained = load_trained(run, asked.checkpoint.value, pick_device(asked.device))
        found = map_of_run(trained, split, lambda items: progress.reporter.watch(items, "batch"))
    write_output(page, render_map(found, run.name or str(run.resolve().name)))
    write_figure(draw_map(found, "tsne"), figures["tsne"])
    write_figure(draw_map(found, "pca"), figures["pca"])
    if found.missing is not None:
        output.warn(f"no map before fine-tuning: {found.missing}")
    if asked.as_json:
        output.json_data(
            found.to_dict() | {"page": str(page), "figures": list(map(str, figures.values()))}, indent=2
        )
        return
    count = (
        f"{len(found.features):,} of {found.total:,}"
        if len(found.features) < found.total
        else f"{found.total:,}"
    )
    output.data(f"{found.split}: {count} images, {int(found.wrong.sum()):,} predicted wrongly")
    for plane in found.planes:
        share = output.percent(plane.agreement)
        output.data(f"{plane.title:<19} most similar other image has the same label: {share}")
    for path in (page, *figures.values()):
        output.note(f"drawn: {printable(path)}")


def _nearest(asked: Asked) -> None:
    if not asked.images:
        raise UserError("--nearest: give the images to compare with the training images.")
    check_run(Path(asked.what))
    from finetune.deploy.inputs import check_inputs, expand

    check_inputs(asked.images)
    from finetune.cli.progress import open_progress
    from finetune.disk.figure import check_figure, write_figure
    from finetune.explain.features.nearest_figure import draw_nearest, explained
    from finetune.explain.features.nearest_images import nearest_images
    from finetune.training.compute.precision import pick_device
    from finetune.training.trained import load_trained

    path = _in_folder(asked, "nearest.png")
    check_figure(path)
    with open_progress() as progress:
        trained = load_trained(Path(asked.what), asked.checkpoint.value, pick_device(asked.device))
        found = nearest_images(
            trained, list(expand(asked.images)), watch=lambda items: progress.reporter.watch(items, "batch")
        )
    write_figure(draw_nearest(found), path)
    rows = found.rows()
    if asked.as_json:
        about = {"figure": str(path), "searched": len(found.pool), "train": found.train}
        output.json_data(about | {"images": rows}, indent=2)
    else:
        output.table(
            [
                {
                    "image": row["path"] if place == 0 else "",
                    "predicted": row["class"] if place == 0 else "",
                    ">similarity": f"{each['similarity']:.3f}",
                    "class": each["class"],
                    "": "" if each["class"] == row["class"] else "other class",
                    "training image": each["path"],
                }
                for row in rows
                for place, each in enumerate(row["nearest"])
            ]
        )
        output.note(explained(found))
    output.note(f"drawn: {printable(path)}")
    for error in found.bad:
        output.warn(str(error))
    if found.bad:
        raise FinetuneError(f"{len(found.bad):,} of {len(found.bad) + len(rows):,} images cannot be read")


def _in_folder(asked: Asked, name: str) -> Path:
    """The file to write: ``--out`` is its name if it has an extension, or else its folder."""
    out = asked.out
    if out is not None and out.suffix and not out.is_dir():
        return out
    return (out or Path(asked.what) / "explain") / name
