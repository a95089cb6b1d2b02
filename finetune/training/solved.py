"""The head of a phase under ``optimizer: lbfgs``: solved on the kept features, not stepped towards."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from finetune.data.holdout.folds import inner_folds
from finetune.errors import DataError, UserError
from finetune.features.softmax import Targets
from finetune.features.solve import LinearHead, LinearProblem, choose_decay, cross_entropy, solve
from finetune.model.head import find_linear
from finetune.training.caching.frozen import Frozen
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.prepare import Setup
from finetune.training.steps.loop import Totals

log = logging.getLogger("finetune")


def solve_head(plan: PhasePlan, setup: Setup, frozen: Frozen | None, totals: Totals) -> None:
    """Put the solution into the network's head, and the moving average's; ``totals`` gets loss and top-1.

    Raises:
        UserError: something else than a linear head is left to train.
        DataError: a class has no readable training image.
    """
    if frozen is None:
        raise UserError(
            "optimizer: lbfgs needs a network that is cut before its head; this one cannot be. Take adamw."
        )
    train = frozen.train_set()
    head = _linear_left(setup, frozen, train.images)
    if head is None:
        raise UserError(
            "optimizer: lbfgs solves a linear layer that takes one vector an image, and the head "
            f"({setup.network.head_path}) with all that is not frozen is more than that. Write freeze: "
            "backbone, or take sgd or adamw."
        )
    features, targets = train.images.float().numpy(), train.labels.numpy()
    classes = setup.source.classes
    counts = torch.bincount(train.labels, minlength=len(classes)).tolist()
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise DataError(f"optimizer: lbfgs: no training image of {empty[0]!r} can be read")
    weight = setup.criterion.weight
    weights = weight.tolist() if isinstance(weight, torch.Tensor) else None
    problem = LinearProblem(features, targets, len(classes), weights)
    decay, start, chosen = plan.weight_decay, None, ""
    if decay is None:
        folds = inner_folds(targets, setup.recipe.seed, _together(setup, train.indices))
        best = choose_decay(problem, folds)
        decay, start = best.decay, best.start
        chosen = ", chosen by cross-validation on train"
    found = solve(problem, decay, start=start)
    log.info("head solved: weight_decay %.3g%s", decay, chosen)
    put_in(head, found)
    if setup.ema is not None:
        averaged = find_linear(setup.ema.module, setup.network.head_path)
        assert averaged is not None  # a copy of the network
        put_in(averaged, found)
    logits = found.logits(features)
    losses = cross_entropy(logits, targets)
    if weights is not None:
        share = torch.tensor(weights, dtype=torch.float64)[train.labels].numpy()
        losses = losses * share * (len(share) / share.sum())
    totals.images, totals.skipped = len(targets), len(train.bad)
    totals.loss, totals.correct = float(losses.sum()), int((logits.argmax(1) == targets).sum())


def _together(setup: Setup, indices: Sequence[int]) -> Targets | None:
    """What cross-validation holds out together: images of a group, and the looks of one image."""
    places, groups = np.asarray(indices, dtype=np.int64), setup.source.splits["train"].groups
    if groups is not None:
        return groups[places]
    return places if len(np.unique(places)) < len(places) else None


@torch.no_grad()
def put_in(head: nn.Linear, found: LinearHead) -> None:
    """Give ``head``, which has a bias, the weights of ``found``."""
    head.weight.copy_(torch.from_numpy(found.weight))
    head.bias.copy_(torch.from_numpy(found.bias))


def _linear_left(setup: Setup, frozen: Frozen, features: torch.Tensor) -> nn.Linear | None:
    """The head's linear layer, if it is all that is left of the network after its frozen layers."""
    evaluated = find_linear(setup.evaluated, setup.network.head_path)
    if evaluated is None or features.ndim != 2:
        return None
    part = features[:2].to(setup.compute.device)
    with torch.no_grad(), setup.compute.exact():
        alone = torch.equal(frozen.evaluated.eval()(part), evaluated(part))
    return find_linear(setup.network.module, setup.network.head_path) if alone else None
