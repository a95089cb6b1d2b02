"""Heat-maps: which parts of an image speak for a class, by gradients or by occlusion.

Both explain the log-odds of the class, ``log(p / (1 - p))``: what speaks for it rather than for the others.
Unlike the probability, they do not saturate when the network is sure.

**gradient**: the product of value and gradient, summed over channels, at each place of the map after each
layer and of the image itself (HiResCAM, Draelos and Carin 2020; for a network that ends in averaging and one
linear layer it equals Grad-CAM, Selvaraju et al. 2017, at the last layer). It is averaged over the layers,
because deep maps are coarse and shallow ones noisy, and over shifted copies with noise (SmoothGrad, Smilkov
et al. 2017), because the cells of deep maps are large: the shifts show where in the cell the evidence lies.

**occlusion**: how far the log-odds fall when a square of the image is blurred (Zeiler and Fergus 2014),
averaged over squares of three sizes.

Computed with captum (Kokhlikyan et al. 2020), which the PyTorch project maintains under the BSD-3 licence and
which needs no package that this one does not need. The package grad-cam (MIT) would bring OpenCV and ttach,
resizes maps by itself, and offers no occlusion.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from captum.attr import LayerGradientXActivation, Occlusion
from numpy.typing import NDArray
from scipy.stats import qmc
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from finetune.errors import require_known
from finetune.explain.layer_maps import map_layouts, mapped_network
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.table import LayerTable

Method = Literal["gradient", "occlusion"]

# Copies of an image whose maps are averaged: more of a small image, whose maps have few cells.
COPIES, COPIES_OF_SMALL, SMALL = 8, 16, 128
COPIES_PER_PASS = 4
# The largest shift of a copy, as a share of the side, and its noise, as a share of the image's range.
SHIFT = 1 / 8
NOISE = 0.1
# Maps are averaged to at most this many cells a side, before they are enlarged to the image.
MOST_CELLS = 32
# The standard deviation of the final smoothing, as a share of the side.
BLUR = 1 / 32
# Occlusion covers squares of these shares of the side, and moves them by half of it. What covers them is the
# image, blurred with this standard deviation: a flat square has edges, which a network may see as a thing.
COVERED = (1 / 4, 1 / 6, 1 / 8)
COVER_BLUR = 1 / 8
WINDOWS_PER_PASS = 16
# Smaller values say nothing.
TINY = 1e-12


def heat_maps(
    module: nn.Module, table: LayerTable, images: Tensor, targets: Tensor, method: Method = "gradient"
) -> NDArray[np.float32]:
    """Compute how much each part of an image speaks for a class.

    The network does not change: not its modes, parameters, gradients or ``requires_grad``. The maps of an
    image do not depend on the other images.

    Args:
        module: maps images to logits ``(N, classes)``.
        table: its layers.
        images: preprocessed, ``(N, channels, S, S)``, on the module's device.
        targets: the index of a class for each image, ``(N,)``.
        method: ``gradient`` or ``occlusion``.

    Returns:
        ``(N, S, S)``, from 0 to 1. The largest value of each map is 1.
    """
    return heat_mapper(module, table, tuple(images.shape[1:]), method)(images, targets)


def heat_mapper(
    module: nn.Module, table: LayerTable, image: tuple[int, ...], method: Method = "gradient"
) -> Callable[[Tensor, Tensor], NDArray[np.float32]]:
    """Return a function of images and targets that computes what :func:`heat_maps` does, for many calls.

    Args:
        image: the shape of an image, ``(channels, S, S)``.
    """
    require_known("heat-map method", method, get_args(Method))
    compute = _by_gradient(module, table, image) if method == "gradient" else _by_occlusion(module)
    side = image[-1]

    def maps_of(images: Tensor, targets: Tensor) -> NDArray[np.float32]:
        maps = torch.zeros(len(images), side, side)
        with preserve_modes(module), torch.enable_grad():
            module.eval()
            # One by one, so that the others cannot change a bit.
            for index, (each, target) in enumerate(zip(images.detach(), targets, strict=True)):
                maps[index] = compute(each[None], target[None].to(each.device)).cpu()
        result: NDArray[np.float32] = _scaled(maps).numpy()
        return result

    return maps_of


# An image (1, C, S, S) and its target (1,) to its evidence (S, S), of either sign.
Compute = Callable[[Tensor, Tensor], Tensor]


class _LogOdds(nn.Module):
    """Images and targets to the log-odds of each target, ``(N,)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        chosen = logits.gather(1, targets[:, None])[:, 0]
        if logits.shape[1] == 1:
            return chosen
        others = logits.scatter(1, targets[:, None], -torch.inf)
        return chosen - others.logsumexp(1)


