"""Softmax regression with an L2 penalty, in coordinates in which L-BFGS is quick.

The features are centred and turned to their principal axes. Both leave the minimum where it is: the bias is
free, and the penalty does not see a rotation. What the axes have no variance in, which is much where there
are fewer images than features, is left out without any loss, since the weights there are zero at the
minimum. Along the axes the objective's curvature is known well enough to be evened out: variance over the
number of classes, plus the decay. As the features come, some directions are ten thousand times as steep as
others, and L-BFGS (Liu and Nocedal 1989) takes hundreds of steps where it here takes tens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]

# Axes with less than this share of the largest variance are rounding.
NOTHING = 1e-14
# How many steps L-BFGS looks back on.
MEMORY = 6


@dataclass(frozen=True)
class Axes:
    """Principal axes of features, of unit total variance.

    Attributes:
        rows: (N, R), float64, the features along the axes; R is at most the lesser of N and D.
        variances: (R,), float64.
        turn: (D, R), float64: ``rows`` is (features - ``mean``) @ ``turn`` / ``scale``.
    """

    rows: Tensor
    variances: Tensor
    turn: Tensor
    mean: Tensor
    scale: float

    @classmethod
    def of(cls, features: Features) -> "Axes":
        """Those of ``features`` (N, D)."""
        given = torch.from_numpy(np.ascontiguousarray(features)).double()
        mean = given.mean(0)
        rows = given - mean
        scale = math.sqrt(float(rows.square().sum()) / len(rows)) or 1.0
        rows /= scale
        span = None
        if rows.shape[0] < rows.shape[1]:
            # All images lie in the space that they span, of fewer dimensions.
            span, lengths = torch.linalg.qr(rows.T)
            rows = lengths.T
        variances, turn = torch.linalg.eigh(rows.T @ rows / len(rows))
        kept = variances > NOTHING * max(float(variances[-1]), NOTHING)
        if not kept.any():
            kept[-1] = True
        turn = turn[:, kept]
        rows = rows @ turn
        return cls(rows, variances[kept], turn if span is None else span @ turn, mean, scale)


@dataclass(frozen=True)
class Minimum:
    """``weight`` (C, R) and ``bias`` (C,), float64, along axes; ``reached``: L-BFGS came to an end."""

    weight: Tensor
    bias: Tensor
    reached: bool

    def logits(self, rows: Tensor) -> npt.NDArray[np.float64]:
        """(N, C), of ``rows`` along the axes."""
        found: npt.NDArray[np.float64] = ((rows @ self.weight.to(rows.dtype).T).double() + self.bias).numpy()
        return found

    def on_features(self, axes: Axes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weight (C, D) and bias (C,) for the features as they came."""
        weight = self.weight @ axes.turn.T / axes.scale
        return weight.numpy(), (self.bias - weight @ axes.mean).numpy()


def ahead(minima: Sequence[Minimum]) -> Minimum | None:
    """Where the line through the last two of ``minima`` leads to in as much again; None where there is none.

    Of one it is that one, and of two the second: the first step from nothing says little about the next.
    """
    if len(minima) < 3:
        return minima[-1] if minima else None
    before, last = minima[-2:]
    return Minimum(2 * last.weight - before.weight, 2 * last.bias - before.bias, False)


def mean_of(minima: Sequence[Minimum]) -> Minimum:
    """Of one or more."""
    weight = torch.stack([each.weight for each in minima]).mean(0)
    return Minimum(weight, torch.stack([each.bias for each in minima]).mean(0), False)


@dataclass(frozen=True)
class Enough:
    """When L-BFGS may stop: no derivative is larger than ``plain``.

    Or, in units in which the curvature is about 1, than ``share`` of the objective. Where classes can be told
    apart without a fault, weak decays leave little of either.
    """

    plain: float = 0.0
    share: float = 0.0


def minimise(
    rows: Tensor,
    variances: Tensor,
    targets: Targets,
    num_classes: int,
    decay: float,
    class_weights: Sequence[float] | None = None,
    *,
    start: Minimum | None = None,
    enough: Enough,
    steps: int,
) -> Minimum:
    """The minimum of the mean cross-entropy, weighted by class, + ``decay / 2 * |weight|^2``.

    Args:
        rows, variances: of :class:`Axes`; ``rows`` may be some of them. What is computed is in their dtype.
        targets: (N,), of ``rows``.
        decay: above 0, for features of unit total variance.
        start: where to set out from; None: from zero.
        steps: at most.
    """
    from scipy.optimize import minimize

    labels = torch.from_numpy(targets)
    weighing = weighed(labels, class_weights, rows.dtype)
    # A step of 1 along any axis, or of the bias, changes the objective by about as much.
    units = np.append((variances / num_classes + decay).rsqrt().numpy(), math.sqrt(num_classes))
    scaled = rows * torch.from_numpy(units[:-1]).to(rows.dtype)
    pull = np.append(decay * units[:-1] ** 2, 0.0)
    each, last = torch.arange(len(labels)), np.zeros((num_classes, len(units)))

    def objective(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        table = point.reshape(last.shape)
        own = torch.from_numpy(table).to(rows.dtype)
        logs = torch.addmm(own[:, -1] * units[-1], scaled, own[:, :-1].T).log_softmax(1)
        loss = -float((logs[each, labels] * weighing).sum(dtype=torch.float64))
        errors = logs.exp_()
        errors[each, labels] -= 1
        errors *= weighing[:, None]
        last[:, :-1], last[:, -1] = (errors.T @ scaled).numpy(), errors.sum(0).numpy() * units[-1]
        last[:] += pull * table
        return loss + 0.5 * float((pull * table**2).sum()), last.ravel().copy()

    def judge(intermediate_result: Any) -> None:
        """After each step, whose point is the last that was looked at."""
        if (
            np.abs(last).max() <= enough.share * intermediate_result.fun
            or np.abs(last / units).max() <= enough.plain
        ):
            raise StopIteration

    begin = np.zeros(last.shape)
    if start is not None:
        begin = np.concatenate([start.weight.numpy(), start.bias.numpy()[:, None]], axis=1) / units
    options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": MEMORY, "gtol": 0.0, "ftol": 0.0}
    found = minimize(objective, begin.ravel(), jac=True, method="L-BFGS-B", callback=judge, options=options)
    table = torch.from_numpy(found.x.reshape(last.shape) * units)
    # 1 is the limit of steps. A line search that finds nothing lower (2) is where rounding hides the rest.
    return Minimum(table[:, :-1].contiguous(), table[:, -1].contiguous(), found.status != 1)


def weighed(labels: Tensor, class_weights: Sequence[float] | None, dtype: torch.dtype) -> Tensor:
    """(N,): how much each image of ``labels`` counts for in the mean."""
    weighing = torch.ones(len(labels), dtype=dtype)
    if class_weights is not None:
        weighing = torch.tensor(class_weights, dtype=dtype)[labels]
    return weighing / weighing.sum()
