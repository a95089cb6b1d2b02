"""``train.compile``: train through ``torch.compile``."""

from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import UserError, first_line


class Compiled:
    """``module`` compiled for batches of ``batch_size`` images; a smaller last batch runs uncompiled.

    Each size has one set of kernels, so the kernels of a batch depend only on its size, not on earlier
    batches. So a resumed run is bit-identical. The module itself is unchanged.
    """

    def __init__(self, module: nn.Module, batch_size: int, backend: str = "inductor") -> None:
        # torch stops compiling after several versions of one forward; those of earlier phases and runs must
        # not count.
        torch.compiler.reset()
        self._module = module
        self._batch_size = batch_size
        self._compiled = torch.compile(module, dynamic=False, backend=backend)

    def __call__(self, images: Tensor) -> Any:
        """Run the module.

        Raises:
            UserError: the module cannot be compiled.
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
