"""A recipe to a finished run: the table of contents of training."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.checkpoint.storage import (
    MODEL,
    load_weights,
    open_checkpoint,
    read_tensors,
    restore_previous,
)
from finetune.data.holdout.recorded import SplitRecord
from finetune.data.sources.header_checks import unread_notes
from finetune.errors import RunDirError, printable
from finetune.evaluation.metrics import Metrics
from finetune.image.preprocessing import Preprocessing
from finetune.model.batchnorm import raise_batchnorm_momentum
from finetune.model.freeze import abbreviate_names, resolve_freeze, untrained_layers
from finetune.recipe.load import dump_recipe
from finetune.recipe.remarks import remarks
from finetune.recipe.schema import Recipe, TrainSection
from finetune.training.caching.decoded import describe_decoded, keeping, plan_decoded
from finetune.training.caching.feature_plan import FeaturePlan, plan_features
from finetune.training.compute.batch_size import warn_of_little_memory
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import Compute, choose_compute, pick_device
from finetune.training.phase import judge, save_last, train_phase
from finetune.training.progress import Progress, Silent
from finetune.training.run.directory import Description, RunDir
from finetune.training.run.environment import describe_environment
from finetune.training.run.extend import (
    EXTENDED,
    FORCED,
    in_words,
)
from finetune.training.run.files import METRICS, TIMING
from finetune.training.run.own_data import whereabouts
from finetune.training.run.position import Best, Position
from finetune.training.run.resume import (
    as_begun,
    batch_size_as_begun,
    data_as_recorded,
    recorded,
    restore,
    settle_best,
)
from finetune.training.run.signals import Signals
from finetune.training.run.standing import Standing, planned, stand
from finetune.training.setup.batch_of_one import refuse_batch_of_one
from finetune.training.setup.plan import SOLVER, PhasePlan
from finetune.training.setup.prepare import Setup, load_data, prepare

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Result:
    """What a run came to.

    ``test`` is of the best checkpoint; None where the data has no test split. ``example`` is the path of an
    image that was not trained on, where the images are files. ``already_finished``: there was nothing
    left to do.
    """

    run: Path
    best: Best
    epochs: int
    test: Metrics | None
    backbone: str
    example: str | None
    already_finished: bool = False


def fit(
    recipe: Recipe,
    run: RunDir,
    *,
    recipe_file: bytes | None = None,
    device: str | None = None,
    resume: bool = False,
    force: bool = False,
    extend: bool = False,
    leave_open: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train ``recipe`` in ``run``.

    Args:
        recipe_file: the recipe as the user wrote it, kept in the run; without it the resolved one serves.
        device: cpu, cuda, mps; None takes the best there is.
        resume: go on from the last checkpoint, if there is one.
        force: resume although recipe, data or libraries have changed, where that is possible at all.
        extend: resume a run whose phases are done, and that ``recipe`` has more epochs or phases for
            (:mod:`finetune.training.run.extend`).
        leave_open: there may be more to come: test is not looked at, and the run is not called finished.

    Raises:
        UserError: data, weights, freeze or run directory that cannot serve; a finished run, and a recipe that
            is another one than its own.
        StoppedError: a signal came; everything was saved.
        FinetuneError: the run failed.
    """
    progress = progress or Silent()
    saved = open_checkpoint(run.checkpoints, "last") if resume else None
    known = recorded(run) if saved else {}
    recipe = batch_size_as_begun(recipe, run) if saved else recipe
    compute = choose_compute(pick_device(device), as_begun(recipe.train, known))
    with in_force(compute):
        return _train(
            recipe,
            run,
            compute,
            saved,
            known,
            recipe_file,
            progress,
            force=force,
            extend=extend,
            leave_open=leave_open,
        )


