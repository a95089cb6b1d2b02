"""Which source network? Each scored on the target's training images, without training any of them.

What ranks is a probe: the best of the linear classifiers on the network's features, by cross-validation.
LogME and the H-score stand beside it, since they cost next to nothing; how far they can be trusted on these
images is measured by how well their order agrees with the probe's.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from finetune.data.dataset import Source
from finetune.errors import DataError, UserError
from finetune.evaluation.metrics import wilson
from finetune.features.classifiers import best_linear, fit_classifiers, require_two_per_class
from finetune.features.cut import CutError
from finetune.features.extract import cost
from finetune.features.softmax import Features, Targets
from finetune.recipe.schema import Recipe
from finetune.strategy.probing.probe import Tell, features_of, frozen_recipe
from finetune.strategy.probing.transferability import h_score, log_me
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import Compute, choose_compute, pick_device
from finetune.training.setup.prepare import load_data, prepare

# Of fewer networks, an order agrees with another one by chance too often for a number to mean anything.
FEWEST = 3


@dataclass(frozen=True)
class Ranked:
    """What one network's features say of the training images, and what it cost to know.

    Attributes:
        backbone: its name.
        weights: the recipe's ``model.weights``.
        cv_top1: the probe's cross-validated accuracy, a fraction; ``cv_low`` to ``cv_high`` is Wilson's 95 %
            for as many images. It covers the draw of the images, not that of the folds, and the choice
            among the classifiers makes ``cv_top1`` a little too high, for every network alike.
        n: training images.
        classifier, setting: which linear classifier that was.
        log_me: :func:`finetune.strategy.probing.transferability.log_me`.
        h_score: :func:`finetune.strategy.probing.transferability.h_score`, shrunk, without
            which it would say nothing where there are more features than images.
        features: numbers that the network makes of an image.
        parameters: those of the network without its head.
        gflops: of one image without the head, counted as ``finetune backbones`` does: a multiplication and
            its addition are one.
        image_size: of the images that it sees, in pixels.
        computed: images that went through the network; the rest were in the feature cache.
        feature_seconds, score_seconds, probe_seconds: measured: computing or reading the features, LogME and
            the H-score, the classifiers.
    """

    backbone: str
    weights: str
    cv_top1: float
    cv_low: float
    cv_high: float
    n: int
    classifier: str
    setting: str
    log_me: float
    h_score: float
    features: int
    parameters: int
    gflops: float
    image_size: int
    computed: int
    feature_seconds: float
    score_seconds: float
    probe_seconds: float


@dataclass(frozen=True)
class LeftOut:
    """A network that has no place in the ranking, and why."""

    backbone: str
    weights: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """How well a quick score's order of ``n`` networks agrees with the probe's: Kendall's tau-b.

    From -1 (the reverse order) to 1 (the same); ``p_value`` is the chance of one as far from 0 between orders
    that have nothing to do with each other. Both are None where ``why`` says why.
    """

    n: int
    tau: float | None
    p_value: float | None
    why: str | None = None


@dataclass(frozen=True)
class Ranking:
    """Networks, best first, those left out, and by quick score (``log_me``, ``h_score``) its agreement."""

    ranked: tuple[Ranked, ...]
    left_out: tuple[LeftOut, ...]
    agreement: dict[str, Agreement]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "backbones": [asdict(each) for each in self.ranked],
            "left_out": [asdict(each) for each in self.left_out],
            "kendall_tau_with_probe": {name: asdict(each) for name, each in self.agreement.items()},
        }


def rank(
    recipes: Sequence[Recipe],
    *,
    device: str | None = None,
    telling: Callable[[Recipe, Source], Tell] = lambda recipe, source: lambda done, total: None,
) -> Ranking:
    """Score the source networks of ``recipes`` on the training images of the data that they share.

    Val and test play no part. Features are kept on disk as ``cache`` of the recipes says, and read from there
    where they were computed before.

    Args:
        recipes: the same but for ``model``; one or more.
        telling: called before each network; what it returns gets the number of images done, and of all that
            go through this network.

    Raises:
        UserError: not one of the networks can be had; the message has the reason of each.
        DataError: the data cannot serve.
    """
    shared = recipes[0]
    source = load_data(shared.data, shared.seed)
    train = source.splits["train"]
    require_two_per_class(train.targets, len(source.classes), train.groups)
    compute = choose_compute(pick_device(device), frozen_recipe(shared, None).train)
    ranked, left_out = [], []
    with in_force(compute):
        for recipe in recipes:
            found = _score(recipe, source, compute, telling(recipe, source))
            if isinstance(found, Ranked):
                ranked.append(found)
            else:
                left_out.append(found)
    if not ranked:
        raise UserError(
            "none of the networks can be ranked:\n"
            + "\n".join(f"  {each.backbone}: {each.reason}" for each in left_out)
        )
    ranked.sort(key=lambda each: (-each.cv_top1, -each.log_me))
    return Ranking(
        tuple(ranked),
        tuple(left_out),
        {name: agreement_with_probe(name, ranked) for name in ("log_me", "h_score")},
    )


def agreement_with_probe(name: str, ranked: Sequence[Ranked]) -> Agreement:
    """How the order by the quick score called ``name`` agrees with that by the probe's accuracy."""
    from scipy.stats import kendalltau

    n = len(ranked)
    if n < FEWEST:
        return Agreement(n, None, None, f"too few networks to say ({n}; it takes {FEWEST})")
    scores = [getattr(each, name) for each in ranked]
    accuracies = [each.cv_top1 for each in ranked]
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return Agreement(n, None, None, "all networks are equal, and there is no order")
    found = kendalltau(scores, accuracies, variant="b")
    return Agreement(n, float(found.statistic), float(found.pvalue))


