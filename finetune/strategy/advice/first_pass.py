"""The first pass of the training images: everything that a solved head needs, and the start of advice.

Its features stay in the cache, so a head can be solved in seconds. That head is a usable model while the rest
is still being measured.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial

from finetune.data.dataset import Source
from finetune.features.classifiers import require_two_per_class
from finetune.features.progress import OnStage
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Shapes, Uneven
from finetune.strategy.advice.sample import stratified_sample
from finetune.strategy.advice.shapes import STAGES, in_shape, measure_shapes
from finetune.strategy.advice.uneven import measure_uneven
from finetune.strategy.probing.frozen_features import FeatureRows, features_of, frozen_recipe
from finetune.training.compute.precision import Compute
from finetune.training.setup.prepare import Setup, load_data, prepare

# A linear classifier is cross-validated on at most this number of images times classes, but on at least
# ``LEAST_PROBED`` images.
PROBED, LEAST_PROBED = 400_000, 512
# With at most this many images, there is a first model before the ways to resize are compared. With more, a
# pass in a way that is then discarded would take longer than the comparison.
SOON = 1_000


@dataclass(frozen=True)
class FirstPass:
    """The source network and its features of the training images.

    Attributes:
        setup: resizes images in the best way of ``shapes``, or in the weights' own.
        shapes: None if no size could be read.
        compared: whether ``shapes`` have been measured.
        probed: the images on which a linear classifier is cross-validated.
        uneven: the corrections for uneven classes; None if the classes are even.
        readable: the number of training images that can be read.
        computed: the number of these that the network computed now; the others were in the cache.
    """

    source: Source
    setup: Setup
    shapes: Shapes | None
    compared: bool
    probed: FeatureRows
    uneven: Uneven | None
    readable: int
    computed: int


def first_pass(recipe: Recipe, compute: Compute, progress: OnStage) -> FirstPass:
    """Compute the features of all training images once, with ``compute`` in force.

    Raises:
        UserError: the weights are not available, or the network cannot be cut.
        DataError: the data is unusable, or a class has fewer than two training images.
    """
    source = load_data(recipe.data, recipe.seed)
    train = source.splits["train"]
    require_two_per_class(train.targets, len(source.classes), train.groups)
    setup = prepare(frozen_recipe(recipe, None), source, compute)
    if len(train) <= SOON:
        return _pass(recipe, source, setup, None, progress)
    return _in_best_shape(recipe, source, setup, progress)


def in_best_shape(recipe: Recipe, first: FirstPass, progress: OnStage) -> FirstPass:
    """Return ``first`` with the images resized in the best way; compares the ways if this is still to do."""
    return first if first.compared else _in_best_shape(recipe, first.source, first.setup, progress, first)


def _in_best_shape(
    recipe: Recipe, source: Source, setup: Setup, progress: OnStage, first: FirstPass | None = None
) -> FirstPass:
    done_in: dict[str, int] = {}

    def counted(stage: str, done: int, total: int) -> None:
        done_in[stage] = done
        progress(stage, done, total)

    shapes = measure_shapes(recipe, setup, source.splits["train"], counted)
    if first is not None and (shapes is None or shapes.best == shapes.own):
        return dataclasses.replace(first, shapes=shapes, compared=True)
    found = _pass(recipe, source, in_shape(recipe, setup, shapes), shapes, progress)
    # The images compared in the chosen way came from the cache just now.
    more = 0 if shapes is None else done_in.get(STAGES[shapes.best], 0)
    return dataclasses.replace(found, compared=True, computed=found.computed + more)


def _pass(
    recipe: Recipe, source: Source, setup: Setup, shapes: Shapes | None, progress: OnStage
) -> FirstPass:
    rows = features_of(setup, "train", partial(progress, "through the network"))
    number = max(PROBED // len(source.classes), LEAST_PROBED)
    probed = rows.subset(stratified_sample(rows.targets, rows.groups, number, recipe.seed))
    # Before the first model, whose head is solved with the chosen correction.
    uneven = measure_uneven(probed, recipe.seed)
    return FirstPass(source, setup, shapes, False, probed, uneven, len(rows.targets), rows.computed)
