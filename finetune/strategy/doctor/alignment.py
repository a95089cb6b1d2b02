"""Measures how different two images are after aligning them.

Pairs are aligned by Gauss-Newton steps on the squared difference (Lucas and Kanade 1981; Baker and Matthews
2004) over scale and shift in both directions, so that a crop matches its original. Both images are
standardised, so that brightness and contrast do not matter.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Image sides and steps. Aligning coarse images first avoids local minima caused by details.
COARSE, COARSE_STEPS = 16, 5
MIDDLE, MIDDLE_STEPS = 32, 4
# Pairs with a larger difference at the coarse side are different images, and are not aligned further.
HOPELESS = 0.12
# The least side of a crop, relative to the original.
SMALLEST_SCALE = 0.72
# The least share of the area that both must show; below it, a match may be chance.
LEAST_SHARED = 0.45
# Luma values at which details are lost in black or white.
BLACK, WHITE = 6, 249
# The least divisor of a standard deviation, relative to 255.
FLAT = 1e-3


def differences(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Floats:
    """Align images pair by pair and measure their difference; both are uint8, (P, S, S), S a multiple of 32.

    Returns:
        float32, (P,): half of the share of the variance, within the common area, that the images do not
        share: 0 for copies, about 0.5 for different images.
    """
    moving, fixed = first.astype(np.float32), second.astype(np.float32)
    unmoved = np.tile(np.asarray([1.0, 0.0, 1.0, 0.0], dtype=np.float32), (len(moving), 1))
    warp, left = _register(_shrunk(moving, COARSE), _shrunk(fixed, COARSE), unmoved, COARSE_STEPS)
    hopeful = np.flatnonzero(left <= HOPELESS)
    if len(hopeful):
        moving, fixed = moving[hopeful], fixed[hopeful]
        smaller = _shrunk(moving, MIDDLE), _shrunk(fixed, MIDDLE)
        warp, _ = _register(*smaller, warp[hopeful], MIDDLE_STEPS)
        # One blur at full size removes the effect of recompression on single pixels.
        values, inside = _sample(blurred(moving), warp)
        reference = blurred(fixed)
        # Either image may have been brightened, which clips its whites.
        both = _unexplained(values, reference, inside), _unexplained(reference, values, inside)
        left[hopeful] = np.minimum(*both)
    return left


def _unexplained(source: Floats, target: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """Compute half of the share of ``target``'s variance that ``clip(gain * source + offset)`` does not
    explain.

    Gain and offset are fitted where ``target`` is neither black nor white.
    """
    count = len(target)
    mask = inside.reshape(count, -1).astype(np.float32)
    x, y = source.reshape(count, -1), target.reshape(count, -1)
    middle = mask * ((y > BLACK) & (y < WHITE))
    # Line drawings are all black and white: then every pixel counts.
    middle = np.where((middle.sum(axis=1) > 0.1 * mask.sum(axis=1))[:, None], middle, mask)
    total = np.maximum(middle.sum(axis=1), 1)
    mean_x, mean_y = (np.einsum("pi,pi->p", each, middle) / total for each in (x, y))
    centred_x, centred_y = (x - mean_x[:, None]) * middle, (y - mean_y[:, None]) * middle
    spread = np.einsum("pi,pi->p", centred_x, centred_x)
    gain = np.einsum("pi,pi->p", centred_x, centred_y) / np.maximum(spread, 1)
    fitted = np.clip((x - mean_x[:, None]) * gain[:, None] + mean_y[:, None], 0, 255)
    every = np.maximum(mask.sum(axis=1), 1)
    deviation = (y - (np.einsum("pi,pi->p", y, mask) / every)[:, None]) * mask
    error = (fitted - y) * mask
    variance = np.maximum(np.einsum("pi,pi->p", deviation, deviation), every)
    left: Floats = np.einsum("pi,pi->p", error, error) / (2 * variance)
    return np.asarray(np.where(gain > 0, left, np.float32(1)))


def _register(moving: Floats, fixed: Floats, start: Floats, steps: int) -> tuple[Floats, Floats]:
    """Align ``moving`` with ``fixed``.

    A step that increases the difference is undone and shortened (Levenberg-Marquardt), pair by pair.

    Returns:
        Warps (P, 4): scale and shift of x, then of y, in half sides; and half of the mean squared difference
        of the standardised images, (P,).
    """
    count, side = len(fixed), fixed.shape[1]
    axis = _axis(side)
    x, y = axis[None, None, :], axis[None, :, None]
    proposed, best, least = start, start, np.full(count, np.inf, dtype=np.float32)
    damping = np.full(count, 1e-2, dtype=np.float32)
    gradient = np.zeros((count, 4), dtype=np.float32)
    hessian = np.zeros((count, 4, 4), dtype=np.float32)
    for _ in range(steps):
        values, inside = _sample(moving, proposed)
        a, b = _standardised(values, inside), _standardised(fixed, inside)
        error = (a - b).reshape(count, -1)
        shared = inside.mean(axis=(1, 2), dtype=np.float32)
        squares = np.einsum("pi,pi->p", error, error)
        cost = np.where(shared > LEAST_SHARED, squares / (np.maximum(shared, LEAST_SHARED) * side**2), np.inf)
        better = cost < least
        damping = np.where(better, damping * 0.3, damping * 8)
        least = np.where(better, cost, least)
        best = np.where(better[:, None], proposed, best)
        # Derivatives of the warped image, per half side.
        slopes = np.zeros((count, 4, side, side), dtype=np.float32)
        np.subtract(a[:, :, 2:], a[:, :, :-2], out=slopes[:, 1, :, 1:-1])
        np.subtract(a[:, 2:], a[:, :-2], out=slopes[:, 3, 1:-1])
        slopes[:, 1::2] *= (inside * np.float32(side / 4))[:, None]
        np.multiply(slopes[:, 1], x, out=slopes[:, 0])
        np.multiply(slopes[:, 3], y, out=slopes[:, 2])
        flat = slopes.reshape(count, 4, -1)
        new_hessian = flat @ flat.transpose(0, 2, 1)
        new_gradient = (flat @ error[:, :, None])[:, :, 0]
        hessian = np.where(better[:, None, None], new_hessian, hessian)
        gradient = np.where(better[:, None], new_gradient, gradient)
        diagonal = np.einsum("pii->pi", hessian)
        ridge = damping[:, None] * (diagonal + diagonal.mean(axis=1, keepdims=True)) + 1e-6
        step = np.linalg.solve(
            hessian + ridge[:, :, None] * np.eye(4, dtype=np.float32), gradient[:, :, None]
        )
        proposed = (best - step[:, :, 0]).astype(np.float32)
        proposed[:, ::2] = np.clip(proposed[:, ::2], SMALLEST_SCALE, 1 / SMALLEST_SCALE)
        proposed[:, 1::2] = np.clip(proposed[:, 1::2], -0.4, 0.4)
    return best, np.minimum(least / 2, 1)


def _sample(images: Floats, warp: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Sample images (P, S, S) at warped positions, bilinearly; also return which positions are inside."""
    side = images.shape[1]
    axis = _axis(side)
    columns = _places(warp[:, :1] * axis + warp[:, 1:2], side)
    rows = _places(warp[:, 2:3] * axis + warp[:, 3:4], side)
    # Scale and shift act on each axis separately: two products with interpolation matrices.
    across = images @ _interpolation(columns, side).transpose(0, 2, 1)
    values = _interpolation(rows, side) @ across
    inside_x = (columns >= -0.5) & (columns <= side - 0.5)
    inside_y = (rows >= -0.5) & (rows <= side - 0.5)
    return values, inside_y[:, :, None] & inside_x[:, None, :]


