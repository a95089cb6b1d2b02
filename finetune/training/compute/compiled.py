"""``train.compile``: what trains, through ``torch.compile``."""

from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import UserError, first_line


class Compiled:
    """``module`` compiled for batches of ``batch_size`` images; the last batch of an epoch runs as it is.

    One size is one set of kernels: which kernels a batch gets depends on its size alone, and not on what came
    before it, so that a run that is taken up again ends in the same bits. The module itself stays as it is:
    its parameters' names, its modes, and all that saves or judges it.
    """

    def __init__(self, module: nn.Module, batch_size: int, backend: str = "inductor") -> None:
        # Torch gives up compiling after so many versions of one forward: those of earlier phases and runs
        # must not count.
        torch.compiler.reset()
        self._module = module
        self._batch_size = batch_size
        self._compiled = torch.compile(module, dynamic=False, backend=backend)

    def __call__(self, images: Tensor) -> Any:
        """What the module computes.

        Raises:
            UserError: it cannot be compiled.
        """
        if len(images) != self._batch_size:
            return self._module(images)
        try:
            return self._compiled(images)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            reason = first_line(getattr(error, "inner_exception", error))
            raise UserError(
                f"train.compile: true: torch cannot compile this network here ({reason}). Leave it out."
            ) from error
