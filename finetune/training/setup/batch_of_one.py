"""Refuse ``batch_size: 1`` before training if a BatchNorm would see one value per channel."""

import copy
from collections.abc import Sequence

import torch

from finetune.errors import UserError
from finetune.model.freeze import Freeze, resolve_freeze
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.prepare import Setup


def refuse_batch_of_one(setup: Setup, plans: Sequence[PhasePlan]) -> None:
    """Try ``batch_size: 1`` on a copy of the network; larger batches never shrink to one image.

    Raises:
        UserError: a BatchNorm in training mode would see a single value per channel.
    """
    if setup.recipe.train.images_a_batch > 1:
        return
    network, side = setup.network, setup.image[-1]
    for plan in plans:
        trial = copy.deepcopy(network.module)
        k = resolve_freeze(plan.freeze, network.table)
        Freeze(trial, network.table, k, setup.recipe.model.batchnorm).train_mode()
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), setup.compute.autocast():
                trial(torch.zeros(1, *setup.image, device=setup.compute.device))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"train.batch_size: 1 gives a BatchNorm of {setup.recipe.model.backbone} a single value "
                f"per channel at {side} px, and it cannot train on that. Use batch_size 2 or more, larger "
                "images (data.image_size), or model.batchnorm: frozen."
            ) from None
