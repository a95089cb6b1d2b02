"""Describe a run: to its user, as it starts, and to its readers, in the run directory."""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.data.holdout.recorded import SplitRecord
from finetune.data.sources.header_checks import unread_notes
from finetune.errors import printable
from finetune.image.preprocessing import Preprocessing
from finetune.model.freeze import resolve_freeze
from finetune.recipe.load import dump_recipe
from finetune.recipe.schema import TrainSection
from finetune.training.caching.decoded import describe_decoded
from finetune.training.progress import CLASSES
from finetune.training.run.directory import Description
from finetune.training.run.extend import describe_extension
from finetune.training.run.position import Position
from finetune.training.run_plan import RunPlan
from finetune.training.setup.loss import corrects, is_uneven
from finetune.training.setup.plan import SOLVER, PhasePlan
from finetune.training.setup.prepare import Setup
from finetune.training.steps.optimizer import OPTIMIZERS


def describe_run(setup: Setup, recipe_file: bytes | None, environment: Mapping[str, Any]) -> Description:
    """The documents of the run directory. Without ``recipe_file`` the resolved recipe takes its place."""
    resolved = dump_recipe(setup.recipe)
    weights = setup.network.weights
    report = None
    if weights is not None:
        reused = {"reused": dict(setup.network.reused)}
        report = {"origin": weights.origin, **weights.report.to_dict(), **reused}
    recipe = resolved.encode() if recipe_file is None else recipe_file
    return Description(recipe, resolved, environment, SplitRecord.of(setup.source).to_csv(), report)


def run_facts(setup: Setup, plan: RunPlan, extensions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The facts to show before training: pairs such as ``("data", "digits: 10 classes; ...")``."""
    source, network = setup.source, setup.network
    preprocessing = setup.card.preprocessing
    counts = ", ".join(f"{len(split):,} {name}" for name, split in source.splits.items())
    facts = [
        ("data", f"{printable(source.name)}: {len(source.classes)} classes; {counts}"),
        *(("", note) for note in source.notes),
    ]
    if preprocessing.reads != "bands":  # the line on images describes the bands that are read
        facts += [("", note) for note in unread_notes(source.splits["train"])]
    facts += [
        ("network", f"{setup.recipe.model.backbone}, {len(network.table.body)} layers and a head"),
        ("weights", network.weights.origin if network.weights is not None else "none: from scratch"),
        *_class_facts(setup),
        ("images", f"{preprocessing.in_words}{_channels(preprocessing)}"),
        ("machine", f"{setup.compute.describe()}, {setup.workers} workers"),
        ("length", _length(plan.phases, setup.recipe.train)),
    ]
    if plan.features and not setup.recipe.train.augment.changes_images:
        facts.append(("views", "one per image: training images are not augmented"))
    for number, features in plan.features.items():
        phase = f"phase {number + 1}: " if len(plan.phases) > 1 else ""
        facts.append(("features", f"{phase}{features.k} frozen layers, {features.describe()}"))
    if plan.batchnorm_momentum is not None:
        facts.append(("BatchNorm", f"momentum at least {plan.batchnorm_momentum:.3g}: the run is short"))
    facts.append(("decoding", describe_decoded(plan.decoded)))
    if extensions:
        facts.append(("extended", describe_extension(extensions[-1], plan.phases)))
    return facts


def concerns_classes(setup: Setup) -> bool:
    """Whether the classes are of uneven size, or the recipe has a setting for that."""
    counts = setup.source.splits["train"].class_counts(len(setup.source.classes))
    return is_uneven(counts) or corrects(setup.recipe.train)


def _class_facts(setup: Setup) -> list[tuple[str, str]]:
    if not concerns_classes(setup):
        return []
    train, source = setup.recipe.train, setup.source
    counts = source.splits["train"].class_counts(len(source.classes))
    weights = train.class_weights if isinstance(train.class_weights, str) else "by name"
    settings = {
        "class_weights": weights if weights != "none" else "",
        "logit_adjust": f"{train.logit_adjust:g}" if train.logit_adjust else "",
        "loss": train.loss if train.loss != "cross_entropy" else "",
        "sampler": train.sampler if train.sampler != "shuffle" else "",
    }
    given = ", ".join(f"{key}: {value}" for key, value in settings.items() if value)
    sizes = f"{counts.min():,} to {counts.max():,} training images each"
    return [(CLASSES, f"{sizes}; {given or 'the loss counts every image the same'}")]


def phase_title(plan: PhasePlan, setup: Setup, position: Position) -> str:
    """The layers, parameters, optimizer, learning rates and epochs of a phase, for the user.

    ``9 of 9 layers frozen, 5,130 of 11,181,642 parameters train, AdamW, lr 0.01 (head), 3 epochs``. The
    layers that the phase freezes must be frozen.
    """
    table, module = setup.network.table, setup.network.module
    k, body = resolve_freeze(plan.freeze, table), len(table.body)
    epochs = _epochs(plan, position)
    if plan.is_refit:
        images = len(setup.source.splits["train"])
        epochs += f"; refit on the {images:,} images of train and val"
    if plan.optimizer == SOLVER:
        return f"{k} of {body} layers frozen, the head is solved (L-BFGS): {epochs}"
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.parameters())
    if k == body:
        rate = f"lr {plan.lr * plan.head_lr_mult:g} (head)"
    else:
        decay = "" if plan.layer_decay is None else f", x{plan.layer_decay:g} per layer down"
        rate = f"lr {plan.lr:g}{decay}, head x{plan.head_lr_mult:g}"
    return (
        f"{k} of {body} layers frozen, {trained:,} of {total:,} parameters train, "
        f"{OPTIMIZERS[plan.optimizer].type.__name__}, {rate}, {epochs}"
    )


def _epochs(plan: PhasePlan, position: Position) -> str:
    """``5 epochs``; after an earlier phase, ``15 epochs (2 to 16)``, counted through all phases."""
    before = position.epoch - position.phase_epoch
    first, last = before + 1, before + plan.epochs
    if first == last:
        return f"epoch {first}"
    return f"{plan.epochs} epochs ({first} to {last})" if before else f"{plan.epochs} epochs"


def _length(phases: Sequence[PhasePlan], train: TrainSection) -> str:
    """``240 steps of 32 images, and 1 step that solves the head: 16 epochs``."""
    solved = sum(phase.steps for phase in phases if phase.optimizer == SOLVER)
    steps = sum(phase.steps for phase in phases) - solved
    size, times = train.images_per_batch, train.accumulate
    batch = f"{size} images" if times == 1 else f"{size * times} images, {times} batches of {size} each"
    parts = [f"{steps:,} steps of {batch}"] if steps else []
    if solved:
        parts.append(f"{'1 step that solves' if solved == 1 else f'{solved} steps that solve'} the head")
    epochs = sum(phase.epochs for phase in phases)
    return f"{', and '.join(parts)}: {epochs} epoch{'s' if epochs > 1 else ''}"


def _channels(preprocessing: Preprocessing) -> str:
    count = preprocessing.channels
    if count == 1:
        return ", converted to grey"
    if preprocessing.reads == "bands":
        return f", the {count} bands of each file, scaled to 8 bits (the largest value of its type to 255)"
    return f", {count} channels: the colours repeat" if count > 3 else ""
