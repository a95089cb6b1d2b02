"""What frozen features are worth: shallow classifiers on them, at one layer or at each.

The best linear one becomes an ordinary run: the network up to that layer, with the classifier as its head.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import nn

from finetune.data.dataset import Source
from finetune.disk.figure import write_figure
from finetune.errors import FinetuneError, UserError, printable
from finetune.evaluation.metrics import Metrics, wilson
from finetune.features.cached import CachedFeatures
from finetune.features.classifiers import Classifier, best_linear, fit_classifiers
from finetune.features.cut import fold_batchnorm, prefix_graph
from finetune.features.extract import Extractor
from finetune.features.placement import Where
from finetune.features.softmax import Features, Targets
from finetune.image.transforms import EvalTransform
from finetune.model.build import describe as describe_layers
from finetune.model.head import linear_of
from finetune.model.truncate import Pool
from finetune.recipe.schema import HeadSection, PhaseSection, Recipe
from finetune.training.caching.feature_store import open_store
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.fit import description, final_test
from finetune.training.phase import judge, save_best, save_last
from finetune.training.run.directory import RunDir
from finetune.training.run.environment import describe_environment
from finetune.training.run.files import METRICS, TIMING
from finetune.training.run.own_data import own_data, read_record, whereabouts
from finetune.training.run.position import Best, Position
from finetune.training.run.signals import Signals
from finetune.training.setup.prepare import Setup, load_data, prepare
from finetune.training.solved import put_in
from finetune.training.trained import Trained

log = logging.getLogger("finetune")

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """One classifier at one layer; accuracies are fractions, ``val_low`` to ``val_high`` Wilson's 95 %."""

    layer: int
    name: str
    classifier: str
    setting: str
    cv_top1: float
    val_top1: float
    val_low: float
    val_high: float


@dataclass(frozen=True)
class Depth:
    """A network cut after a layer, and the classifiers on the features of its images there."""

    recipe: Recipe
    setup: Setup
    layer: int
    name: str
    found: list[Classifier]
    rows: list[Row]

    @property
    def winner(self) -> Classifier:
        """The linear classifier that cross-validation likes most."""
        return best_linear(self.found)


def probe(
    recipe: Recipe,
    layers: Sequence[int] | None = None,
    *,
    device: str | None = None,
    weights_of: nn.Module | None = None,
    source: Source | None = None,
    tell: Tell = lambda done, total: None,
) -> list[Depth]:
    """Probe the features of ``recipe``'s source network on its data.

    Args:
        layers: after which of them, by number; None: after the last one before the head.
        weights_of: a trained network of the same recipe whose weights are probed in place of the source's.
        source: the images, divided already; None: the recipe's.
        tell: gets the number of images done, and of all that go through at this layer.

    Raises:
        UserError: a layer that there is not, or features that are no vector.
        DataError: the data cannot serve.
    """
    source = source or load_data(recipe.data, recipe.seed)
    compute = choose_compute(pick_device(device), frozen_recipe(recipe, None).train)
    if layers is None:
        own = recipe.model.head.at if weights_of is not None else None
        plans: list[tuple[int | None, int | str | None]] = [(None, own)]
    else:
        count = len(describe_layers(recipe.model.backbone).body)
        if wrong := [each for each in layers if not 1 <= each <= count]:
            raise UserError(
                f"--layers {wrong[0]}: {recipe.model.backbone} has layers 1 to {count} before its head "
                "(`finetune layers`)."
            )
        plans = [(each, None if each == count else each + 1) for each in layers]
    found = []
    with in_force(compute):
        for number, at in plans:
            plain = frozen_recipe(recipe, at) if weights_of is None else recipe
            setup = prepare(plain, source, compute)
            if weights_of is not None:
                setup.network.module.load_state_dict(weights_of.state_dict())
            found.append(_at(plain, setup, number, tell))
    return found


def layer_count(recipe: Recipe) -> int:
    """How many layers the recipe's backbone has before its head."""
    return len(describe_layers(recipe.model.backbone).body)


