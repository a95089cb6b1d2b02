"""``finetune train RECIPE``: a recipe to a run directory."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from finetune.api.from_images import images_run_dir, names_images
from finetune.api.report import report as write_report
from finetune.api.training import Resume
from finetune.api.training import train as train_run
from finetune.cli import options, output
from finetune.cli.options import argument, flag, option
from finetune.errors import FinishedRunError, RunDirError, UserError, printable
from finetune.training.run.claim import place_of
from finetune.training.run.files import CURVES, RECIPE

if TYPE_CHECKING:
    from finetune.api.training import Run


def train(
    recipe: Annotated[
        Path,
        argument(
            "A recipe file (YAML); or images, as data.source names them, to train on as advised.",
            "RECIPE|IMAGES",
        ),
    ],
    run_dir: Annotated[Path | None, options.run_dir("The run directory.", "runs/NAME-OF-THE-RECIPE")] = None,
    set_: options.Set = None,
    resume: options.Resume = False,
    force: Annotated[
        bool,
        flag("--force", "With --resume: continue although the recipe, data or libraries have changed."),
    ] = False,
    extend: Annotated[
        bool,
        flag(
            "--extend",
            "With --resume: train a finished run longer; the recipe has more epochs in its last phase, "
            "or more phases.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    device: options.Device = None,
    smoke: Annotated[
        bool,
        flag(
            "--smoke", "Try the recipe in seconds: drawn images, random weights, one short epoch per phase."
        ),
    ] = False,
    tensorboard: Annotated[bool, flag("--tensorboard", "Also write curves to RUN/tensorboard.")] = False,
    report: Annotated[
        bool, flag("--report", "At the end, write RUN/report.html (`finetune report`).")
    ] = False,
    seeds: Annotated[
        int | None,
        option(
            "Train N times, with the recipe's seed and the next ones, in RUN/seed-0, RUN/seed-1, ... "
            "on the same splits.",
            "N",
            min=1,
            max=1000,
        ),
    ] = None,
    vary_split: Annotated[
        bool, flag("--vary-split", "With --seeds: split the images anew for each seed.")
    ] = False,
) -> None:
    """Train a network as RECIPE says, or as `finetune advise` would advise for IMAGES."""
    if resume and overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it: choose one.")
    if force and not resume:
        raise UserError("--force goes with --resume: it continues a run although something has changed.")
    if vary_split and seeds is None:
        raise UserError("--vary-split goes with --seeds.")
    if extend and not resume:
        raise UserError("--extend goes with --resume: it trains a finished run longer.")
    from_images = names_images(recipe)
    if from_images and extend:
        raise UserError(_extend_takes_a_recipe(recipe, run_dir))
    if from_images and (smoke or seeds is not None):
        raise UserError("--smoke and --seeds take a recipe: write one with `finetune advise -o`.")
    if seeds is not None:
        if smoke or tensorboard or force or extend or report:
            raise UserError("--seeds goes with --resume and --overwrite; leave out the other options.")
        from finetune.cli.seeds import train_several
        from finetune.strategy.experiments.repeat import RunOptions

        run_options = RunOptions(device, resume, overwrite)
        train_several(recipe, run_dir, set_ or [], seeds, run_options, vary_split=vary_split)
        return
    place = (
        images_run_dir(str(recipe), run_dir) if from_images else Path(place_of(recipe, run_dir, smoke=smoke))
    )
    from finetune.cli.progress import open_progress

    with open_progress(place / "tensorboard" if tensorboard else None) as progress:
        try:
            run = train_run(
                recipe,
                run_dir,
                overrides=set_,
                device=device,
                resume=resume and Resume(force=force, extend=extend),
                overwrite=overwrite,
                smoke=smoke,
                progress=progress,
            )
        except FinishedRunError as error:
            command = _instead(error, recipe, place, set_ or [], device)
            raise RunDirError(f"{error}{command}") from None
        page = write_report(run.path, device=device, progress=progress) if report else None
    _conclude(run, page)
    if from_images:
        output.note(f"  the recipe that repeats it: {printable(run.path / RECIPE)}")


def _instead(
    error: FinishedRunError, recipe: Path, run: Path, overrides: list[str], device: str | None
) -> str:
    """The end of the error: the command that does what the finished run refuses, if there is one."""
    same = [word for each in overrides for word in ("--set", each)]
    same += ["--device", device] if device is not None else []
    if error.longer:
        words = ["--run-dir", str(run), "--resume", "--extend", *same]
    elif error.weights:
        number = 2
        while (place := run.with_name(f"{run.name}-{number}")).exists():
            number += 1
        words = ["--run-dir", str(place), *same, "--set", f"model.weights={run}"]
        words += ["--set", "model.head.reuse=auto"] if error.reuse else []
    else:
        return "."
    return f":\n  {_program()} train {printable(shlex.join([str(recipe), *words]))}"


def _extend_takes_a_recipe(source: Path, run_dir: Path | None) -> str:
    place = images_run_dir(str(source), run_dir)
    words = [str(place / RECIPE), "--run-dir", str(place), "--resume", "--extend"]
    line = shlex.join([*words, "--set", "train.phases.0.epochs=30"])
    return (
        "--extend takes a recipe: the run's own, with more epochs in its last phase, such as\n"
        f"  {_program()} train {printable(line)}"
    )


def _conclude(run: "Run", page: Path | None) -> None:
    from finetune.evaluation.text import too_few_groups

    best, test = run.best, run.test
    if run.already_finished:
        output.note(f"{printable(run.path)}: this run is finished; nothing was done.")
    balanced = ""
    if run.concerns_classes and best.val_balanced_accuracy is not None:
        balanced = f", balanced accuracy {output.percent(best.val_balanced_accuracy)}"
    val = f"val top-1 {output.percent(best.val_top1)}{balanced}"
    output.data(f"best epoch   {best.epoch} of {run.epochs}: {val}")
    if run.refit is not None:
        count = "1 epoch" if run.refit.epochs == 1 else f"{run.refit.epochs} epochs"
        output.data(f"refit        {count} on the {run.refit.images:,} images of train and val")
    if test is not None:
        output.data(f"test top-1   {output.accuracy(test)}")
        if too_few := too_few_groups(test):
            output.data(f"             {too_few}")
        if run.concerns_classes:
            recall = output.percent(test.values["balanced_accuracy"])
            output.data(f"balanced     {recall} on test, the mean over the classes")
    else:
        output.data("test top-1   not measured: the data has no test split")
    output.data(f"run          {printable(run.path)}")
    if page is not None:
        output.data(f"report       {printable(page)}")
    command, path = _program(), printable(shlex.quote(str(run.path)))
    if (run.path / CURVES).is_file():
        output.note(f"curves       {printable(run.path / CURVES)}")
    wrong = f"\n  {command} report {path}    # where it goes wrong, image by image" if page is None else ""
    output.note(f"\nNext:{wrong}\n  {command} eval {path}\n  {command} export {path} --format onnx")
    if run.example is not None:
        output.note(f"  {command} predict {path} {printable(shlex.quote(run.example))}")
    else:
        output.note(f"  {command} layers {run.backbone}")


def _program() -> str:
    """The words that called this command line, quoted for a shell."""
    command = "finetune" if shutil.which("finetune") else sys.argv[0]
    return f"{shlex.quote(sys.executable)} -m finetune" if Path(command).name == "__main__.py" else command
