"""How many images fit a training step: for ``train.batch_size: auto``, and told before memory runs out.

A step is of so many images whatever the machine, since rates and results hang on that; where they do not
fit at once, they are taken in several batches (``train.accumulate``).

On the CPU the system ends a process that takes too much, without a word. So what a step will take is
estimated, from what forward passes of a few images keep. On a GPU whole steps are tried, which fail in
an orderly way.
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

# What `auto` is where it fits, and what the default learning rates are for.
IMAGES_A_STEP = DEFAULT_BATCH_SIZE
# What a step takes at its peak, of what the forward pass keeps for the backward pass: at most that, on the
# networks and precisions that were measured.
PEAK = 1.7
# Gradients, AdamW's two numbers a weight, and what it needs for the time of its step.
COPIES_OF_WEIGHTS = 5
# Something is left to the rest of the machine.
SHARE_TAKEN = 0.9
# At 224 px; no network that was measured takes more an image. Where so much is free, nothing is estimated.
ROOMY = 500_000_000


@dataclass(frozen=True)
class StepMemory:
    """What a training step takes beside the network itself, in bytes: ``fixed``, and for each image."""

    fixed: int
    image: int

    def of(self, batch_size: int) -> int:
        """All of it."""
        return self.fixed + batch_size * self.image

    def largest(self, batch_size: int, room: int) -> int | None:
        """``batch_size``, or half of it, and so on, not below 2: the first that fits; None: none does."""
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
    """``train`` with a number in place of ``batch_size: auto``, and ``accumulate`` to make up for it.

    Args:
        image: shape of one, (C, S, S).

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
        # The copy's weights stand for the optimizer's state.
        attempt = _step(trial, image, compute)
        fits = largest_that_fits(2 * IMAGES_A_STEP, attempt) or 0
    if not fits:
        raise NoMemoryError(
            f"train.batch_size: auto: not even 2 images of {image[-1]} px fit into memory. Take a "
            "smaller data.image_size or model.backbone, or freeze more."
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
    """On the CPU, tell of a step that will hardly fit, and what would."""
    room, size = _room(), train.images_a_batch
    weights = sum(p.numel() * p.element_size() for p in network.module.parameters())
    roomy = COPIES_OF_WEIGHTS * weights + size * ROOMY * (image[-1] / 224) ** 2
    if compute.device.type != "cpu" or room is None or room > roomy:
        return
    taken = step_memory(_as_it_trains(train, network, batchnorm), image, compute)
    if taken.of(size) <= room:
        return
    fits = taken.largest(size, room)
    log.warning(
        "a step of %d images takes up to %s, and %s of memory are free: the system may end this run. %s",
        size,
        format_bytes(taken.of(size)),
        format_bytes(room),
        f"train.batch_size: {fits} fits." if fits else "Not even 2 images fit: freeze more.",
    )


def step_memory(module: nn.Module, image: tuple[int, int, int], compute: Compute) -> StepMemory:
    """Estimate what a step takes, from what forward passes of two and four images keep for backward ones.

    Args:
        module: in the modes it trains in; its BatchNorm statistics move.
    """
    two, four = (_kept(module, (size, *image), compute) for size in (2, 4))
    each = (four - two) / 2
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    shown = math.prod(image) * torch.float32.itemsize
    # What is kept and no image's are the weights in half precision.
    return StepMemory(round(COPIES_OF_WEIGHTS * trained + two - 2 * each), round(PEAK * (each + shown)))


def _kept(module: nn.Module, shape: tuple[int, ...], compute: Compute) -> int:
    """Bytes, weights aside."""
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return value

    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    images = torch.zeros(shape, device=compute.device)
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        compute.autocast(),
    ):
        logits = module(images)
        # Alive until here, so that no address has come twice.
        del logits
    return sum(nbytes for place, nbytes in kept.items() if place not in weights)


def _as_it_trains(train: TrainSection, network: Network, batchnorm: BatchNormMode) -> nn.Module:
    """A copy, as it is in the phase that freezes least."""
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