def _train(
    recipe: Recipe,
    run: RunDir,
    compute: Compute,
    saved: Path | None,
    known: dict[str, Any],
    recipe_file: bytes | None,
    progress: Progress,
    *,
    force: bool,
    extend: bool,
    leave_open: bool,
) -> Result:
    """Train, from checkpoint ``saved`` on, if there is one, of a run that began in ``known``."""
    own = data_as_recorded(run, recipe, known) if saved else None
    source = own.source if own is not None else load_data(recipe.data, recipe.seed)
    setup = prepare(recipe, source, compute)
    _check_freezes(setup)
    for remark in remarks(recipe):
        log.warning(remark)
    environment = describe_environment(setup)
    environment["data_source"] = whereabouts(own.place if own is not None else recipe.data.source, run.path)
    standing = Standing()
    if saved and own is not None:
        standing = stand(run, setup, saved, known, environment, own, force=force, extend=extend)
    position, changed, extensions = standing.position, standing.changed, standing.extensions
    plans = planned(setup, extensions)
    refuse_batch_of_one(setup, plans)
    warn_of_little_memory(setup.recipe.train, setup.network, setup.image, compute, recipe.model.batchnorm)
    total_steps = sum(plan.steps for plan in plans)
    momentum = raise_batchnorm_momentum(setup.network.module, recipe.model.batchnorm_momentum, total_steps)

    features = plan_features(setup, plans)
    environment["features"] = {number: plan.describe() for number, plan in features.items()}
    decoded = plan_decoded(setup, plans, features)
    environment["decoded"] = describe_decoded(decoded)
    optimizer_state = restore(saved, setup, position) if saved else {}
    if not position.finished:
        if saved:
            _take_up(run, setup, saved, position, changed)
        if changed or extensions != known.get(EXTENDED, []):
            history = {name: known[name] for name in (FORCED, EXTENDED) if name in known}
            if changed:
                now = {"step": position.global_step, "changed": changed}
                history[FORCED] = [*known.get(FORCED, []), now]
                position.frozen = None
            if extensions:
                history[EXTENDED] = extensions
            run.describe(description(setup, recipe_file, {**environment, **history}))
        elif saved and (extend or environment["data_source"] != known.get("data_source")):
            moved = {**known, "data_source": environment["data_source"]}
            run.describe(description(setup, recipe_file, moved))
        elif not saved:
            run.begin(description(setup, recipe_file, environment))
        progress.started(
            [
                *_facts(setup, plans, momentum, features),
                ("decoding", describe_decoded(decoded)),
                *(("extended", in_words(each, plans)) for each in extensions[-1:]),
            ]
        )
        with Signals() as signals, setup.reading(), keeping(setup, decoded):
            for plan in plans[position.phase :]:
                if plan.number != position.phase:
                    position.begin_phase(plan.number)
                optimizer_state = train_phase(
                    plan, setup, position, optimizer_state, run, signals, progress, features.get(plan.number)
                )
            test = None
            if not leave_open:
                test = final_test(setup, run, position, signals)
                position.finished = True
                save_last(setup, run, position, optimizer_state)
        return _result(setup, run, position, test)
    test = _load_best_and_test(setup, run, Signals())
    return _result(setup, run, position, test, already_finished=True)


def _check_freezes(setup: Setup) -> None:
    """Refuse a freeze that cannot be, and tell of one that holds on to random values."""
    network = setup.network
    weights = network.weights
    kept = None if weights is None or weights.report is None else weights.report.kept
    ks = [resolve_freeze(section.freeze, network.table) for section in setup.recipe.train.phases]
    fresh = untrained_layers(network.table, max(ks), kept)
    if fresh:
        log.warning(
            "freeze: %d of the first %d layers hold initial values, which no weights were loaded into and "
            "freezing keeps (%s)",
            len(fresh),
            max(ks),
            abbreviate_names(fresh),
        )


def _result(
    setup: Setup, run: RunDir, position: Position, test: Metrics | None, already_finished: bool = False
) -> Result:
    held = setup.source.splits.get("test", setup.source.splits["val"])
    example = held.name(0) if Path(held.name(0)).is_file() else None
    backbone = setup.recipe.model.backbone
    return Result(run.path, _best(position), position.epoch, test, backbone, example, already_finished)


def _best(position: Position) -> Best:
    assert position.best is not None  # every run has at least one epoch, and the first is the best so far
    return position.best


def final_test(setup: Setup, run: RunDir, position: Position, signals: Signals) -> Metrics | None:
    """Judge the best checkpoint on test, once, and write that down as the last line of the metrics."""
    test = _load_best_and_test(setup, run, signals)
    if test is not None:
        entry = {
            "split": "test",
            "checkpoint": "best",
            "epoch": _best(position).epoch,
            "test_top1": test.top1,
            "test_top1_low": test.top1_low,
            "test_top1_high": test.top1_high,
            "test_loss": test.loss,
            "test_n": test.n,
        }
        run.append(METRICS, entry)
        position.metrics_lines += 1
    return test


