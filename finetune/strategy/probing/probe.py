"""Probes: shallow classifiers on the frozen features of a network, after one layer or several.

The best linear one can be saved as an ordinary run: the network up to that layer, with the classifier as its
head.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from torch import nn

from finetune.data.dataset import Source
from finetune.errors import UserError
from finetune.evaluation.metrics import Metrics
from finetune.evaluation.resampling import share_interval
from finetune.features.classifiers import Classifier, best_linear, fit_classifiers
from finetune.features.progress import OnProgress, no_progress
from finetune.model.build import describe as describe_layers
from finetune.model.head import find_linear
from finetune.model.layers.table import Layer
from finetune.recipe.schema import Recipe
from finetune.strategy.probing.all_depths import SPLITS, features_at_depths
from finetune.strategy.probing.frozen_features import FeatureRows, features_of, frozen_compute, frozen_recipe
from finetune.training.compute.in_force import in_force
from finetune.training.describe import describe_run
from finetune.training.run.directory import RunDir
from finetune.training.run.environment import describe_environment
from finetune.training.run.own_data import RecordedData, describe_place
from finetune.training.run.position import Best
from finetune.training.session import EpochClock, Session
from finetune.training.setup.prepare import Setup, load_data, prepare
from finetune.training.solved import set_head
from finetune.training.trained import Trained

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Row:
    """One classifier at one layer. Accuracies are fractions.

    ``val_low`` to ``val_high`` is the 95 % interval, by groups where images have groups. ``val_n`` is the
    number of images of val.
    """

    layer: int
    name: str
    classifier: str
    setting: str
    cv_top1: float
    val_top1: float
    val_low: float
    val_high: float
    val_n: int


@dataclass(frozen=True)
class Depth:
    """A network cut after a layer, and the classifiers fitted on its features there.

    Attributes:
        winner: the linear classifier with the best cross-validated accuracy.
        prepare: builds the network.
    """

    recipe: Recipe
    layer: int
    name: str
    winner: Classifier
    rows: list[Row]
    prepare: Callable[[], Setup]

    @cached_property
    def setup(self) -> Setup:
        """The network up to the layer, with a head. It is built when it is first asked for."""
        return self.prepare()


def probe(
    recipe: Recipe,
    layers: Sequence[int] | None = None,
    *,
    device: str | None = None,
    weights_of: nn.Module | None = None,
    source: Source | None = None,
    progress: OnProgress = no_progress,
) -> list[Depth]:
    """Probe the features of ``recipe``'s source network on its data.

    Args:
        layers: the numbers of the layers to probe after, increasing; None: the last one before the head. One
            pass of the images computes the features after all of them.
        weights_of: a trained network of the same recipe, whose weights replace the source's.
        source: the images with their splits; None: the recipe's.
        progress: called with the images done of a split, and their total.

    Raises:
        UserError: a layer does not exist, or its features are not vectors.
        DataError: the data is unusable.
    """
    source = source or load_data(recipe.data, recipe.seed)
    compute = frozen_compute(recipe, device)
    with in_force(compute):
        if weights_of is not None:
            setup = prepare(recipe, source, compute)
            setup.network.module.load_state_dict(weights_of.state_dict())
            return [_probe_whole(recipe, setup, progress)]
        if layers is None or len(layers) == 1:
            at = None if layers is None else _checked(recipe, layers)[0]
            plain = frozen_recipe(recipe, at)
            return [_probe_whole(plain, prepare(plain, source, compute), progress)]
        cuts = dict(zip(layers, _checked(recipe, layers), strict=True))

        def alone(k: int) -> Setup:
            return prepare(frozen_recipe(recipe, cuts[k]), source, compute)

        setup = prepare(frozen_recipe(recipe, None), source, compute)
        found = []
        for k, train, val in features_at_depths(setup, layers, alone, progress):
            plain, layer = frozen_recipe(recipe, cuts[k]), setup.network.table.body[k - 1]
            found.append(_fit(plain, len(source.classes), layer, train, val, partial(alone, k)))
        return found


def _checked(recipe: Recipe, layers: Sequence[int]) -> list[int | None]:
    """Return ``model.head.at`` that probes each of ``layers``.

    Raises:
        UserError: a layer does not exist.
    """
    count = layer_count(recipe)
    if wrong := [each for each in layers if not 1 <= each <= count]:
        raise UserError(
            f"--layers {wrong[0]}: {recipe.model.backbone} has layers 1 to {count} before its head "
            "(`finetune layers`)."
        )
    return [None if each == count else each + 1 for each in layers]


def layer_count(recipe: Recipe) -> int:
    """Count the layers of the recipe's backbone before its head."""
    return len(describe_layers(recipe.model.backbone).body)


