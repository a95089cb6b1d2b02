"""A new classification head in place of the source's."""

from typing import Any, Literal

from torch import nn

from finetune.errors import FinetuneError

Init = Literal["xavier", "normal", "zero", "default"]
# Small, so that the first logits are near each other and the first gradients do not tear at the body.
NORMAL_STD = 0.01


def swap_head(module: nn.Module, head_path: str, num_classes: int, *, dropout: float, init: str) -> str:
    """Replace the linear layer or convolution at ``head_path`` by a new one for ``num_classes`` classes.

    The new one has the old one's inputs, geometry, device and type, and a bias if that had one. Its values
    are drawn from torch's global generator.

    Args:
        dropout: in front of the new layer, 0 (none) up to 1.
        init: of the weights: ``xavier`` (uniform; Glorot and Bengio 2010), ``normal`` (standard deviation
            0.01), ``zero``, or ``default`` (torch's own, for the bias too). The bias is zero otherwise.

    Returns:
        The path of the new head, which is the old one's.
    """
    old = module.get_submodule(head_path)
    layer = _like(old, head_path, num_classes)
    _initialise(layer, init)
    new: nn.Module = nn.Sequential(nn.Dropout(dropout), layer) if dropout > 0 else layer
    parent, _, name = head_path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)
    return head_path


def _like(old: nn.Module, head_path: str, num_classes: int) -> nn.Linear | nn.Conv2d:
    if isinstance(old, nn.Linear):
        has_bias = old.bias is not None
        return nn.Linear(
            old.in_features, num_classes, has_bias, device=old.weight.device, dtype=old.weight.dtype
        )
    if isinstance(old, nn.Conv2d) and old.groups == 1:
        options: dict[str, Any] = {
            name: getattr(old, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        options |= {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
        return nn.Conv2d(old.in_channels, num_classes, **options)
    raise FinetuneError(f"the head {head_path} is a {type(old).__name__}, no linear layer or convolution")


def _initialise(layer: nn.Linear | nn.Conv2d, init: str) -> None:
    if init == "default":
        return
    if init == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "normal":
        nn.init.normal_(layer.weight, std=NORMAL_STD)
    elif init == "zero":
        nn.init.zeros_(layer.weight)
    else:
        raise FinetuneError(f"unknown head init {init!r}")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
