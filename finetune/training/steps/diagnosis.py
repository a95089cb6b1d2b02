"""Find the module in which a forward pass first stops being finite."""

from typing import Any

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, images: Tensor) -> str | None:
    """The name of the first module, in execution order, whose output for ``images`` is not finite.

    ``"the images"`` if the input is not finite; None if every output is finite, and only the loss is not.
    Runs the model once more, in its present modes.
    """
    if not bool(images.isfinite().all()):
        return "the images"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = (
                [output] if isinstance(output, Tensor) else [*output] if isinstance(output, tuple) else []
            )
            if not found and any(isinstance(t, Tensor) and not bool(t.isfinite().all()) for t in tensors):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
