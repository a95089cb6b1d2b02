"""Wide and tall pictures: what becomes of their borders, measured on frozen features.

A square cut out of the middle of a wide picture leaves the rest of it out. Whether what matters lies there
depends on the pictures, and so does what is worse: borders that are not seen, squashed shapes, or a smaller
picture between bars. So each way is tried on the same training pictures and folds. Where pictures are near
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
import torch

from finetune.data.batches.loaders import eval_batches
from finetune.data.holdout.folds import Folds, inner_folds, per_class
from finetune.data.picture.bands import COLOURS
from finetune.data.picture.images import read_image
from finetune.data.picture.preprocessing import Preprocessing, ResizeMode
from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError, UserError
from finetune.features.depths import Depths
from finetune.features.extract import costs
from finetune.features.softmax import Features, Targets
from finetune.features.solve import choose_decay, solve
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Shapes, Sized
from finetune.training.setup import Setup, settle_preprocessing, with_preprocessing

# A picture is long if its longer side is this many times its shorter one: 3 to 2 is, 4 to 3 is not.
LONG = 1.45
# Where fewer than this share of them are long, too little is cut away to look for.
ENOUGH = 0.2
# So many pictures' sizes are read, from their headers.
SIZES = 200
# Pictures that go through the network in each way; fewer where it is large, as with augmented copies.
MOST, FEWEST, OPERATIONS = 256, 64, 3e12
TOGETHER = 16
WAYS: tuple[ResizeMode, ...] = ("shorter", "squash", "pad")

# Which of a split's pictures to look at, if about so many are wanted.
Some = Callable[[Targets, Targets | None, int, int], Targets]
Tell = Callable[[str, int, int], None]


def measure_shapes(recipe: Recipe, setup: Setup, split: Split, some: Some, tell: Tell) -> Shapes | None:
    """How long the pictures of ``split`` (train) are and, where many are long, what each way is worth.

    Ways are compared only where the recipe leaves ``data.resize_mode`` open. None: no size can be read.

    Args:
        recipe: as it was given; ``setup`` is built of it.
        some: draws a sample, every class with its share, none with a single picture.
        tell: called as pictures go through the network.
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
    sample = split.subset(some(split.targets, split.groups, _affordable(setup), recipe.seed))
    ways: dict[ResizeMode, Preprocessing] = {}
    for way in WAYS:
        # The recipe's own `resize` may not go with it.
        with contextlib.suppress(UserError):
            ways[way] = _settled(recipe, setup, way)
    return dataclasses.replace(shapes, sized=_compare(setup, sample, own, ways, tell))


def in_shape(recipe: Recipe, setup: Setup, shapes: Shapes | None) -> Setup:
    """``setup`` with the pictures of evaluation brought to size in the way that was found best."""
    if shapes is None or shapes.best == shapes.own:
        return setup
    preprocessing = _settled(recipe, setup, shapes.best)
    return dataclasses.replace(
        setup,
        recipe=with_preprocessing(setup.recipe, preprocessing),
        card=dataclasses.replace(setup.card, preprocessing=preprocessing),
    )


def with_shape(recipe: Recipe, shapes: Shapes | None) -> Recipe:
    """``recipe`` with the way that was found best, where that is not the weights' own."""
    if shapes is None or shapes.best == shapes.own:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"resize_mode": shapes.best})})


def _settled(recipe: Recipe, setup: Setup, way: ResizeMode) -> Preprocessing:
    data = recipe.data.model_copy(update={"resize_mode": way})
    return settle_preprocessing(data, setup.network.input_spec)


def _compare(
    setup: Setup, sample: Split, own: Preprocessing, ways: dict[ResizeMode, Preprocessing], tell: Tell
) -> dict[ResizeMode, Sized]:
    """Cross-validate a linear classifier on what each way shows the network, all on the same folds."""
    order = [own.resize_mode, *(way for way in ways if way != own.resize_mode)]
    done = 0
    right: dict[ResizeMode, npt.NDArray[np.bool_]] = {}
    kept: tuple[Targets, Targets, Folds] | None = None
    for way in order:
        told = partial(_tell, tell, done, len(order) * len(sample))
        features, places = _features(setup, sample, ways[way], told)
        done += len(sample)
        if kept is None:
            kept = _folds(sample, places, setup.recipe.seed)
        if kept is None:
            return {}
        which, targets, folds = kept
        right[way] = _held_out(features[which], targets, folds)
    return {way: Sized(float(found.mean()), *_gain(found, right[order[0]])) for way, found in right.items()}


