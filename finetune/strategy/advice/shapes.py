"""The best way to resize wide and tall images, measured on frozen features.

The centre crop of a wide image drops its ends. Whether they matter depends on the images, and so does what is
worst: dropped borders, squashed shapes, or a smaller image between bars. So each way is tried on the same
training images and folds. If the images are nearly square, all three show nearly the same, and nothing is
measured.
"""

import contextlib
import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Split
from finetune.data.holdout.folds import inner_folds
from finetune.errors import BadImageError, UserError
from finetune.features.extract import costs
from finetune.features.progress import OnStage
from finetune.features.solve import LinearProblem, choose_decay, solve
from finetune.image.bands import COLOURS
from finetune.image.decode import read_image
from finetune.image.preprocessing import ResizeMode
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Shapes, Sized
from finetune.strategy.advice.sample import learnable, paired_gain, stratified_sample
from finetune.strategy.probing.frozen_features import FeatureRows, features_of
from finetune.training.setup.prepare import Setup, resolve_preprocessing, with_preprocessing

# An image is long if its longer side is this many times its shorter one: 3 to 2 is, 4 to 3 is not.
LONG = 1.45
# If the share of long images is below this, the crop drops too little to measure.
ENOUGH = 0.2
# The number of images whose size is read, from their headers.
SIZES = 200
# The number of images that are computed in each way: fewer if the network is large.
MOST, FEWEST, OPERATIONS = 256, 64, 3e12
# After this many images, and this many per class, ways that are not ahead are dropped.
FIRST, FIRST_OF_A_CLASS = 96, 4
STAGES: dict[ResizeMode, str] = {"shorter": "cropped", "squash": "squashed", "pad": "padded"}
WAYS = tuple(STAGES)


def measure_shapes(recipe: Recipe, setup: Setup, split: Split, progress: OnStage) -> Shapes | None:
    """Measure the aspect ratios of ``split`` (train) and, if many images are long, the value of each way.

    The ways are compared only if the recipe leaves ``data.resize_mode`` at auto. Returns None if no size can
    be read.

    Args:
        recipe: as the user gave it; ``setup`` is built from it.
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
            # The recipe's `resize` may exclude this way.
            with contextlib.suppress(UserError):
                ways[way] = _in_way(recipe, setup, way)
    return dataclasses.replace(shapes, sized=_compare(ways, split, progress))


def in_shape(recipe: Recipe, setup: Setup, shapes: Shapes | None) -> Setup:
    """Return ``setup`` with images resized in the best way."""
    return setup if shapes is None or shapes.best == shapes.own else _in_way(recipe, setup, shapes.best)


def with_shape(recipe: Recipe, shapes: Shapes | None) -> Recipe:
    """Return ``recipe`` with the best way, if that is not the weights' own."""
    if shapes is None or shapes.best == shapes.own:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"resize_mode": shapes.best})})


def _in_way(recipe: Recipe, setup: Setup, way: ResizeMode) -> Setup:
    data = recipe.data.model_copy(update={"resize_mode": way})
    preprocessing = resolve_preprocessing(data, setup.network.input_spec)
    return dataclasses.replace(
        setup,
        recipe=with_preprocessing(setup.recipe, preprocessing),
        card=dataclasses.replace(setup.card, preprocessing=preprocessing),
    )


def _compare(ways: dict[ResizeMode, Setup], split: Split, progress: OnStage) -> dict[ResizeMode, Sized]:
    """Cross-validate a linear classifier on each way, all on the same images and folds.

    ``ways`` starts with the weights' own. A first comparison is on fewer images: a way that is not ahead
    there is unlikely to be ahead by two standard errors on all, and is dropped.
    """
    own, setup = next(iter(ways.items()))
    seed, classes = setup.recipe.seed, len(setup.source.classes)
    most = stratified_sample(split.targets, split.groups, _affordable(setup), seed)
    groups = None if split.groups is None else split.groups[most]
    number = max(FIRST, FIRST_OF_A_CLASS * classes)
    first = most[stratified_sample(split.targets[most], groups, number, seed)]
    found: dict[ResizeMode, Sized] = {}
    ahead = list(ways)
    for places in (first, most) if len(most) > 1.5 * len(first) else (most,):
        correct = {}
        for way in ahead:
            rows = features_of(ways[way], "train", partial(progress, STAGES[way]), places.tolist())
            correct[way] = _held_out(rows, seed)
        base = correct[own]
        if base is None:
            return {}
        for way, each in correct.items():
            assert each is not None  # all ways have the same readable images
            found[way] = Sized(float(each.mean()), *paired_gain(each, base), len(each))
        ahead = [own, *(way for way in ahead if found[way].gain > 0)]
        if len(ahead) == 1:
            break
    return found


def _held_out(rows: FeatureRows, seed: int) -> npt.NDArray[np.bool_] | None:
    """Return whether each held-out image is classified correctly; None if there are too few images."""
    rows, classes = learnable(rows)
    folds = inner_folds(rows.targets, seed, rows.groups) if classes > 1 else []
    if not folds:
        return None
    features, targets = rows.features, rows.targets
    decay = choose_decay(LinearProblem(features, targets, classes), folds).decay
    correct = np.zeros(len(targets), dtype=bool)
    for train, held in folds:
        head = solve(LinearProblem(features[train], targets[train], classes), decay, rough=True)
        correct[held] = head.logits(features[held]).argmax(1) == targets[held]
    return correct


def _ratios(split: Split, bands: int | None) -> npt.NDArray[np.float64]:
    """Read the aspect ratios (longer to shorter side) of a sample; files are not decoded."""
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
    """Compute the share of an image's area that is seen; ``seen`` is that share of the shorter side."""
    if way == "pad":
        return 1.0
    return seen**2 / (ratio if way == "shorter" else 1.0)


def _affordable(setup: Setup) -> int:
    network, own = setup.network, setup.card.preprocessing
    flops = costs(network.module, network.table, own.image_size, own.channels)[-1].flops
    return max(FEWEST, min(MOST, int(OPERATIONS / (len(WAYS) * max(flops, 1)))))
