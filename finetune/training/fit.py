"""Train a recipe in a run directory: the table of contents of training."""

from dataclasses import dataclass
from pathlib import Path

from finetune.evaluation.metrics import Metrics
from finetune.recipe.schema import Recipe
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.describe import concerns_classes, describe_run, run_facts
from finetune.training.phase import train_phases
from finetune.training.progress import Progress
from finetune.training.refit import begin_refit, continue_refit
from finetune.training.run.directory import RunDir
from finetune.training.run.environment import describe_environment
from finetune.training.run.own_data import describe_place
from finetune.training.run.position import Best
from finetune.training.run.resume import (
    Continuation,
    StartingPoint,
    environment_to_record,
    find_starting_point,
)
from finetune.training.run.saved import SavedRun, fill_in_choices
from finetune.training.run_plan import plan_run, warn_before_training
from finetune.training.session import Session
from finetune.training.setup.prepare import Setup, load_data, prepare


@dataclass(frozen=True)
class Refit:
    """A refit (``train.refit``): its epochs, and the number of images of train and val together."""

    epochs: int
    images: int


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        test: metrics of the best checkpoint on test; None if the data has no test split.
        example: the path of an image that was not trained on, if the images are files.
        epochs: without those of a refit.
        already_finished: the run was finished before, and nothing was done.
        refit: None if the recipe asks for none.
        concerns_classes: the classes are of uneven size, or the recipe has a setting for that.
    """

    run: Path
    best: Best
    epochs: int
    test: Metrics | None
    backbone: str
    example: str | None
    already_finished: bool = False
    refit: Refit | None = None
    concerns_classes: bool = False


def fit(
    recipe: Recipe,
    run: RunDir,
    *,
    recipe_file: bytes | None = None,
    device: str | None = None,
    continuation: Continuation | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train ``recipe`` in ``run``.

    Args:
        recipe_file: the recipe as the user wrote it, for the run directory; None: the resolved recipe.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None: the best one available.
        continuation: whether to resume, and how; None: train from the start.
        progress: receives the progress reports; None: no reports.

    Raises:
        UserError: the data, weights, freeze or run directory cannot be used; or the run is finished and the
            recipe is not its own.
        StoppedError: a signal arrived; everything was saved.
        FinetuneError: the run failed.
    """
    continuation = continuation or Continuation()
    saved = SavedRun.open(run) if continuation.resume else None
    train = recipe.train
    if saved is not None:
        recipe = saved.fill_in_batch_size(recipe)
        train = fill_in_choices(recipe.train, saved.environment)
    compute = choose_compute(pick_device(device), train)
    with in_force(compute):
        own = None if saved is None else saved.find_images(recipe)
        setup = prepare(recipe, own.source if own else load_data(recipe.data, recipe.seed), compute)
        warn_before_training(setup)
        environment = describe_environment(setup)
        environment["data_source"] = describe_place(own.place if own else recipe.data.source, run.path)

        start = StartingPoint()
        if saved is not None and own is not None:
            start = find_starting_point(saved, setup, own, environment, continuation)
        plan = plan_run(setup, start.extensions)
        environment |= plan.describe()

        session = Session(setup, run, plan, start.position, progress or Progress())
        if start.position.refit_epochs:
            session = continue_refit(session)
        if saved is not None:
            session.optimizer_state = saved.load_into(session.setup, start.position)
        if start.position.finished:
            return _result(session, setup, session.test(), already_finished=True)

        if saved is None:
            run.begin(describe_run(setup, recipe_file, environment))
        else:
            session.roll_back(saved.checkpoint, changed=bool(start.changed))
            recorded = environment_to_record(saved, start, environment, extend=continuation.extend)
            if recorded is not None:
                run.describe(describe_run(setup, recipe_file, recorded))
        session.progress.started(run_facts(setup, plan, start.extensions))

        test, in_refit = None, bool(start.position.refit_epochs)
        refits = in_refit or (train.refit and not continuation.leave_open)
        if not in_refit:
            with session.active():
                train_phases(session)
                if not continuation.leave_open:
                    session.choose()
                    test = None if refits else session.finish()
                if refits:
                    session = begin_refit(session)
        if refits:
            with session.active():
                train_phases(session)
                session.keep_refit(setup.source.splits["train"], setup.source.splits["val"])
                test = session.finish()
        return _result(session, setup, test)


def _result(
    session: Session, setup: Setup, test: Metrics | None, *, already_finished: bool = False
) -> Result:
    """``setup`` is that of the training before a refit."""
    splits = setup.source.splits
    held_out = splits.get("test", splits["val"])
    example = held_out.name(0) if Path(held_out.name(0)).is_file() else None
    refit = sum(session.position.refit_epochs)
    return Result(
        run=session.run.path,
        best=session.best,
        epochs=session.position.epoch - refit,
        test=test,
        backbone=setup.recipe.model.backbone,
        example=example,
        already_finished=already_finished,
        refit=Refit(refit, len(splits["train"]) + len(splits["val"])) if refit else None,
        concerns_classes=concerns_classes(setup),
    )
