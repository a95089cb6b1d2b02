"""Probes: shallow classifiers on the frozen features of a network, after one layer or several.

The best linear one can be saved as an ordinary run: the network up to that layer, with the classifier as its
head.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from finetune.data.dataset import Source
from finetune.disk.figure import new_chart, write_figure
from finetune.errors import UserError
from finetune.evaluation.metrics import Metrics, wilson
from finetune.features.classifiers import Classifier, best_linear, fit_classifiers
from finetune.features.progress import OnProgress, no_progress
from finetune.model.build import describe as describe_layers
from finetune.model.head import find_linear
from finetune.recipe.schema import Recipe
from finetune.strategy.probing.frozen_features import features_of, frozen_compute, frozen_recipe
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
    """One classifier at one layer. Accuracies are fractions; ``val_low`` to ``val_high`` is Wilson's 95 %."""

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
    """A network cut after a layer, and the classifiers fitted on its features there."""

    recipe: Recipe
    setup: Setup
    layer: int
    name: str
    found: list[Classifier]
    rows: list[Row]

    @property
    def winner(self) -> Classifier:
        """The linear classifier with the best cross-validated accuracy."""
        return best_linear(self.found)


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
        layers: the numbers of the layers to probe after; None: the last one before the head.
        weights_of: a trained network of the same recipe, whose weights replace the source's.
        source: the images with their splits; None: the recipe's.
        progress: called with the images done for a layer, and their total.

    Raises:
        UserError: a layer does not exist, or its features are not vectors.
        DataError: the data is unusable.
    """
    source = source or load_data(recipe.data, recipe.seed)
    compute = frozen_compute(recipe, device)
    if layers is None:
        own = recipe.model.head.at if weights_of is not None else None
        plans: list[tuple[int | None, int | str | None]] = [(None, own)]
    else:
        count = layer_count(recipe)
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
            found.append(_probe_layer(plain, setup, number, progress))
    return found


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


def plot(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw cross-validated accuracy against depth, one line per classifier.

    Raises:
        UserError, SaveError: as :func:`finetune.disk.figure.write_figure`.
    """
    figure, axes = new_chart(7, 4.5, title)
    for name in dict.fromkeys(row.classifier for row in rows):
        own = [row for row in rows if row.classifier == name]
        axes.plot([row.layer for row in own], [100 * row.cv_top1 for row in own], marker="o", label=name)
    axes.set_xlabel("features after layer")
    axes.set_ylabel("top-1, cross-validated on train (%)")
    axes.legend()
    write_figure(figure, path)


def _without_reuse(recipe: Recipe) -> Recipe:
    """Remove from ``recipe`` what is used only at the start of a run."""
    head = recipe.model.head.model_copy(update={"reuse": None})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": head})})


def _probe_layer(recipe: Recipe, setup: Setup, number: int | None, progress: OnProgress) -> Depth:
    layer = setup.network.table.body[-1]
    train = features_of(setup, "train", progress)
    val = features_of(setup, "val", progress)
    found = fit_classifiers(
        train.features, train.targets, len(setup.source.classes), recipe.seed, train.groups
    )
    rows = []
    for each in found:
        correct = int((each.predict(val.features) == val.targets).sum())
        rows.append(
            Row(
                number or layer.number,
                layer.name,
                each.name,
                each.setting,
                each.cv_top1,
                correct / len(val.targets),
                *wilson(correct, len(val.targets)),
            )
        )
    return Depth(recipe, setup, layer.number, layer.name, found, rows)
