"""The first pass of the training images: all that a solved head needs, and where advice begins.

Its features stay in the cache, so that the head is solved in seconds. It is a model that can be used while
the rest is still measured.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from finetune.data.dataset import Source
from finetune.features.classifiers import require_two_per_class
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Shapes
from finetune.strategy.advice.sample import some_of
from finetune.strategy.advice.shapes import WORDS, in_shape, measure_shapes
from finetune.strategy.probing.probe import Rows, features_of, frozen_recipe
from finetune.training.compute.precision import Compute, choose_compute, pick_device
from finetune.training.setup.prepare import Setup, load_data, prepare

# A linear classifier is cross-validated on so many images times classes at most, but for this many.
PROBED, LEAST_PROBED = 400_000, 512
# Of no more images than this there is a first model before it is known how they are best brought to size.
# Of more, a pass in a way that is not gone on with would take longer than the comparison.
SOON = 1_000

# Gets what images go through the network for, how many are done, and how many there are.
Tell = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class FirstPass:
    """The source network and what it makes of the training images.

    Attributes:
        setup: how images are brought to size: in the best way of ``shapes``, or in the weights' own.
        shapes: None where no size could be read.
        compared: whether ``shapes`` were measured; otherwise that is still to be done.
        probed: of so many images as a linear classifier is cross-validated on.
        readable: so many training images can be read.
        computed: of these, so many went through the network now; the cache had the others.
    """

    compute: Compute
    source: Source
    setup: Setup
    shapes: Shapes | None
    compared: bool
    probed: Rows
    readable: int
    computed: int


def compute_for(recipe: Recipe, device: str | None) -> Compute:
    """Where and how advice on ``recipe`` computes."""
    return choose_compute(pick_device(device), frozen_recipe(recipe, None).train)


def first_pass(recipe: Recipe, compute: Compute, tell: Tell) -> FirstPass:
    """All training images through the network, once. ``compute`` is in force.

    Raises:
        UserError: weights that cannot be had, or a network that cannot be cut.
        DataError: the data cannot serve, or a class has fewer than two training images.
    """
    source = load_data(recipe.data, recipe.seed)
    train = source.splits["train"]
    require_two_per_class(train.targets, len(source.classes), train.groups)
    setup = prepare(frozen_recipe(recipe, None), source, compute)
    if len(train) <= SOON:
        return _pass(recipe, source, setup, None, tell)
    return _in_best_shape(recipe, source, setup, tell)


def in_best_shape(recipe: Recipe, first: FirstPass, tell: Tell) -> FirstPass:
    """``first`` with the images brought to size in the best way, if that was not looked for yet."""
    return first if first.compared else _in_best_shape(recipe, first.source, first.setup, tell, first)


def _in_best_shape(
    recipe: Recipe, source: Source, setup: Setup, tell: Tell, first: FirstPass | None = None
) -> FirstPass:
    passed: dict[str, int] = {}

    def counted(what: str, done: int, total: int) -> None:
        passed[what] = done
        tell(what, done, total)

    shapes = measure_shapes(recipe, setup, source.splits["train"], counted)
    if first is not None and (shapes is None or shapes.best == shapes.own):
        return dataclasses.replace(first, shapes=shapes, compared=True)
    found = _pass(recipe, source, in_shape(recipe, setup, shapes), shapes, tell)
    # Those that were compared in the way that is gone on with came from the cache just now.
    more = 0 if shapes is None else passed.get(WORDS[shapes.best], 0)
    return dataclasses.replace(found, compared=True, computed=found.computed + more)


def _pass(recipe: Recipe, source: Source, setup: Setup, shapes: Shapes | None, tell: Tell) -> FirstPass:
    computed = 0

    def counted(done: int, total: int) -> None:
        nonlocal computed
        computed = done
        tell("through all layers, once", done, total)

    rows = features_of(setup, "train", counted)
    number = max(PROBED // len(source.classes), LEAST_PROBED)
    some = some_of(rows.targets, rows.groups, number, recipe.seed)
    groups = None if rows.groups is None else rows.groups[some]
    probed = Rows(rows.features[some], rows.targets[some], groups)
    return FirstPass(setup.compute, source, setup, shapes, False, probed, len(rows.targets), computed)
