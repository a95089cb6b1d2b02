"""``finetune train RECIPE``: a recipe to a run directory."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.api.from_images import images_run_dir, names_images
from finetune.api.training import Resume
from finetune.api.training import train as train_run
from finetune.cli import output
from finetune.cli.options import DeviceOption, OverwriteOption, ResumeOption, SetOption, run_dir_option
from finetune.errors import FinishedRunError, RunDirError, UserError, printable
from finetune.training.run.claim import place_of
from finetune.training.run.files import RECIPE

if TYPE_CHECKING:
    from finetune.api.training import Run


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|IMAGES",
            help="A recipe file (YAML); or images, as data.source names them, to train on as advised.",
            show_default=False,
        ),
    ],
    run_dir: Annotated[Path | None, run_dir_option("The run directory.", "runs/NAME-OF-THE-RECIPE")] = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="With --resume: continue although the recipe, data or libraries have changed."
        ),
    ] = False,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="With --resume: train a finished run longer; the recipe has more epochs in its last phase, "
            "or more phases.",
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    device: DeviceOption = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Try the recipe in seconds: drawn images, random weights, one short epoch per phase.",
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves to RUN/tensorboard.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="Train N times, with the recipe's seed and the next ones, in RUN/seed-0, RUN/seed-1, ... "
            "on the same splits.",
            show_default=False,
        ),
    ] = None,
    vary_split: Annotated[
        bool, typer.Option("--vary-split", help="With --seeds: split the images anew for each seed.")
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
        if smoke or tensorboard or force or extend:
            raise UserError("--seeds goes with --resume and --overwrite; leave out the other options.")
        from finetune.cli.seeds import train_several
        from finetune.strategy.experiments.repeat import RunOptions

        options = RunOptions(device, resume, overwrite)
        train_several(recipe, run_dir, set_ or [], seeds, options, vary_split=vary_split)
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
    _conclude(run)
    if from_images:
        output.note(f"  the recipe that repeats it: {printable(run.path / RECIPE)}")


def _instead(
    error: FinishedRunError, recipe: Path, run: Path, overrides: list[str], device: str | None
) -> str:
    """The command that does what a finished run refuses, as it can be typed; "" where there is none."""
    options = [*(word for each in overrides for word in ("--set", each))]
    options += ["--device", device] if device is not None else []
    if error.longer:
        words = ["--run-dir", str(run), "--resume", "--extend", *options]
    elif error.weights:
        number = 2
        while (place := run.with_name(f"{run.name}-{number}")).exists():
            number += 1
        words = ["--run-dir", str(place), *options, "--set", f"model.weights={run}"]
        words += ["--set", "model.head.reuse=auto"] if error.reuse else []
    else:
        return "."
    return f":\n  {' '.join(_program())} train {printable(shlex.join([str(recipe), *words]))}"


def _extend_takes_a_recipe(source: Path, run_dir: Path | None) -> str:
    place = images_run_dir(str(source), run_dir)
    words = [str(place / RECIPE), "--run-dir", str(place), "--resume", "--extend"]
    line = shlex.join([*words, "--set", "train.phases.0.epochs=30"])
    return (
        "--extend takes a recipe: the run's own, with more epochs in its last phase, such as\n"
        f"  {' '.join(_program())} train {printable(line)}"
    )


def _conclude(run: "Run") -> None:
    best, test = run.best, run.test
    if run.already_finished:
        output.note(f"{printable(run.path)}: this run is finished; nothing was done.")
    output.data(f"best epoch   {best.epoch} of {run.epochs}: val top-1 {output.percent(best.val_top1)}")
    if test is not None:
        number = output.interval(test.top1, test.top1_low, test.top1_high, test.n)
        output.data(f"test top-1   {number}")
    else:
        output.data("test top-1   not measured: the data has no test split")
    output.data(f"run          {printable(run.path)}")
    output.note("\nNext:")
    for line in _next_commands(run):
        output.note(f"  {line}")


def _program() -> list[str]:
    """The words that called this command line, quoted for a shell."""
    command = "finetune" if shutil.which("finetune") else sys.argv[0]
    if Path(command).name == "__main__.py":
        return [shlex.quote(sys.executable), "-m", "finetune"]
    return [command]


def _next_commands(run: "Run") -> list[str]:
    """Three commands that can be typed as they stand."""
    command = " ".join(_program())
    path = printable(shlex.quote(str(run.path)))
    commands = [f"{command} eval {path}", f"{command} export {path} --format onnx"]
    if run.example is not None:
        return [*commands, f"{command} predict {path} {printable(shlex.quote(run.example))}"]
    return [*commands, f"{command} layers {run.backbone}"]