def _load_best_and_test(setup: Setup, run: RunDir, signals: Signals) -> Metrics | None:
    if "test" not in setup.source.splits:
        return None
    folder = open_checkpoint(run.checkpoints, "best")
    if folder is None:
        raise RunDirError(f"{printable(run.path)}: the best checkpoint is gone. Start over with --overwrite.")
    # `last` is saved from these modules too, so their weights come back afterwards.
    kept = {name: value.clone() for name, value in setup.evaluated.state_dict().items()}
    load_weights(setup.evaluated, read_tensors(folder / MODEL), folder / MODEL)
    try:
        return judge(setup, "test", signals)
    finally:
        setup.evaluated.load_state_dict(kept)


def description(setup: Setup, recipe_file: bytes | None, environment: Mapping[str, Any]) -> Description:
    """What the run's directory says of it; without ``recipe_file`` the resolved recipe serves."""
    resolved = dump_recipe(setup.recipe)
    weights = setup.network.weights
    report = None
    if weights is not None and weights.report is not None:
        reused = {"reused": dict(setup.network.reused)}
        report = {"origin": weights.origin, **weights.report.to_dict(), **reused}
    return Description(
        resolved.encode() if recipe_file is None else recipe_file,
        resolved,
        environment,
        SplitRecord.of(setup.source).to_csv(),
        report,
    )


def _take_up(run: RunDir, setup: Setup, saved: Path, position: Position, changed: list[str]) -> None:
    """Bring everything in the run's directory back to where ``position`` stands."""
    restore_previous(saved)
    settle_best(run, setup, position, changed=bool(changed))
    run.cut_back(METRICS, position.metrics_lines)
    run.cut_back(TIMING, position.epoch)


def _facts(
    setup: Setup, plans: list[PhasePlan], momentum: float | None, features: Mapping[int, FeaturePlan]
) -> list[tuple[str, str]]:
    compute, source, network = setup.compute, setup.source, setup.network
    counts = ", ".join(f"{len(split):,} {name}" for name, split in source.splits.items())
    facts = [
        ("data", f"{printable(source.name)}: {len(source.classes)} classes; {counts}"),
        *(("", note) for note in source.notes),
        *(("", note) for note in _unread(setup)),
        ("network", f"{setup.recipe.model.backbone}, {len(network.table.body)} layers and a head"),
        ("weights", network.weights.origin if network.weights is not None else "none: from scratch"),
        (
            "images",
            f"{setup.card.preprocessing.in_words}{_channels(setup.card.preprocessing)}",
        ),
        (
            "machine",
            f"{compute.describe()}, {setup.workers} workers",
        ),
        (
            "length",
            _length(plans, setup.recipe.train),
        ),
    ]
    if features and not setup.recipe.train.augment.changes_images:
        facts.append(("looks", "one an image: training images are not augmented"))
    for number, plan in features.items():
        place = f"phase {number + 1}: " if len(plans) > 1 else ""
        facts.append(("features", f"{place}{plan.k} frozen layers, {plan.describe()}"))
    if momentum is not None:
        facts.append(("BatchNorm", f"momentum at least {momentum:.3g}, so that its statistics keep up"))
    return facts


def _length(plans: list[PhasePlan], train: TrainSection) -> str:
    """``240 steps of 32 images, and 1 step that solves the head: 16 epochs``."""
    solved = sum(plan.steps for plan in plans if plan.optimizer == SOLVER)
    steps = sum(plan.steps for plan in plans) - solved
    parts = [f"{steps:,} steps of {_step(train)}"] if steps else []
    if solved:
        parts.append(f"{'1 step that solves' if solved == 1 else f'{solved} steps that solve'} the head")
    epochs = sum(plan.epochs for plan in plans)
    return f"{', and '.join(parts)}: {epochs} epoch{'s' if epochs > 1 else ''}"


def _step(train: TrainSection) -> str:
    size, times = train.images_a_batch, train.accumulate
    return f"{size} images" if times == 1 else f"{size * times} images, {times} batches of {size} each"


def _unread(setup: Setup) -> list[str]:
    # Of files whose bands are read there is nothing to add to what is said of the images.
    return [] if setup.card.preprocessing.reads == "bands" else unread_notes(setup.source.splits["train"])


def _channels(preprocessing: Preprocessing) -> str:
    count = preprocessing.channels
    if count == 1:
        return ", made grey"
    if preprocessing.reads == "bands":
        return f", the {count} bands of each file, of 8 bits: the most that its type holds becomes 255"
    return f", {count} channels: the colours repeat" if count > 3 else ""
