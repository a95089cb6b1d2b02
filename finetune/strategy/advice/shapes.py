"""Wide and tall images: what becomes of their borders, measured on frozen features.

A square cut out of the middle of a wide image leaves the rest of it out. Whether what matters lies there
depends on the images, and so does what is worse: borders that are not seen, squashed shapes, or a smaller
image between bars. So each way is tried on the same training images and folds. Where images are near
square, all three show nearly the same, and nothing is tried.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Split
from finetune.data.holdout.folds import inner_folds
from finetune.errors import BadImageError, UserError
from finetune.features.extract import costs
from finetune.features.softmax import Targets
from finetune.features.solve import LinearProblem, choose_decay, solve
from finetune.image.bands import COLOURS
from finetune.image.decode import read_image
from finetune.image.preprocessing import ResizeMode
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Shapes, Sized
from finetune.strategy.advice.sample import some_of, twice_or_more
from finetune.strategy.probing.probe import Rows, features_of
from finetune.training.setup.prepare import Setup, settle_preprocessing, with_preprocessing

# An image is long if its longer side is this many times its shorter one: 3 to 2 is, 4 to 3 is not.
LONG = 1.45
# Where fewer than this share of them are long, too little is cut away to look for.
ENOUGH = 0.2
# So many images' sizes are read, from their headers.
SIZES = 200
# Images that go through the network in each way; fewer where it is large, as with augmented copies.
MOST, FEWEST, OPERATIONS = 256, 64, 3e12
# After so many of them, and of a class, ways that are not ahead are left out.
FIRST, FIRST_OF_A_CLASS = 96, 4
WORDS: dict[ResizeMode, str] = {"shorter": "cropped", "squash": "squashed", "pad": "padded"}
WAYS = tuple(WORDS)

Tell = Callable[[str, int, int], None]


def measure_shapes(recipe: Recipe, setup: Setup, split: Split, tell: Tell) -> Shapes | None:
    """How long the images of ``split`` (train) are and, where many are long, what each way is worth.

    Ways are compared only where the recipe leaves ``data.resize_mode`` open. None: no size can be read.

    Args:
        recipe: as it was given; ``setup`` is built of it.
        tell: called as images go through the network.
    """
    own = setup.card.preprocessing
    ratios = _ratios(split, setup.card.preprocessing.bands)
    if not len(ratios):
        return None
    share = float(np.mean(ratios >= LONG))
    seen = own.image_size / own.resize if own.resize_mode != "pad" else 1.0
    shown = [_shown(own.resize_mode, float(ratio), min(seen, 1.0)) for ratio in ratios]
    shapes = Shapes(len(ratios), float(np.median(ratios)), share, float(np.mean(shown)), own.resize_mode)
    if share < ENOUGH or recipe.data.resize_mode != "auto":
        return shapes
    ways: dict[ResizeMode, Setup] = {own.resize_mode: setup}
    for way in WAYS:
        if way != own.resize_mode:
            # The recipe's own `resize` may not go with it.
            with contextlib.suppress(UserError):
                ways[way] = _in_way(recipe, setup, way)
    return dataclasses.replace(shapes, sized=_compare(ways, split, tell))


def in_shape(recipe: Recipe, setup: Setup, shapes: Shapes | None) -> Setup:
    """``setup`` with the images of evaluation brought to size in the way that was found best."""
    return setup if shapes is None or shapes.best == shapes.own else _in_way(recipe, setup, shapes.best)


def with_shape(recipe: Recipe, shapes: Shapes | None) -> Recipe:
    """``recipe`` with the way that was found best, where that is not the weights' own."""
    if shapes is None or shapes.best == shapes.own:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"resize_mode": shapes.best})})


def _in_way(recipe: Recipe, setup: Setup, way: ResizeMode) -> Setup:
    data = recipe.data.model_copy(update={"resize_mode": way})
    preprocessing = settle_preprocessing(data, setup.network.input_spec)
    return dataclasses.replace(
        setup,
        recipe=with_preprocessing(setup.recipe, preprocessing),
        card=dataclasses.replace(setup.card, preprocessing=preprocessing),
    )


