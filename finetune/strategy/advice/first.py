"""The first pass of the training pictures: all that a solved head needs, and where advice begins.

Its features stay in the cache, so that the head is solved in seconds. It is a model that can be used while
the rest is still measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from finetune.data.sources.dataset import Source
from finetune.features.classifiers import require_two
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Shapes
from finetune.strategy.advice.sample import some_of
from finetune.strategy.advice.shapes import WORDS, in_shape, measure_shapes
from finetune.strategy.probe import Rows, features_of, frozen_recipe
from finetune.training.compute.precision import Compute, choose_compute, pick_device
from finetune.training.setup import Setup, load_data, prepare

# A linear classifier is cross-validated on so many pictures times classes at most, but for this many.
PROBED, LEAST_PROBED = 400_000, 512
ALL = "through all layers, once"

# Gets what pictures go through the network for, how many are done, and how many there are.
Tell = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class FirstPass:
    """The source network and what it makes of the training pictures.

    Attributes:
        setup: brings the pictures to size in the best way of ``shapes``.
        probed: of so many pictures as a linear classifier is cross-validated on.
        readable: so many training pictures can be read.
        computed: of these, so many went through the network now; the cache had the others.
    """

    compute: Compute
    source: Source
    setup: Setup
    shapes: Shapes | None
    probed: Rows
    readable: int
    computed: int


def compute_for(recipe: Recipe, device: str | None) -> Compute:
    """Where and how advice on ``recipe`` computes."""
    return choose_compute(pick_device(device), frozen_recipe(recipe, None).train)


def first_pass(recipe: Recipe, compute: Compute, tell: Tell) -> FirstPass:
    """All training pictures through the network, once. ``compute`` is in force.

    Raises:
        UserError: weights that cannot be had, or a network that cannot be cut.
        DataError: the data cannot serve, or a class has fewer than two training pictures.
    """
    source = load_data(recipe.data, recipe.seed)
    classes, train = len(source.classes), source.splits["train"]
    require_two(train.targets, classes, train.groups)
    passed: dict[str, int] = {}

    def counted(what: str, done: int, total: int) -> None:
        passed[what] = done
        tell(what, done, total)

    setup = prepare(frozen_recipe(recipe, None), source, compute)
    shapes = measure_shapes(recipe, setup, train, counted)
    setup = in_shape(recipe, setup, shapes)
    rows = features_of(setup, "train", partial(counted, ALL))
    # Those that were compared in the way that is gone on with came from the cache just now.
    computed = passed.get(ALL, 0) + (0 if shapes is None else passed.get(WORDS[shapes.best], 0))
    some = some_of(rows.targets, rows.groups, max(PROBED // classes, LEAST_PROBED), recipe.seed)
    groups = None if rows.groups is None else rows.groups[some]
    probed = Rows(rows.features[some], rows.targets[some], groups)
    return FirstPass(compute, source, setup, shapes, probed, len(rows.targets), computed)
