"""Where numbers went wrong."""

from typing import Any

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, images: Tensor) -> str | None:
    """The name of the first module, in execution order, whose output for ``images`` is not finite.

    ``"the images"`` where the input itself is not; None where every output is finite (then the loss alone
    is not). The model is run once more, as it stands.
    """
    if not bool(images.isfinite().all()):
        return "the images"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = (
                [output] if isinstance(output, Tensor) else [*output] if isinstance(output, tuple) else []
            )
            if not found and any(isinstance(t, Tensor) and not bool(t.isfinite().all()) for t in tensors):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
