"""Newton's method with conjugate gradients, for the last steps to the minimum of softmax regression.

L-BFGS gets close to the minimum in a few steps, but reaches it only after hundreds of steps in double
precision. Here, only the gradient and the objective are computed in double precision, which is rarely. The
Newton steps are solved in single precision: rounding makes a step slightly worse, and the next gradient
corrects it.
"""

import torch
from torch import Tensor

from finetune.features.softmax import Minimum, Objective

# The largest number of Newton steps, and of Hessian products in each.
STEPS, PRODUCTS = 20, 100
# Conjugate gradients stop when this share of the gradient is left, in units in which the curvature is about
# 1.
REMAINDER = 0.1
# A step that does not lower the objective is halved up to this many times. Near the minimum the decrease is
# smaller than the rounding of the objective, so an increase of this share is accepted (Hager and Zhang 2005).
HALVINGS, ROUNDING = 10, 1e-14


def refine(objective: Objective, start: Minimum, *, tolerance: float) -> Minimum:
    """Continue from ``start``, which is close to the minimum, until no derivative exceeds ``tolerance``.

    ``objective`` has rows in double precision. The result is not ``converged`` if the tolerance was missed.
    """
    rows, single, labels = objective.rows, objective.rows.float(), torch.from_numpy(objective.targets)
    row_weights = objective.row_weights()
    pull = torch.full((rows.shape[1] + 1,), objective.decay, dtype=rows.dtype)
    pull[-1] = 0
    each = torch.arange(len(labels))

    def evaluate(table: Tensor) -> tuple[float, Tensor]:
        """Compute the objective and the log-probabilities (N, C)."""
        logs = torch.addmm(table[:, -1], rows, table[:, :-1].T).log_softmax(1)
        return -float(logs[each, labels] @ row_weights) + 0.5 * float((pull * table.square()).sum()), logs

    # Weight and bias, (C, R + 1).
    table, converged = torch.cat([start.weight, start.bias[:, None]], dim=1), False
    value, logs = evaluate(table)
    for _ in range(STEPS):
        shares = logs.exp()
        errors = shares.clone()
        errors[each, labels] -= 1
        errors *= row_weights[:, None]
        gradient = torch.cat([errors.T @ rows, errors.sum(0)[:, None]], dim=1) + pull * table
        if float(gradient.abs().max()) <= tolerance:
            converged = True
            break
        hessian = _Hessian(single, objective, shares.float(), row_weights.float())
        step = _newton_step(hessian, gradient.float(), tolerance).double()
        # Single precision leaves a small common shift of the biases, which would add up over the steps.
        step[:, -1] -= step[:, -1].mean()
        slope = float((gradient * step).sum())
        rounding = ROUNDING * abs(value)
        for halving in range(HALVINGS):
            tried = table + step / 2**halving
            new_value, new_logs = evaluate(tried)
            if new_value <= value + 1e-4 * slope / 2**halving + rounding:
                table, value, logs = tried, new_value, new_logs
                break
        else:
            break
    return Minimum(table[:, :-1].contiguous(), table[:, -1].contiguous(), converged)


class _Hessian:
    """The Hessian at one point, in single precision, as products with tables (C, R + 1).

    Args:
        rows: (N, R), those of ``objective`` in single precision.
        shares: (N, C), the predicted probabilities.
        row_weights: (N,).
    """

    def __init__(self, rows: Tensor, objective: Objective, shares: Tensor, row_weights: Tensor) -> None:
        variances = torch.cat([objective.variances, torch.ones(1)]).float()
        self._rows = rows
        self._shares = shares
        self._weighted = shares * row_weights[:, None]
        self._pull = torch.full_like(variances, objective.decay)
        self._pull[-1] = 0
        # If shares and features were independent, the Hessian would be the product of the mean covariance of
        # the shares and the covariance of the features. It nearly is, and that product is easy to invert.
        between = torch.diag(self._weighted.sum(0)) - self._weighted.T @ shares
        bends, self._turn = torch.linalg.eigh(between)
        # A class that is predicted with certainty hardly curves the objective.
        floor = 1e-7 * float(bends[-1])
        self._curvatures = bends.clamp(min=floor)[:, None] * variances + self._pull

    def times(self, direction: Tensor) -> Tensor:
        """Multiply the Hessian with ``direction``."""
        moves = torch.addmm(direction[:, -1], self._rows, direction[:, :-1].T)
        moves -= (self._shares * moves).sum(1, keepdim=True)
        moves *= self._weighted
        product = torch.cat([moves.T @ self._rows, moves.sum(0)[:, None]], dim=1)
        return product.addcmul_(direction, self._pull)

    def precondition(self, direction: Tensor) -> Tensor:
        """Multiply an approximate inverse with ``direction``; a common shift of the biases is removed."""
        solved: Tensor = self._turn @ ((self._turn.T @ direction) / self._curvatures)
        solved[:, -1] -= solved[:, -1].mean()
        return solved


def _newton_step(hessian: _Hessian, gradient: Tensor, tolerance: float) -> Tensor:
    """Minus the inverse Hessian times ``gradient`` (C, R + 1), by preconditioned conjugate gradients."""
    step, rest = torch.zeros_like(gradient), -gradient
    ready = hessian.precondition(rest)
    direction, length = ready, float((rest * ready).sum())
    goal = REMAINDER**2 * length
    for _ in range(PRODUCTS):
        along = hessian.times(direction)
        curvature = float((direction * along).sum())
        if not curvature > 0:  # rounding
            break
        step.add_(direction, alpha=length / curvature)
        rest.sub_(along, alpha=length / curvature)
        ready = hessian.precondition(rest)
        before, length = length, float((rest * ready).sum())
        if length <= goal or float(rest.abs().max()) <= tolerance / 2:
            break
        direction = ready + direction * (length / before)
    return step
