"""Softmax regression with an L2 penalty, minimised by L-BFGS (Liu and Nocedal 1989).

The features are centred and rotated to their principal axes. Neither changes the minimum: the bias is not
penalised, and the penalty does not change under rotation. Directions without variance are dropped, because
their weights are zero at the minimum; with fewer images than features, that is most of them. Along the
principal axes the curvature of the objective is close to (variance / number of classes + decay), so the
variables are scaled by its square root. This takes tens of L-BFGS steps. Without it, some directions are ten
thousand times as steep as others, and hundreds of steps are needed.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]

# Variances below this share of the largest one are rounding errors.
NEGLIGIBLE = 1e-14
# The number of past steps from which L-BFGS estimates the curvature.
MEMORY = 6


@dataclass(frozen=True)
class Axes:
    """Principal axes of features, scaled to a total variance of 1.

    Attributes:
        rows: (N, R), float64: the features along the axes. R is at most min(N, D).
        variances: (R,), float64.
        turn: (D, R), float64: ``rows`` is (features - ``mean``) @ ``turn`` / ``scale``.
    """

    rows: Tensor
    variances: Tensor
    turn: Tensor
    mean: Tensor
    scale: float

    @classmethod
    def of(cls, features: Features) -> Self:
        """Compute the axes of ``features`` (N, D)."""
        given = torch.from_numpy(np.ascontiguousarray(features)).double()
        mean = given.mean(0)
        rows = given - mean
        scale = math.sqrt(float(rows.square().sum()) / len(rows)) or 1.0
        rows /= scale
        span = None
        if rows.shape[0] < rows.shape[1]:
            # The rows span at most N dimensions: decompose there.
            span, lengths = torch.linalg.qr(rows.T)
            rows = lengths.T
        variances, turn = torch.linalg.eigh(rows.T @ rows / len(rows))
        varying = variances > NEGLIGIBLE * max(float(variances[-1]), NEGLIGIBLE)
        if not varying.any():
            varying[-1] = True
        turn = turn[:, varying]
        rows = rows @ turn
        return cls(rows, variances[varying], turn if span is None else span @ turn, mean, scale)


@dataclass(frozen=True, eq=False)
class Objective:
    """The mean cross-entropy, weighted by class, plus ``decay / 2 * |weight|^2``; the bias is not penalised.

    Attributes:
        rows: (N, R), features along principal axes. Computations use their dtype.
        variances: (R,), float64, of the axes.
        targets: (N,), in 0..num_classes-1.
        decay: above 0, relative to a total variance of 1.
        class_weights: (num_classes,); None: all equal.
    """

    rows: Tensor
    variances: Tensor
    targets: Targets
    num_classes: int
    decay: float
    class_weights: Sequence[float] | None = None

    def single_precision(self) -> Self:
        return dataclasses.replace(self, rows=self.rows.float())

    def row_weights(self) -> Tensor:
        """The weight of each row in the mean: (N,), with a sum of 1."""
        weights = torch.ones(len(self.targets), dtype=self.rows.dtype)
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, dtype=self.rows.dtype)[torch.from_numpy(self.targets)]
        return weights / weights.sum()


@dataclass(frozen=True)
class Minimum:
    """``weight`` (C, R) and ``bias`` (C,), float64, along axes, and whether the search ``converged``."""

    weight: Tensor
    bias: Tensor
    converged: bool

    def logits(self, rows: Tensor) -> npt.NDArray[np.float64]:
        """Compute logits (N, C) from ``rows`` along the axes."""
        found: npt.NDArray[np.float64] = ((rows @ self.weight.to(rows.dtype).T).double() + self.bias).numpy()
        return found

    def on_features(self, axes: Axes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Convert to weight (C, D) and bias (C,) for the original features."""
        weight = self.weight @ axes.turn.T / axes.scale
        return weight.numpy(), (self.bias - weight @ axes.mean).numpy()


def extrapolate(minima: Sequence[Minimum]) -> Minimum | None:
    """Continue the line through the last two of ``minima`` by its own length, as a start for the next.

    With fewer than three minima, returns the last one: the first step, from zero, predicts nothing.
    """
    if len(minima) < 3:
        return minima[-1] if minima else None
    before, last = minima[-2:]
    return Minimum(2 * last.weight - before.weight, 2 * last.bias - before.bias, False)


def mean_of(minima: Sequence[Minimum]) -> Minimum:
    """Average one or more minima."""
    weight = torch.stack([each.weight for each in minima]).mean(0)
    return Minimum(weight, torch.stack([each.bias for each in minima]).mean(0), False)


@dataclass(frozen=True)
class Tolerance:
    """When L-BFGS stops: no derivative exceeds ``gradient``, or ``share`` times the objective.

    For ``share``, derivatives are measured in units in which the curvature is about 1. Separable classes need
    this: with a weak decay, both the objective and its gradient become tiny.
    """

    gradient: float = 0.0
    share: float = 0.0


def minimise(
    objective: Objective, *, start: Minimum | None = None, tolerance: Tolerance, max_steps: int
) -> Minimum:
    """Minimise ``objective`` by L-BFGS from ``start``, or from zero."""
    from scipy.optimize import minimize

    rows, decay, num_classes = objective.rows, objective.decay, objective.num_classes
    labels = torch.from_numpy(objective.targets)
    row_weights = objective.row_weights()
    # A step of 1 along any axis, or of the bias, changes the objective by about the same amount.
    units = np.append((objective.variances / num_classes + decay).rsqrt().numpy(), math.sqrt(num_classes))
    scaled = rows * torch.from_numpy(units[:-1]).to(rows.dtype)
    pull = np.append(decay * units[:-1] ** 2, 0.0)
    each, last = torch.arange(len(labels)), np.zeros((num_classes, len(units)))

    def evaluate(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """Compute the value and the gradient; the gradient also stays in ``last``."""
        table = point.reshape(last.shape)
        own = torch.from_numpy(table).to(rows.dtype)
        logs = torch.addmm(own[:, -1] * units[-1], scaled, own[:, :-1].T).log_softmax(1)
        loss = -float((logs[each, labels] * row_weights).sum(dtype=torch.float64))
        errors = logs.exp_()
        errors[each, labels] -= 1
        errors *= row_weights[:, None]
        last[:, :-1], last[:, -1] = (errors.T @ scaled).numpy(), errors.sum(0).numpy() * units[-1]
        last[:] += pull * table
        return loss + 0.5 * float((pull * table**2).sum()), last.ravel().copy()

    def stop_if_close(intermediate_result: Any) -> None:
        # SciPy calls this after each step, whose point is the one evaluated last.
        if (
            np.abs(last).max() <= tolerance.share * intermediate_result.fun
            or np.abs(last / units).max() <= tolerance.gradient
        ):
            raise StopIteration

    begin = np.zeros(last.shape)
    if start is not None:
        begin = np.concatenate([start.weight.numpy(), start.bias.numpy()[:, None]], axis=1) / units
    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "maxcor": MEMORY, "gtol": 0.0, "ftol": 0.0}
    found = minimize(
        evaluate, begin.ravel(), jac=True, method="L-BFGS-B", callback=stop_if_close, options=options
    )
    table = torch.from_numpy(found.x.reshape(last.shape) * units)
    # Status 1 is the step limit. Status 2, a failed line search, means that only rounding is left.
    return Minimum(table[:, :-1].contiguous(), table[:, -1].contiguous(), found.status != 1)
