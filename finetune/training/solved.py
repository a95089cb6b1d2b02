"""A phase that solves its head (``optimizer: lbfgs``): softmax regression on cached features, in one step."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.data.holdout.folds import inner_folds
from finetune.errors import DataError, UserError
from finetune.features.softmax import Targets
from finetune.features.solve import LinearHead, LinearProblem, choose_decay, cross_entropy, solve
from finetune.model.head import find_linear
from finetune.training.caching.prefix import FrozenPrefix
from finetune.training.session import Session
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.prepare import Setup
from finetune.training.steps.loop import Totals
from finetune.training.steps.losses import LogitAdjustedLoss

log = logging.getLogger("finetune")


class SolvedHead:
    """The one step of a phase that solves its head.

    A stop during val leaves the step made and the epoch open. The head is then in ``last``, and a resume only
    evaluates it.
    """

    save_rarely = False

    def __init__(self, session: Session, plan: PhasePlan) -> None:
        session.optimizer = session.scaler = None
        session.optimizer_state = {}
        self._session = session
        self._plan = plan
        self._prefix: FrozenPrefix | None = None

    def attach(self, prefix: FrozenPrefix | None) -> None:
        self._prefix = prefix

    def train_epoch(self) -> None:
        """Solve the head, unless an interrupted run has done so already.

        Raises:
            UserError: more than a linear head is left to train.
            DataError: a class has no readable training image.
        """
        position, setup = self._session.position, self._session.setup
        if position.phase_step >= self._plan.steps:
            return
        if self._prefix is None:
            raise UserError(
                "optimizer: lbfgs needs a network that can be cut before its head, and this one cannot. Use "
                "optimizer: adamw."
            )
        train = self._prefix.train_set()
        heads = _linear_heads(setup, self._prefix, train.images)
        found, position.totals = _solve(setup, train, self._plan.weight_decay)
        for head in heads:
            set_head(head, found)
        position.made_step()

    def rates(self) -> dict[str, float]:
        return {}


@torch.no_grad()
def set_head(head: nn.Linear, found: LinearHead) -> None:
    """Copy the weights of ``found`` into ``head``, which has a bias."""
    head.weight.copy_(torch.from_numpy(found.weight))
    head.bias.copy_(torch.from_numpy(found.bias))


def _solve(setup: Setup, train: Batch, decay: float | None) -> tuple[LinearHead, Totals]:
    """The head, and its loss and top-1 on train. ``decay`` None: chosen by cross-validation on train."""
    features, targets = train.images.float().numpy(), train.labels.numpy()
    classes = setup.source.classes
    counts = torch.bincount(train.labels, minlength=len(classes)).tolist()
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise DataError(f"optimizer: lbfgs: no training image of class {empty[0]!r} can be read")
    criterion = setup.criterion
    weights = None if criterion.weight is None else criterion.weight.tolist()
    offsets = criterion.offsets.tolist() if isinstance(criterion, LogitAdjustedLoss) else None
    problem = LinearProblem(features, targets, len(classes), weights, offsets)
    start, chosen = None, ""
    if decay is None:
        folds = inner_folds(targets, setup.recipe.seed, _groups(setup, train.indices))
        best = choose_decay(problem, folds)
        decay, start = best.decay, best.start
        chosen = ", chosen by cross-validation on train"
    found = solve(problem, decay, start=start)
    log.info("head solved: weight_decay %.3g%s", decay, chosen)
    logits = found.logits(features)
    losses = cross_entropy(logits + problem.shift, targets) * problem.row_weights
    correct = int((logits.argmax(1) == targets).sum())
    return found, Totals(len(targets), float(losses.sum()), correct, len(train.bad))


def _groups(setup: Setup, indices: Sequence[int]) -> Targets | None:
    """The rows that cross-validation holds out together: a group's images, or the views of one image."""
    places, groups = np.asarray(indices, dtype=np.int64), setup.source.splits["train"].groups
    if groups is not None:
        return groups[places]
    return places if len(np.unique(places)) < len(places) else None


def _linear_heads(setup: Setup, prefix: FrozenPrefix, features: torch.Tensor) -> list[nn.Linear]:
    """The linear head of the network, and that of its moving average.

    Raises:
        UserError: the head is not linear, or more than the head follows the frozen layers.
    """
    path = setup.network.head_path
    modules = [setup.network.module, *([setup.ema.module] if setup.ema is not None else [])]
    heads = [find_linear(module, path) for module in modules]
    evaluated = heads[-1]
    if evaluated is not None and features.ndim == 2:
        part = features[:2].to(setup.compute.device)
        with torch.no_grad(), setup.compute.exact():
            is_all = torch.equal(prefix.evaluation_suffix.eval()(part), evaluated(part))
        if is_all:
            return [head for head in heads if head is not None]
    raise UserError(
        "optimizer: lbfgs solves a linear head on one feature vector per image, but the layers that are not "
        f"frozen hold more than that ({path}). Use freeze: backbone, or optimizer: sgd or adamw."
    )
