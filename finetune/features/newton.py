"""The last stretch to the minimum of softmax regression, by Newton's method with conjugate gradients.

L-BFGS comes near a minimum in a few steps and to it in hundreds, each of them in double precision. Here the
steps are in single precision, and only what judges them is in double: the gradient, of which there are a few.
Rounding in a step makes it a little less good; the next gradient tells what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.features.softmax import Axes, Minimum, Targets, weighed

# Newton's steps, and products with the Hessian in each, at most.
STEPS, PRODUCTS = 20, 100
# A step is solved until so much of the gradient is left, in units in which the curvature is about 1 ...
LEFT = 0.1
# ... and halved so often, at most, where it does not go down. Near the minimum, the objective goes down by
# less than its own rounding: by such a share of itself it may seem to go up (Hager and Zhang 2005).
HALVINGS, ROUNDING = 10, 1e-14


@dataclass(frozen=True)
class _Place:
    """``table`` (C, R + 1), weight and bias; ``value`` of the objective there, and ``logs`` (N, C)."""

    table: Tensor
    value: float
    logs: Tensor


def refine(
    axes: Axes,
    targets: Targets,
    decay: float,
    class_weights: Sequence[float] | None,
    start: Minimum,
    *,
    enough: float,
) -> Minimum:
    """The minimum that :func:`~finetune.features.softmax.minimise` would find, from ``start`` near it.

    Args:
        axes: with ``rows`` (N, R).
        targets: (N,).
        decay: above 0, for features of unit total variance.
        enough: no derivative is larger. ``reached`` of the result says whether that was so.
    """
    rows, single, labels = axes.rows, axes.rows.float(), torch.from_numpy(targets)
    variances = torch.cat([axes.variances, torch.ones(1)]).float()
    weighing = weighed(labels, class_weights, rows.dtype)
    pull = torch.full((rows.shape[1] + 1,), decay, dtype=rows.dtype)
    pull[-1] = 0
    each = torch.arange(len(labels))

    def at(table: Tensor) -> _Place:
        logs = torch.addmm(table[:, -1], rows, table[:, :-1].T).log_softmax(1)
        value = -float(logs[each, labels] @ weighing) + 0.5 * float((pull * table.square()).sum())
        return _Place(table, value, logs)

    place = at(torch.cat([start.weight, start.bias[:, None]], dim=1))
    for _ in range(STEPS):
        shares = place.logs.exp()
        errors = shares.clone()
        errors[each, labels] -= 1
        errors *= weighing[:, None]
        gradient = torch.cat([errors.T @ rows, errors.sum(0)[:, None]], dim=1) + pull * place.table
        if float(gradient.abs().max()) <= enough:
            return _minimum(place, reached=True)
        step = _step(
            single, variances, shares.float(), weighing.float(), decay, gradient.float(), enough
        ).double()
        # Exactly, since single precision leaves some of it; it would add up over the steps.
        step[:, -1] -= step[:, -1].mean()
        slope = float((gradient * step).sum())
        rounding = ROUNDING * abs(place.value)
        for halving in range(HALVINGS):
            tried = at(place.table + step / 2**halving)
            if tried.value <= place.value + 1e-4 * slope / 2**halving + rounding:
                place = tried
                break
        else:
            break
    return _minimum(place, reached=False)


def _minimum(place: _Place, *, reached: bool) -> Minimum:
    return Minimum(place.table[:, :-1].contiguous(), place.table[:, -1].contiguous(), reached)


def _step(
    rows: Tensor,
    variances: Tensor,
    shares: Tensor,
    weighing: Tensor,
    decay: float,
    gradient: Tensor,
    enough: float,
) -> Tensor:
    """Minus the inverse Hessian times ``gradient`` (C, R + 1), nearly."""
    drawn = shares * weighing[:, None]
    pull = torch.full_like(variances, decay)
    pull[-1] = 0
    # Were shares and features independent, the Hessian would be the product of the shares' mean covariance
    # and the features'. It nearly is, and that one is inverted at once.
    between = torch.diag(drawn.sum(0)) - drawn.T @ shares
    bends, turn = torch.linalg.eigh(between)
    # A class that is told beyond doubt hardly bends the objective.
    curvatures = bends.clamp(min=1e-7 * float(bends[-1]))[:, None] * variances + pull

    def evened(way: Tensor) -> Tensor:
        """The inverse of that product, times ``way``; adding to all biases changes nothing."""
        even: Tensor = turn @ ((turn.T @ way) / curvatures)
        even[:, -1] -= even[:, -1].mean()
        return even

    def bent(way: Tensor) -> Tensor:
        """The Hessian times ``way``."""
        moves = torch.addmm(way[:, -1], rows, way[:, :-1].T)
        moves -= (shares * moves).sum(1, keepdim=True)
        moves *= drawn
        return torch.cat([moves.T @ rows, moves.sum(0)[:, None]], dim=1).addcmul_(way, pull)

    step, rest = torch.zeros_like(gradient), -gradient
    ready = evened(rest)
    way, length = ready, float((rest * ready).sum())
    goal = LEFT**2 * length
    for _ in range(PRODUCTS):
        along = bent(way)
        curvature = float((way * along).sum())
        if not curvature > 0:  # rounding
            break
        step.add_(way, alpha=length / curvature)
        rest.sub_(along, alpha=length / curvature)
        ready = evened(rest)
        before, length = length, float((rest * ready).sum())
        if length <= goal or float(rest.abs().max()) <= enough / 2:
            break
        way = ready + way * (length / before)
    return step