def before_and_after(
    trained: Trained, *, device: str | None = None, tell: Tell = lambda done, total: None
) -> tuple[Depth, Depth]:
    """The features of a run's network as it began and as it is now, on the run's own train and val."""
    record, recipe = read_record(trained.run), trained.recipe
    source = None
    if record is not None:
        own = own_data(trained.run, recipe.data, record, trained.card.classes, groups=True)
        for line in own.drift.lines():
            log.warning("%s: other than when the run began: %s", own.place, line)
        source = own.source
    (before,) = probe(_as_begun(recipe), device=device, source=source, tell=tell)
    (after,) = probe(recipe, device=device, weights_of=trained.module, source=source, tell=tell)
    return before, after


def save(depth: Depth, run: RunDir, command: str) -> tuple[Best, Metrics | None]:
    """Make ``run`` the run of the network up to this layer with the winner as its head.

    Its recipe solves logistic regression on the same features, which is what a recipe can say; which
    classifier the weights are of is in ``environment.json``.

    Args:
        command: the one that was typed, for the recipe's first line.

    Returns:
        What val says of it, and test where there is one.
    """
    with in_force(depth.setup.compute):
        return _save(depth, run, command)


def _save(depth: Depth, run: RunDir, command: str) -> tuple[Best, Metrics | None]:
    setup, winner = depth.setup, depth.winner
    assert winner.head is not None
    put_in(_head(setup), winner.head)
    environment = describe_environment(setup) | {
        "data_source": whereabouts(setup.recipe.data.source, run.path),
        "probe": {"layer": depth.layer, "classifier": winner.name, "setting": winner.setting},
    }
    described = f"# {command}: {winner.name}{f' ({winner.setting})' if winner.setting else ''}, "
    text = f"{described}on the features of layer {depth.layer}, {depth.name}\n".encode()

    whole = description(setup, None, environment)
    signals, position = Signals(), Position()
    began = time.perf_counter()
    # Before the run begins, so that hardly anything but writing lies between that and its end. A run that was
    # stopped in there is one whose head is solved, or is yet to be: `train --resume` finishes it.
    val = judge(setup, "val", signals)
    run.begin(dataclasses.replace(whole, recipe=text + whole.recipe))
    position.epoch = position.phase_epoch = position.phase_step = position.global_step = 1
    position.best = Best(1, val.top1, val.loss)
    entry = {
        "epoch": 1, "phase": 0, "step": 1, "probe": winner.name, "layer": depth.layer,
        "cv_top1": winner.cv_top1, "val_top1": val.top1, "val_loss": val.loss, "val_n": val.n,
    }  # fmt: skip
    run.append(METRICS, entry)
    run.append(TIMING, {"epoch": 1, "seconds": round(time.perf_counter() - began, 3), "images": 0})
    position.metrics_lines += 1
    save_last(setup, run, position, {})
    save_best(setup, run, position)
    test = final_test(setup, run, position, signals)
    position.finished = True
    save_last(setup, run, position, {})
    return position.best, test


