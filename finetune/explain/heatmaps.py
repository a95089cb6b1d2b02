"""Heat-maps: which parts of an image speak for a class, by gradients or by occlusion.

Both explain the log-odds of the class, ``log(p / (1 - p))``: what speaks for it rather than for the others.
Unlike the probability, they do not saturate when the network is sure.

Computed with captum (Kokhlikyan et al. 2020), which the PyTorch project maintains under the BSD-3 licence and
which needs nothing but torch, numpy, matplotlib and tqdm. The package grad-cam would bring OpenCV and ttach,
takes one layer at a time, and offers no occlusion.
"""

from typing import Literal, get_args

import numpy as np
import torch
from captum.attr import LayerGradientXActivation, Occlusion
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.errors import FinetuneError, require_known
from finetune.explain.layer_maps import MapLayout, map_layouts, mapped_network
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.table import LayerTable

Method = Literal["gradient", "occlusion"]

# Images per pass. The rest of an image's pass never changes its map: every pass has this many images.
IMAGES_PER_PASS = 8
# Occlusion covers squares of this share of the side, and moves them by half of their side.
COVERED = 1 / 8
# A map whose values are all below this share of its largest magnitude says nothing.
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

    Raises:
        FinetuneError: the network has no layer with a map (``gradient`` only).
    """
    require_known("heat-map method", method, get_args(Method))
    compute = _by_gradient if method == "gradient" else _by_occlusion
    side = images.shape[-1]
    maps = torch.zeros(len(images), side, side)
    with preserve_modes(module), torch.enable_grad():
        module.eval()
        for start in range(0, len(images), IMAGES_PER_PASS):
            part = slice(start, start + IMAGES_PER_PASS)
            maps[part] = compute(module, table, images[part].detach(), targets[part].to(images.device)).cpu()
    result: NDArray[np.float32] = _scaled(maps).numpy()
    return result


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


def _by_gradient(module: nn.Module, table: LayerTable, images: Tensor, targets: Tensor) -> Tensor:
    layouts = _depths(map_layouts(module, table, images.shape[-1], images.shape[1]))
    network = mapped_network(module, table, layouts)
    attribution = LayerGradientXActivation(_LogOdds(network), list(network.points))
    products = attribution.attribute(images.requires_grad_(), additional_forward_args=(targets,))
    side = images.shape[-1]
    total = torch.zeros(len(images), 1, side, side, device=images.device)
    for product in products:
        evidence = product.detach().float().sum(1, keepdim=True).relu()
        total += _up(evidence / evidence.amax((2, 3), keepdim=True).clamp_min(TINY), side)
    return total[:, 0]


def _depths(layouts: dict[int, MapLayout]) -> dict[int, MapLayout]:
    """The last layer of each size of map."""
    if not layouts:
        raise FinetuneError("the network has no layer with a map, so it has no gradient heat-map")
    last = {layout.height: number for number, layout in layouts.items()}
    return {number: layouts[number] for number in sorted(last.values())}


def _up(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)


def _by_occlusion(module: nn.Module, table: LayerTable, images: Tensor, targets: Tensor) -> Tensor:
    side = images.shape[-1]
    window = max(1, round(side * COVERED))
    step = max(1, window // 2)
    with torch.no_grad():
        drops: Tensor = Occlusion(_LogOdds(module)).attribute(
            images,
            (images.shape[1], window, window),
            strides=(images.shape[1], step, step),
            baselines=0,
            additional_forward_args=(targets,),
            perturbations_per_eval=8,
        )
    return drops.detach().float().mean(1)


def _scaled(maps: Tensor) -> Tensor:
    """Scale each map to 0..1, where 0 is: does not speak for the class.

    If no part speaks for the class, 0 is where most speaks against it.
    """
    highest = maps.amax((1, 2), keepdim=True)
    lowest = torch.where(highest > 0, 0.0, maps.amin((1, 2), keepdim=True))
    return ((maps - lowest).clamp_min(0) / (highest - lowest).clamp_min(TINY)).clamp_max(1)
