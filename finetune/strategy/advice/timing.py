"""Times per image, for the expected duration of a training."""

import time
from collections.abc import Callable
from typing import Any

import torch

from finetune.strategy.advice.facts import Seconds
from finetune.training.compute.precision import Compute
from finetune.training.setup.prepare import Setup

BATCH_SIZE = 8


def measure_seconds(setup: Setup, training: Compute, read: float) -> Seconds:
    """Time a forward pass and, with the precision of ``training``, a training step.

    Each runs twice on a small batch; the second run counts. ``read`` is the time to read one image.
    """
    network, preprocessing = setup.network, setup.card.preprocessing
    size = preprocessing.image_size
    images = torch.randn(BATCH_SIZE, preprocessing.channels, size, size, device=setup.compute.device)
    module = network.module.eval()

    def seconds(work: Callable[[], Any]) -> float:
        for _ in range(2):
            began = time.perf_counter()
            work()
            if setup.compute.device.type == "cuda":
                torch.cuda.synchronize(setup.compute.device)
        return (time.perf_counter() - began) / BATCH_SIZE

    def forward() -> None:
        with torch.no_grad():
            module(images)

    def step() -> None:
        with training.autocast():
            loss = module(images).sum()
        loss.backward()
        module.zero_grad(set_to_none=True)

    # In eval mode, so that no statistics change; a step costs the same.
    return Seconds(read, seconds(forward), seconds(step))