def before_and_after(
    trained: Trained, *, device: str | None = None, progress: OnProgress = no_progress
) -> tuple[Depth, Depth]:
    """Probe a run's network with its weights before training and after, on the run's train and val."""
    recipe, source = trained.recipe, None
    recorded = RecordedData.read(trained.run, recipe.data, trained.card.classes)
    if recorded is not None:
        own = recorded.find(groups=True)
        for line in own.changes.lines():
            log.warning("%s: changed since the run began: %s", own.place, line)
        source = own.source
    (before,) = probe(_without_reuse(recipe), device=device, source=source, progress=progress)
    (after,) = probe(recipe, device=device, weights_of=trained.module, source=source, progress=progress)
    return before, after


def save(depth: Depth, run: RunDir, command: str) -> tuple[Best, Metrics | None]:
    """Save the network up to this layer, with the winner as its head, as ``run``.

    The recipe of the run solves logistic regression on the same features. ``environment.json`` names the
    classifier whose weights these are.

    Args:
        command: the user's command, for the first line of the recipe.

    Returns:
        The results on val, and on test if there is a test split.
    """
    with in_force(depth.setup.compute):
        setup, winner = depth.setup, depth.winner
        assert winner.head is not None
        head = find_linear(setup.network.module, setup.network.head_path)
        if head is None:
            raise UserError(f"{setup.recipe.model.backbone}: its head is not a linear layer with a bias.")
        set_head(head, winner.head)
        environment = describe_environment(setup) | {
            "data_source": describe_place(setup.recipe.data.source, run.path),
            "probe": {"layer": depth.layer, "classifier": winner.name, "setting": winner.setting},
        }
        described = f"# {command}: {winner.name}{f' ({winner.setting})' if winner.setting else ''}, "
        text = f"{described}on the features of layer {depth.layer}, {depth.name}\n".encode()

        session, clock = Session(setup, run), EpochClock()
        # Evaluated before the run begins, so that a stop in between leaves no run. `train --resume` finishes
        # a run that was stopped later, whether its head is solved already or not.
        val = session.evaluate("val")
        described_run = describe_run(setup, None, environment)
        run.begin(dataclasses.replace(described_run, recipe=text + described_run.recipe))
        session.position.made_step()
        facts = {
            "probe": winner.name, "layer": depth.layer, "cv_top1": winner.cv_top1,
            "val_top1": val.top1, "val_loss": val.loss, "val_n": val.n,
        }  # fmt: skip
        session.end_epoch(facts, val, clock)
        test = session.finish()
        return session.best, test


def _without_reuse(recipe: Recipe) -> Recipe:
    """Remove from ``recipe`` what is used only at the start of a run."""
    head = recipe.model.head.model_copy(update={"reuse": None})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": head})})


def _probe_whole(recipe: Recipe, setup: Setup, progress: OnProgress) -> Depth:
    train, val = (features_of(setup, name, progress) for name in SPLITS)
    return _fit(recipe, len(setup.source.classes), setup.network.table.body[-1], train, val, lambda: setup)


def _fit(
    recipe: Recipe,
    classes: int,
    layer: Layer,
    train: FeatureRows,
    val: FeatureRows,
    prepare: Callable[[], Setup],
) -> Depth:
    """Fit the classifiers on the features of a layer, and measure them on val."""
    found = fit_classifiers(train.features, train.targets, classes, recipe.seed, train.groups)
    n = len(val.targets)
    rows = []
    for each in found:
        hits = each.predict(val.features) == val.targets
        low, high = share_interval(hits, val.groups)
        rows.append(
            Row(
                layer.number,
                layer.name,
                each.name,
                each.setting,
                each.cv_top1,
                float(hits.mean()),
                low,
                high,
                n,
            )
        )
    return Depth(recipe, layer.number, layer.name, best_linear(found), rows, prepare)
