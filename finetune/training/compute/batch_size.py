"""Find how many images fit a training step: for ``train.batch_size: auto``, and for a warning beforehand.

A step has the same number of images on every machine, because learning rates and results depend on it. If
they do not fit at once, the step takes several batches (``train.accumulate``).

On the CPU, the system kills a process that takes too much memory. So the memory of a step is estimated, from
what forward passes of two and four images store. On a GPU, whole steps are tried, because they fail in order.
"""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from finetune.data.machine import free_memory
from finetune.errors import NoMemoryError
from finetune.features.placement import format_bytes
from finetune.model.auxiliary import loss_and_logits
from finetune.model.build import Network
from finetune.model.freeze import Freeze, resolve_freeze
from finetune.recipe.schema import DEFAULT_BATCH_SIZE, TrainSection
from finetune.training.compute.memory import largest_that_fits
from finetune.training.compute.precision import Compute

log = logging.getLogger("finetune")

BatchNormMode = Literal["train", "frozen"]

# The images per step of `auto`, which the default learning rates assume.
IMAGES_A_STEP = DEFAULT_BATCH_SIZE
# The peak memory of a step, in multiples of what the forward pass stores for the backward pass: an upper
# bound on the networks and precisions that were measured.
PEAK = 1.7
# Gradients, AdamW's two values per weight, and its temporary memory.
COPIES_OF_WEIGHTS = 5
# The rest is left to other processes.
SHARE_TAKEN = 0.9
# Bytes per image at 224 px, more than any measured network takes. With that much free, nothing is estimated.
ROOMY = 500_000_000


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step besides the network, in bytes: ``fixed``, and per ``image``."""

    fixed: int
    image: int

    def of(self, batch_size: int) -> int:
        """The memory of a step with this batch size."""
        return self.fixed + batch_size * self.image

    def largest(self, batch_size: int, room: int) -> int | None:
        """``batch_size``, halved until it fits, not below 2; None if 2 does not fit."""
        while self.of(batch_size) > room:
            if batch_size <= 2:
                return None
            batch_size = max(batch_size // 2, 2)
        return batch_size


def resolve_batch_size(
    train: TrainSection,
    network: Network,
    image: tuple[int, int, int],
    compute: Compute,
    batchnorm: BatchNormMode = "train",
) -> TrainSection:
    """Replace ``batch_size: auto`` by a size that fits, with ``accumulate`` batches per step to match.

    Args:
        image: shape of one image, (C, S, S).

    Raises:
        NoMemoryError: not even two images fit.
    """
    if train.batch_size != "auto":
        return train
    trial = _as_it_trains(train, network, batchnorm)
    if compute.device.type == "cpu":
        room = _room()
        fits = IMAGES_A_STEP
        if room is not None:
            found = step_memory(trial, image, compute).largest(IMAGES_A_STEP, room)
            fits = found or 0
    else:
        # The weights of the copy take as much as the optimizer's state.
        attempt = _step(trial, image, compute)
        fits = largest_that_fits(2 * IMAGES_A_STEP, attempt) or 0
    if not fits:
        raise NoMemoryError(
            f"train.batch_size: auto: not even 2 images of {image[-1]} px fit into memory. Use a "
            "smaller data.image_size or model.backbone, or freeze more layers."
        )
    times = IMAGES_A_STEP // fits
    return train.model_copy(update={"batch_size": fits, "accumulate": times * train.accumulate})


def warn_of_little_memory(
    train: TrainSection,
    network: Network,
    image: tuple[int, int, int],
    compute: Compute,
    batchnorm: BatchNormMode = "train",
) -> None:
    """Warn, on the CPU, if a step probably does not fit in free memory, and name a batch size that does."""
    room, size = _room(), train.images_per_batch
    weights = sum(p.numel() * p.element_size() for p in network.module.parameters())
    roomy = COPIES_OF_WEIGHTS * weights + size * ROOMY * (image[-1] / 224) ** 2
    if compute.device.type != "cpu" or room is None or room > roomy:
        return
    taken = step_memory(_as_it_trains(train, network, batchnorm), image, compute)
    if taken.of(size) <= room:
        return
    fits = taken.largest(size, room)
    log.warning(
        "a step of %d images takes up to %s, and %s of memory are free: the system may kill this run. %s",
        size,
        format_bytes(taken.of(size)),
        format_bytes(room),
        f"train.batch_size: {fits} fits." if fits else "Not even 2 images fit: freeze more layers.",
    )


def step_memory(module: nn.Module, image: tuple[int, int, int], compute: Compute) -> StepMemory:
    """Estimate the memory of a step from what forward passes of two and four images store.

    Args:
        module: in the modes that it trains in; the passes change its BatchNorm statistics.
    """
    two, four = (_stored_bytes(module, (size, *image), compute) for size in (2, 4))
    each = (four - two) / 2
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    shown = math.prod(image) * torch.float32.itemsize
    # The part that does not grow with the images is the weights in half precision.
    return StepMemory(round(COPIES_OF_WEIGHTS * trained + two - 2 * each), round(PEAK * (each + shown)))


def _stored_bytes(module: nn.Module, shape: tuple[int, ...], compute: Compute) -> int:
    """The bytes that a forward pass stores for the backward pass, without the weights."""
    stored: dict[int, int] = {}

    def record(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        return value

    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    images = torch.zeros(shape, device=compute.device)
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(record, lambda value: value),
        compute.autocast(),
    ):
        logits = module(images)
        # Alive until here, so that no address is reused.
        del logits
    return sum(nbytes for place, nbytes in stored.items() if place not in weights)


def _as_it_trains(train: TrainSection, network: Network, batchnorm: BatchNormMode) -> nn.Module:
    """A copy of the network, as in the phase that freezes the fewest layers."""
    trial = copy.deepcopy(network.module)
    k = min(resolve_freeze(phase.freeze, network.table) for phase in train.phases)
    freeze = Freeze(trial, network.table, k, batchnorm)
    freeze.apply()
    freeze.train_mode()
    return trial


def _step(trial: nn.Module, image: tuple[int, int, int], compute: Compute) -> Callable[[int], None]:
    criterion = nn.CrossEntropyLoss()

    def attempt(size: int) -> None:
        images = torch.zeros(size, *image, device=compute.device)
        targets = torch.zeros(size, dtype=torch.int64, device=compute.device)
        try:
            with compute.autocast():
                loss, _ = loss_and_logits(criterion, trial(images), targets)
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            trial.zero_grad(set_to_none=True)

    return attempt


def _room() -> int | None:
    free = free_memory()
    return None if free is None else round(SHARE_TAKEN * free)