def plot(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw cross-validated accuracy against depth, a line a classifier; the file's ending says the format.

    Raises:
        UserError: the file cannot be written, or its ending is none that matplotlib knows.
        SaveError: the disk is full or failing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(row.classifier for row in rows):
        own = [row for row in rows if row.classifier == name]
        axes.plot([row.layer for row in own], [100 * row.cv_top1 for row in own], marker="o", label=name)
    axes.set_xlabel("features after layer")
    axes.set_ylabel("top-1, cross-validated on train (%)")
    axes.set_title(printable(title), parse_math=False)
    axes.legend()
    write_figure(figure, path)


def frozen_recipe(recipe: Recipe, at: int | str | None) -> Recipe:
    """``recipe`` with a linear head on frozen features after a layer, and nothing that draws at random."""
    model = recipe.model.model_copy(update={"head": HeadSection(at=at)})
    phase = PhaseSection(freeze="backbone", optimizer="lbfgs", weight_decay="auto")
    # Nothing here is trained in steps, so nothing is in another precision than fp32.
    train = {"phases": (phase,), "precision": "fp32", "threads": recipe.train.threads}
    train["memory_format"] = recipe.train.memory_format
    return Recipe.model_validate(
        {
            "seed": recipe.seed,
            "data": recipe.data,
            "model": model,
            "train": {**train, "batch_size": recipe.train.batch_size},
            "cache": recipe.cache,
        }
    )


def _as_begun(recipe: Recipe) -> Recipe:
    """``recipe`` without what only its first start needed."""
    head = recipe.model.head.model_copy(update={"reuse": None})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": head})})


def _at(recipe: Recipe, setup: Setup, number: int | None, tell: Tell) -> Depth:
    layer = setup.network.table.body[-1]
    train = features_of(setup, "train", tell)
    val = features_of(setup, "val", tell)
    found = fit_classifiers(
        train.features, train.targets, len(setup.source.classes), recipe.seed, train.groups
    )
    rows = []
    for each in found:
        correct = int((each.predict(val.features) == val.targets).sum())
        low, high = wilson(correct, len(val.targets))
        rows.append(
            Row(
                number or layer.number,
                layer.name,
                each.name,
                each.setting,
                each.cv_top1,
                correct / len(val.targets),
                low,
                high,
            )
        )
    return Depth(recipe, setup, layer.number, layer.name, found, rows)


class Rows(NamedTuple):
    """What the head gets of images, (N, D), their classes, (N,), and groups, (N,), if they have any."""

    features: Features
    targets: Targets
    groups: Targets | None


def features_of(
    setup: Setup,
    split_name: str,
    tell: Tell = lambda done, total: None,
    places: Sequence[int] | None = None,
) -> Rows:
    """What the head gets of those of a split's images that can be read, or of those at ``places``."""
    network, preprocessing = setup.network, setup.card.preprocessing
    network.module.eval()
    k = len(network.table.body)
    try:
        prefix: nn.Module = fold_batchnorm(prefix_graph(network.module, network.table, k))
    except FinetuneError as error:
        raise UserError(f"{setup.recipe.model.backbone} cannot be probed: {error}") from None
    cut = network.architecture["head"].get("cut")
    if cut is not None and cut["pool"]:
        prefix = nn.Sequential(prefix, Pool(tuple(cut["pool"])))
    size = preprocessing.image_size
    extract = Extractor(
        prefix,
        (preprocessing.channels, size, size),
        setup.compute.device,
        setup.compute.exact,
        setup.recipe.train.images_a_batch,
    )
    if len(extract.spec.shape) != 1:
        raise UserError(
            f"{setup.recipe.model.backbone}: its head takes a map, and a probe needs a vector, as an earlier "
            "layer gives it (`finetune probe --layers`)."
        )
    where: Where = "memory" if setup.recipe.cache.where in ("memory", "off") else "disk"
    split = setup.source.splits[split_name]
    rows = sum(len(each) for each in setup.source.splits.values())
    store = open_store(setup, extract, k, where, rows * extract.spec.nbytes, plain=True)
    looks = CachedFeatures(store, extract, split, EvalTransform(preprocessing), plain=True)
    draws = [(index, 0) for index in (range(len(split)) if places is None else places)]
    looks.fill(draws, workers=setup.workers, on_bad_image=setup.recipe.data.on_bad_image, progress=tell)
    batch = looks.batch(draws)
    setup.loader.report_bad_images(batch.bad)
    groups = None if split.groups is None else split.groups[list(batch.indices)]
    return Rows(batch.images.float().numpy(), batch.labels.numpy(), groups)


def _head(setup: Setup) -> nn.Linear:
    head = linear_of(setup.network.module, setup.network.head_path)
    if head is None:
        raise UserError(f"{setup.recipe.model.backbone}: its head is no linear layer with a bias.")
    return head