def _interpolation(places: Floats, side: int) -> Floats:
    """Return matrices (P, S, side) whose rows hold the two bilinear weights of a position."""
    distance = np.abs(np.clip(places, 0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32))
    weights: Floats = np.maximum(1 - distance, 0)
    return weights


def _places(position: Floats, side: int) -> Floats:
    """Convert positions from -1 (left edge) to 1 (right edge) to pixels, counted from the first centre."""
    return ((position + 1) * (side / 2) - 0.5).astype(np.float32)


def _axis(side: int) -> Floats:
    return ((np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1).astype(np.float32)


def _standardised(values: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """Scale to mean 0 and variance 1 over the inside."""
    flat, mask = values.reshape(len(values), -1), inside.reshape(len(inside), -1).astype(np.float32)
    shared = np.maximum(mask.sum(axis=1), 1)
    mean = np.einsum("pi,pi->p", flat, mask) / shared
    centred = (flat - mean[:, None]) * mask
    deviation = np.sqrt(np.einsum("pi,pi->p", centred, centred) / shared)
    centred /= np.maximum(deviation, np.float32(FLAT * 255))[:, None]
    standardised: Floats = centred.reshape(values.shape)
    return standardised


def _shrunk(images: Floats, side: int) -> Floats:
    """Reduce to ``side`` x ``side`` by averaging blocks of pixels, then blur."""
    factor = images.shape[1] // side
    return blurred(images.reshape(len(images), side, factor, side, factor).mean(axis=(2, 4)))


def blurred(images: Floats) -> Floats:
    """Blur images (P, H, W) with the binomial filter (1 2 1) in both directions; edges are repeated."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred: Floats = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return blurred