def quick_scores(features: Features, targets: Targets) -> tuple[float, float]:
    """LogME and the H-score of (N, D) features that are not all the same."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    shrinkage = float(ledoit_wolf_shrinkage(features.astype(np.float64)))
    return log_me(features, targets), h_score(features, targets, shrinkage)


def _score(recipe: Recipe, source: Source, compute: Compute, tell: Tell) -> Ranked | LeftOut:
    """One network, or why it has no place."""
    model = recipe.model
    weights = model.weights if isinstance(model.weights, str) else model.weights.path

    def left_out(reason: object) -> LeftOut:
        return LeftOut(model.backbone, weights, str(reason))

    computed = 0

    def counted(done: int, total: int) -> None:
        nonlocal computed
        computed = total
        tell(done, total)

    try:
        setup = prepare(frozen_recipe(recipe, None), source, compute)
        began = time.perf_counter()
        features, targets, groups = features_of(setup, "train", counted)
        feature_seconds = time.perf_counter() - began
    except DataError:
        # Of the images, which all networks share.
        raise
    except (UserError, CutError) as error:
        return left_out(error)
    if not np.isfinite(features).all():
        return left_out("its features are infinite or not a number")
    began = time.perf_counter()
    try:
        probe = best_linear(fit_classifiers(features, targets, len(source.classes), recipe.seed, groups))
    except DataError as error:
        return left_out(error)
    probe_seconds = time.perf_counter() - began
    began = time.perf_counter()
    evidence, h = quick_scores(features, targets)
    score_seconds = time.perf_counter() - began
    n = len(targets)
    low, high = wilson(round(probe.cv_top1 * n), n)
    network, preprocessing = setup.network, setup.card.preprocessing
    size, channels = preprocessing.image_size, preprocessing.channels
    with torch.no_grad():
        priced = cost(network.module, network.table, len(network.table.body), size, channels)
    return Ranked(
        model.backbone,
        weights,
        probe.cv_top1,
        low,
        high,
        n,
        probe.name,
        probe.setting,
        evidence,
        h,
        math.prod(features.shape[1:]),
        sum(layer.num_parameters for layer in network.table.body),
        round(priced.flops / 2e9, 3),
        size,
        computed,
        round(feature_seconds, 3),
        round(score_seconds, 3),
        round(probe_seconds, 3),
    )
