"""``finetune train RECIPE``: a recipe to a run directory."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output
from finetune.cli.automatic import is_images, train_images
from finetune.cli.run_options import name_of
from finetune.errors import FinishedRunError, RunDirError, UserError, printable
from finetune.training.run.files import RECIPE

if TYPE_CHECKING:
    from finetune.training.fit import Result


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE or IMAGES",
            help="A YAML file; or images, as data.source names them, to be examined and advised on first.",
            show_default=False,
        ),
    ],
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where the run goes.", show_default="runs/NAME-OF-THE-RECIPE"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key: train.phases.0.lr=1e-3. Repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: go on although something has changed.")
    ] = False,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="With --resume: train a finished run longer, where the recipe has more epochs in its last "
            "phase, or more phases.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.", show_default="the best there is")
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Try the recipe in seconds: drawn images, random weights, one short epoch a phase.",
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write curves to RUN/tensorboard as well.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="Train N times, with the recipe's seed and the next ones, in RUN/seed-0, RUN/seed-1, ... "
            "The splits stay the same.",
            show_default=False,
        ),
    ] = None,
    vary_split: Annotated[
        bool, typer.Option("--vary-split", help="With --seeds: each seed also carves the splits anew.")
    ] = False,
) -> None:
    """Fine-tune a network as RECIPE says, or as `finetune advise` would say of IMAGES."""
    if resume and overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it: choose one.")
    if force and not resume:
        raise UserError("--force goes with --resume: it continues a run although something has changed.")
    if vary_split and seeds is None:
        raise UserError("--vary-split goes with --seeds.")
    if extend and not resume:
        raise UserError("--extend goes with --resume: it trains a finished run longer.")
    if is_images(recipe):
        if extend:
            raise UserError(_extends_its_own(recipe, run_dir))
        if smoke or seeds is not None:
            raise UserError("--smoke and --seeds take a recipe: write one with `finetune advise -o`.")
        result = train_images(
            str(recipe),
            run_dir,
            set_ or [],
            device,
            tensorboard,
            resume=resume,
            overwrite=overwrite,
            force=force,
        )
        _conclude(result)
        output.note(f"  the recipe that repeats it: {printable(result.run / RECIPE)}")
        return
    if seeds is not None:
        if smoke or tensorboard or force or extend:
            raise UserError("--seeds goes with --resume and --overwrite; leave out the other options.")
        from finetune.cli.seeds import train_several

        train_several(
            recipe,
            run_dir,
            set_ or [],
            seeds,
            device,
            resume=resume,
            overwrite=overwrite,
            vary_split=vary_split,
        )
        return
    from finetune.training.run.claim import place_of
    from finetune.training.run.directory import RunDir

    path = Path(place_of(recipe, run_dir, smoke=smoke))
    # A trial replaces the trial before it; a place that the user names is never replaced unasked.
    replaces = overwrite or (smoke and not resume and run_dir is None)
    # Cheapest first: a taken directory is reported before the recipe is read, that before torch is loaded.
    with RunDir.open(path, resume=resume, overwrite=replaces) as run:
        from finetune.recipe.load import load_recipe, read_recipe

        wanted = load_recipe(recipe, set_ or [])
        if smoke:
            from finetune.training.smoke import shortened

            wanted = shortened(wanted)
        from finetune.cli.progress import open_progress
        from finetune.training.fit import fit

        with open_progress(path / "tensorboard" if tensorboard else None) as progress:
            try:
                result = fit(
                    wanted,
                    run,
                    recipe_file=read_recipe(recipe),
                    device=device,
                    resume=resume,
                    force=force,
                    extend=extend,
                    progress=progress,
                )
            except FinishedRunError as error:
                command = _instead(error, recipe, path, set_ or [], device)
                raise RunDirError(f"{error}{command}") from None
    _conclude(result)


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


def _extends_its_own(source: Path, run_dir: Path | None) -> str:
    """What to do about ``--extend`` where images are given in place of a recipe."""
    place = run_dir or Path("runs") / name_of(str(source))
    words = [str(place / RECIPE), "--run-dir", str(place), "--resume", "--extend"]
    line = shlex.join([*words, "--set", "train.phases.0.epochs=30"])
    return (
        "--extend takes a recipe: the run's own, with more epochs in its last phase, as by\n"
        f"  {' '.join(_program())} train {printable(line)}"
    )


def _conclude(result: "Result") -> None:
    best, test, run = result.best, result.test, result.run
    if result.already_finished:
        output.note(f"{printable(run)}: this run is finished; nothing was done.")
    output.data(f"best epoch   {best.epoch} of {result.epochs}: val top-1 {output.percent(best.val_top1)}")
    if test is not None:
        number = output.interval(test.top1, test.top1_low, test.top1_high, test.n)
        output.data(f"test top-1   {number}")
    else:
        output.data("test top-1   not measured: the data has no test split")
    output.data(f"run          {printable(run)}")
    output.note("\nNext:")
    for line in _next_commands(result):
        output.note(f"  {line}")


def _program() -> list[str]:
    """By which this command line was called, quoted for a shell."""
    command = "finetune" if shutil.which("finetune") else sys.argv[0]
    if Path(command).name == "__main__.py":
        return [shlex.quote(sys.executable), "-m", "finetune"]
    return [command]


def _next_commands(result: "Result") -> list[str]:
    """Three commands that can be typed as they stand."""
    command = " ".join(_program())
    run = printable(shlex.quote(str(result.run)))
    commands = [f"{command} eval {run}", f"{command} export {run} --format onnx"]
    if result.example is not None:
        return [*commands, f"{command} predict {run} {printable(shlex.quote(result.example))}"]
    return [*commands, f"{command} layers {result.backbone}"]