def _by_gradient(module: nn.Module, table: LayerTable, image: tuple[int, ...]) -> Compute:
    channels, side, _ = image
    layouts = map_layouts(module, table, side, channels)
    network = mapped_network(module, table, layouts) if layouts else None
    whole = nn.Sequential(nn.Identity(), module if network is None else network)
    points = [whole[0], *([] if network is None else network.points)]
    attribution = LayerGradientXActivation(_LogOdds(whole), points)
    shifts = _shifts(COPIES_OF_SMALL if side <= SMALL else COPIES, round(side * SHIFT))

    def compute(image: Tensor, target: Tensor) -> Tensor:
        noise = NOISE * float(image.max() - image.min())
        generator = torch.Generator().manual_seed(0)
        totals = torch.zeros(len(points), side, side, device=image.device)
        for start in range(0, len(shifts), COPIES_PER_PASS):
            part = shifts[start : start + COPIES_PER_PASS]
            copies = torch.cat([_shifted(image, *shift) for shift in part])
            copies = copies + noise * torch.randn(copies.shape, generator=generator).to(copies)
            products = attribution.attribute(
                copies.requires_grad_(), additional_forward_args=(target.expand(len(part)),)
            )
            for total, product in zip(totals, products, strict=True):
                for evidence, (down, right) in zip(_enlarged(product.detach(), side), part, strict=True):
                    _add_shifted(total, evidence, -down, -right)
        # Each depth counts alike. Near the border, where fewer copies show the image, evidence counts less:
        # it is less certain.
        return _blurred(_of_equal_weight(totals).mean(0, keepdim=True), BLUR)[0]

    return compute


def _shifts(count: int, most: int) -> list[tuple[int, int]]:
    """Shifts down and right of the copies, in pixels, spread evenly."""
    # The first point of the sequence is a corner.
    spread = qmc.Halton(2, scramble=False).random(count + 1)[1:]
    return [(round(most * (2 * down - 1)), round(most * (2 * right - 1))) for down, right in spread]


def _shifted(image: Tensor, down: int, right: int) -> Tensor:
    """Move an image ``(1, C, S, S)``; its edge fills the rest."""
    side, most = image.shape[-1], max(abs(down), abs(right))
    padded = F.pad(image, (most,) * 4, mode="replicate")
    return padded[..., most - down : most - down + side, most - right : most - right + side]


def _add_shifted(total: Tensor, values: Tensor, down: int, right: int) -> None:
    """Add ``values`` (S, S), moved, to ``total``; what leaves the image is dropped."""
    side = len(total)
    rows, columns = side - abs(down), side - abs(right)
    to, at = max(down, 0), max(right, 0)
    source = values[max(-down, 0) :, max(-right, 0) :][:rows, :columns]
    total[to : to + rows, at : at + columns] += source


def _enlarged(products: Tensor, side: int) -> Tensor:
    """Sum ``(N, C, H, W)`` over channels, and enlarge to ``(N, S, S)``."""
    maps = products.float().sum(1, keepdim=True)
    if max(maps.shape[2:]) > MOST_CELLS:
        maps = F.adaptive_avg_pool2d(maps, MOST_CELLS)
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[:, 0]


def _by_occlusion(module: nn.Module) -> Compute:
    occlusion = Occlusion(_LogOdds(module))

    def compute(image: Tensor, target: Tensor) -> Tensor:
        side, channels = image.shape[-1], image.shape[1]
        blurred = _blurred(image, COVER_BLUR)
        total = torch.zeros(side, side, device=image.device)
        for share in COVERED:
            window = max(1, round(side * share))
            step = max(1, window // 2)
            with torch.no_grad():
                drops: Tensor = occlusion.attribute(
                    image,
                    (channels, window, window),
                    strides=(channels, step, step),
                    baselines=blurred,
                    additional_forward_args=(target,),
                    perturbations_per_eval=WINDOWS_PER_PASS,
                )
            total += _of_equal_weight(drops.float().mean(1))[0]
        return total / len(COVERED)

    return compute


def _of_equal_weight(maps: Tensor) -> Tensor:
    """Divide each map of ``(N, S, S)`` by its largest magnitude."""
    return maps / maps.abs().amax((1, 2), keepdim=True).clamp_min(TINY)


def _blurred(values: Tensor, share: float) -> Tensor:
    """Blur ``(..., S, S)`` by a Gaussian whose standard deviation is this share of the side."""
    side = values.shape[-1]
    deviation = side * share
    width = 2 * min(math.ceil(2 * deviation), side - 1) + 1
    blurred: Tensor = gaussian_blur(values, [width, width], [deviation, deviation])
    return blurred


def _scaled(maps: Tensor) -> Tensor:
    """Scale each map to 0..1, where 0 is: does not speak for the class.

    If no part speaks for the class, 0 is where most speaks against it.
    """
    highest = maps.amax((1, 2), keepdim=True)
    lowest = torch.where(highest > 0, 0.0, maps.amin((1, 2), keepdim=True))
    return ((maps - lowest).clamp_min(0) / (highest - lowest).clamp_min(TINY)).clamp_max(1)
