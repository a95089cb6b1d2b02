"""Ranks source networks on the training images, without training any of them.

The ranking is by probe: the best cross-validated accuracy of a linear classifier on the network's features.
LogME and the H-score are reported as well, because they are fast. How far they can be trusted on these images
is measured by the agreement of their order with the probe's.
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
from finetune.evaluation.resampling import share_interval
from finetune.features.classifiers import best_linear, fit_classifiers, require_two_per_class
from finetune.features.cut import CutError
from finetune.features.extract import cost
from finetune.features.progress import OnProgress, no_progress
from finetune.features.softmax import Features, Targets
from finetune.recipe.schema import Recipe
from finetune.strategy.probing.frozen_features import features_of, frozen_compute, frozen_recipe
from finetune.strategy.probing.transferability import h_score, log_me
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import Compute
from finetune.training.setup.prepare import load_data, prepare

# With fewer networks, two orders agree by chance too often for a number to mean anything.
FEWEST = 3


@dataclass(frozen=True)
class Ranked:
    """The scores of one source network, and what they cost.

    Attributes:
        weights: the recipe's ``model.weights``.
        cv_top1: the probe's cross-validated accuracy, a fraction; ``cv_low`` and ``cv_high`` bound its
            95 % interval, by groups where images have groups. It covers the choice of the images, not that of
            the folds. Choosing the best of the classifiers makes ``cv_top1`` slightly too high, for all
            networks alike.
        n: the number of training images.
        classifier, setting: the linear classifier of the probe.
        log_me, h_score: see :mod:`finetune.strategy.probing.transferability`. The H-score is shrunk, because
            there may be more features than images.
        features: the number of features per image.
        parameters: of the network without its head.
        gflops: billions of multiply-adds for one image without the head, as in ``finetune backbones``.
        image_size: in pixels.
        computed: the images that went through the network; the features of the others were cached.
        feature_seconds, score_seconds, probe_seconds: for computing or reading the features, for LogME and
            the H-score, and for the classifiers.
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
    """A network that could not be ranked, and why."""

    backbone: str
    weights: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """The agreement of a quick score's order of ``n`` networks with the probe's: Kendall's tau-b.

    It is between -1 (reverse order) and 1 (same order). ``p_value`` is the probability of a value this far
    from 0 for unrelated orders. Both are None if they cannot be computed; ``why`` then says why.
    """

    n: int
    tau: float | None
    p_value: float | None
    why: str | None = None


@dataclass(frozen=True)
class Ranking:
    """The networks, best first; those left out; and the agreement of each quick score, by its name."""

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
    progress_of: Callable[[Recipe, Source], OnProgress] = lambda recipe, source: no_progress,
) -> Ranking:
    """Score the source networks of ``recipes`` on the training images that they share.

    Val and test are not used. Features are cached as ``cache`` of the recipes says.

    Args:
        recipes: one or more, which differ only in ``model``.
        progress_of: called before each network; returns the callable that reports its progress.

    Raises:
        UserError: no network can be ranked; the message gives the reason for each.
        DataError: the data is unusable.
    """
    shared = recipes[0]
    source = load_data(shared.data, shared.seed)
    train = source.splits["train"]
    require_two_per_class(train.targets, len(source.classes), train.groups)
    compute = frozen_compute(shared, device)
    ranked, left_out = [], []
    with in_force(compute):
        for recipe in recipes:
            found = _score(recipe, source, compute, progress_of(recipe, source))
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
    """Compare the order by the quick score ``name`` with the order by the probe's accuracy."""
    from scipy.stats import kendalltau

    n = len(ranked)
    if n < FEWEST:
        return Agreement(n, None, None, f"too few networks to compare orders ({n}; it takes {FEWEST})")
    scores = [getattr(each, name) for each in ranked]
    accuracies = [each.cv_top1 for each in ranked]
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return Agreement(n, None, None, "all networks have equal scores")
    found = kendalltau(scores, accuracies, variant="b")
    return Agreement(n, float(found.statistic), float(found.pvalue))


def quick_scores(features: Features, targets: Targets) -> tuple[float, float]:
    """Compute LogME and the H-score of features (N, D), which must not be constant."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    shrinkage = float(ledoit_wolf_shrinkage(features.astype(np.float64)))
    return log_me(features, targets), h_score(features, targets, shrinkage)


def _score(recipe: Recipe, source: Source, compute: Compute, progress: OnProgress) -> Ranked | LeftOut:
    model = recipe.model
    weights = model.weights if isinstance(model.weights, str) else model.weights.path

    def left_out(reason: object) -> LeftOut:
        return LeftOut(model.backbone, weights, str(reason))

    try:
        setup = prepare(frozen_recipe(recipe, None), source, compute)
        began = time.perf_counter()
        features, targets, groups, computed, _ = features_of(setup, "train", progress)
        feature_seconds = time.perf_counter() - began
    except DataError:
        # The images are unusable for every network.
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
    network, preprocessing = setup.network, setup.card.preprocessing
    size, channels = preprocessing.image_size, preprocessing.channels
    with torch.no_grad():
        priced = cost(network.module, network.table, len(network.table.body), size, channels)
    return Ranked(
        model.backbone,
        weights,
        probe.cv_top1,
        *share_interval(probe.cv_hits, groups),
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