def _compare(ways: dict[ResizeMode, Setup], split: Split, tell: Tell) -> dict[ResizeMode, Sized]:
    """Cross-validate a linear classifier on what each way shows the network, all on the same folds.

    ``ways`` begin with the images' own. First on some images: a way that is not ahead there will hardly
    be ahead by two standard errors on all, and is not looked at further.
    """
    own, setup = next(iter(ways.items()))
    seed, classes = setup.recipe.seed, len(setup.source.classes)
    most = some_of(split.targets, split.groups, _affordable(setup), seed)
    groups = None if split.groups is None else split.groups[most]
    first = most[some_of(split.targets[most], groups, max(FIRST, FIRST_OF_A_CLASS * classes), seed)]
    found: dict[ResizeMode, Sized] = {}
    ahead = list(ways)
    for places in (first, most) if len(most) > 1.5 * len(first) else (most,):
        right = {way: _held_out(_rows(ways[way], way, places, tell), seed) for way in ahead}
        base = right[own]
        if base is None:
            return {}
        for way, each in right.items():
            assert each is not None  # the same images can be read, whatever their size is to be
            found[way] = Sized(float(each.mean()), *_gain(each, base), len(each))
        ahead = [own, *(way for way in ahead if found[way].gain > 0)]
        if len(ahead) == 1:
            break
    return found


def _rows(setup: Setup, way: ResizeMode, places: Targets, tell: Tell) -> Rows:
    """What the head gets; those of the way that is taken in the end are in the cache then."""
    return features_of(setup, "train", partial(tell, WORDS[way]), places.tolist())


def _held_out(rows: Rows, seed: int) -> npt.NDArray[np.bool_] | None:
    """Whether each image is put into its class by a classifier that did not learn from it.

    Images of classes of one image, or group, are left out. None where too little is left.
    """
    some = twice_or_more(rows.targets, rows.groups, np.arange(len(rows.targets)))
    classes, own = np.unique(rows.targets[some], return_inverse=True)
    if len(classes) < 2:
        return None
    targets = own.reshape(-1).astype(np.int64)
    folds = inner_folds(targets, seed, None if rows.groups is None else rows.groups[some])
    if not folds:
        return None
    features = rows.features[some]
    decay = choose_decay(LinearProblem(features, targets, len(classes)), folds).decay
    right = np.zeros(len(targets), dtype=bool)
    for train, held in folds:
        head = solve(LinearProblem(features[train], targets[train], len(classes)), decay, rough=True)
        right[held] = head.logits(features[held]).argmax(1) == targets[held]
    return right


def _gain(found: npt.NDArray[np.bool_], own: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """How much more often ``found`` is right, and that number's standard error, from where they differ."""
    gain = float(found.mean() - own.mean())
    return gain, math.sqrt(max(float((found != own).mean()) - gain**2, 0.0) / len(own))


def _ratios(split: Split, bands: int | None) -> npt.NDArray[np.float64]:
    """Longer side to shorter side of some images, without decoding those that are files."""
    found = []
    for index in np.linspace(0, len(split) - 1, min(SIZES, len(split)), dtype=np.int64).tolist():
        try:
            path = Path(split.name(index))
            if bands is not None and bands > COLOURS:
                pixels = np.asarray(split.image(index, bands))
                size = (pixels.shape[1], pixels.shape[0])
            elif path.is_file():
                size = read_image(path, lambda image: image.size)
            else:
                size = split.open(index).size
        except BadImageError:
            continue
        found.append(max(size) / min(size))
    return np.asarray(found, dtype=np.float64)


def _shown(way: ResizeMode, ratio: float, seen: float) -> float:
    """The share of an image's area that the network sees; ``seen``: of a side that the crop only trims."""
    if way == "pad":
        return 1.0
    return seen**2 / (ratio if way == "shorter" else 1.0)


def _affordable(setup: Setup) -> int:
    network, own = setup.network, setup.card.preprocessing
    flops = costs(network.module, network.table, own.image_size, own.channels)[-1].flops
    return max(FEWEST, min(MOST, int(OPERATIONS / (len(WAYS) * max(flops, 1)))))
