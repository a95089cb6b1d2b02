"""Drawn images in which only a patch decides the class, and a small network that learns it in seconds."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, PATCH, CLASSES = 32, 8, 3
STEPS, BATCH = 90, 32


def draw(count: int, seed: int) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Images (N, 3, 32, 32) of blotches and noise, their classes, and top and left of their patch.

    The patch is striped: level, upright or slanted. Its colours are the same in all classes.
    """
    random = np.random.default_rng(seed)
    blotches = torch.from_numpy(random.normal(size=(count, 3, 6, 6)).astype(np.float32))
    images = 0.6 * F.interpolate(blotches, (SIDE, SIDE), mode="bilinear").numpy()
    images += random.normal(size=images.shape) * 0.15
    targets = random.integers(0, CLASSES, count)
    corners = random.integers(0, SIDE - PATCH + 1, (count, 2))
    rows, columns = np.mgrid[:PATCH, :PATCH]
    stripes = [(place // 2) % 2 * 2 - 1 for place in (rows, columns, rows + columns)]
    for image, target, (top, left) in zip(images, targets, corners, strict=True):
        image[:, top : top + PATCH, left : left + PATCH] = stripes[target]
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(targets), corners


def in_patch(maps: NDArray[np.float32], corners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the hottest point of each map (N, S, S) lies in the patch."""
    hottest = np.stack(np.unravel_index(maps.reshape(len(maps), -1).argmax(1), maps.shape[1:]), 1)
    inside = (hottest >= corners) & (hottest < corners + PATCH)
    return np.asarray(inside.all(1), dtype=np.bool_)


class PatchNetwork(nn.Module):
    """Four convolutions with BatchNorm, averaging, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        widths, strides = (3, 16, 24, 32, 48), (1, 2, 2, 2)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
                )
                for before, after, stride in zip(widths, widths[1:], strides, strict=False)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.fc(self.pool(self.blocks(images)).flatten(1))
        return found


def trained_network() -> PatchNetwork:
    """A network that is right on nearly all images, in eval mode."""
    torch.manual_seed(0)
    network = PatchNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for step in range(STEPS):
        images, targets, _ = draw(BATCH, 1000 + step)
        loss = F.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