def _tell(tell: Tell, before: int, total: int, done: int) -> None:
    tell("cropped, squashed and padded", before + done, total)


def _features(
    setup: Setup, sample: Split, preprocessing: Preprocessing, tell: Callable[[int], None]
) -> tuple[Features, Targets]:
    """(N, D) after the last layer, of those pictures of the sample that can be read, and which these are."""
    network, last = setup.network, len(setup.network.table.body)
    size, channels = preprocessing.image_size, preprocessing.channels
    depths = Depths(network.module.eval(), network.table, (last,), size, channels, folded=True)
    rows: list[torch.Tensor] = []
    places: list[int] = []
    done = 0
    for batch in eval_batches(
        sample,
        preprocessing,
        batch_size=TOGETHER,
        workers=setup.workers,
        on_bad_image=setup.recipe.data.on_bad_image,
    ):
        if batch.indices:
            rows.append(depths(batch.images.to(setup.compute.device))[0].cpu())
            places += batch.indices
        done += len(batch.indices) + len(batch.bad)
        tell(done)
    features = torch.cat(rows).numpy() if rows else np.empty((0, 0), dtype=np.float32)
    return features, np.asarray(places, dtype=np.int64)


def _folds(sample: Split, places: Targets, seed: int) -> tuple[Targets, Targets, Folds] | None:
    """Which of the rows count (of classes of two pictures or groups), their classes from 0 on, and folds."""
    targets = sample.targets[places]
    groups = None if sample.groups is None else sample.groups[places]
    if not len(targets):
        return None
    there = np.unique(targets)
    usable = there[per_class(targets, groups) >= 2]
    which = np.flatnonzero(np.isin(targets, usable))
    if len(usable) < 2:
        return None
    own = np.searchsorted(usable, targets[which]).astype(np.int64)
    folds = inner_folds(own, seed, None if groups is None else groups[which])
    return (which, own, folds) if folds else None


def _held_out(features: Features, targets: Targets, folds: Folds) -> npt.NDArray[np.bool_]:
    """Whether each picture is put into its class by a classifier that did not learn from it."""
    classes = int(targets.max()) + 1
    decay = choose_decay(features, targets, classes, folds).decay
    right = np.zeros(len(targets), dtype=bool)
    for train, held in folds:
        head = solve(features[train], targets[train], classes, decay, rough=True)
        right[held] = head.logits(features[held]).argmax(1) == targets[held]
    return right


def _gain(found: npt.NDArray[np.bool_], own: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """How much more often ``found`` is right, and that number's standard error, from where they differ."""
    gain = float(found.mean() - own.mean())
    return gain, math.sqrt(max(float((found != own).mean()) - gain**2, 0.0) / len(own))


def _ratios(split: Split, bands: int | None) -> npt.NDArray[np.float64]:
    """Longer side to shorter side of some pictures, without decoding those that are files."""
    found = []
    for index in np.linspace(0, len(split) - 1, min(SIZES, len(split)), dtype=np.int64).tolist():
        try:
            path = Path(split.name(index))
            if bands is not None and bands > COLOURS:
                pixels = np.asarray(split.picture(index, bands))
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
    """The share of a picture's area that the network sees; ``seen``: of a side that the crop only trims."""
    if way == "pad":
        return 1.0
    return seen**2 / (ratio if way == "shorter" else 1.0)


def _affordable(setup: Setup) -> int:
    network, own = setup.network, setup.card.preprocessing
    flops = costs(network.module, network.table, own.image_size, own.channels)[-1].flops
    return max(FEWEST, min(MOST, int(OPERATIONS / (len(WAYS) * max(flops, 1)))))
