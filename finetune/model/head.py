"""Replaces the source's classification head by a new one."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.errors import FinetuneError, UserError, require_known
from finetune.recipe.limits import HIDDEN, is_whole

Init = Literal["xavier", "normal", "zero", "default"]
# Small, so that the first logits are close together and the first gradients of the body are small.
NORMAL_STD = 0.01


@dataclass(frozen=True)
class HeadDesign:
    """The design of a new head, without dropout. The default is one layer like the source's.

    Attributes:
        hidden: units of a hidden layer with ReLU; None: no hidden layer.
        kind: type of the last layer.
        scale: initial scale of a cosine classifier, above 0.
        learn_scale: whether the scale trains.
    """

    hidden: int | None = None
    kind: Literal["linear", "cosine"] = "linear"
    scale: float = 10.0
    learn_scale: bool = True

    def __post_init__(self) -> None:
        require_known("head type", self.kind, ("linear", "cosine"))

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types for a checkpoint: empty for the default design."""
        entries: dict[str, Any] = {} if self.hidden is None else {"hidden": self.hidden}
        if self.kind == "cosine":
            entries["cosine"] = {"learn_scale": self.learn_scale}
        return entries

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Self:
        """Read the result of :meth:`to_dict`. The scale is among the checkpoint's tensors.

        Raises:
            TypeError: an entry has the wrong type.
        """
        hidden, cosine = entries.get("hidden"), entries.get("cosine")
        if hidden is not None and not is_whole(hidden, HIDDEN):
            raise TypeError("hidden is not a number of units")
        if cosine is None:
            return cls(hidden)
        if not isinstance(cosine["learn_scale"], bool):
            raise TypeError("learn_scale is neither true nor false")
        return cls(hidden, "cosine", learn_scale=cosine["learn_scale"])


class CosineLinear(nn.Module):
    """A cosine classifier: logit c is ``scale`` times the cosine between the features and weight row c.

    From Gidaris and Komodakis 2018, who learn the scale from 10. Chen et al. 2019 find it a strong baseline
    for few images: rows of different length do not favour classes. Features ``(N, in_features)`` give logits
    ``(N, num_classes)`` within [-scale, scale].
    """

    def __init__(self, in_features: int, num_classes: int, scale: float, learn_scale: bool) -> None:
        super().__init__()
        self.in_features = in_features
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear does
        value = torch.tensor(float(scale))
        if learn_scale:
            self.scale: Tensor = nn.Parameter(value)
        else:
            self.register_buffer("scale", value)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits."""
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))


def swap_head(
    module: nn.Module,
    head_path: str,
    num_classes: int,
    *,
    dropout: float,
    init: str,
    design: HeadDesign | None = None,
) -> None:
    """Replace the linear layer or convolution at ``head_path`` by a new head for ``num_classes`` classes.

    The new head has the old one's inputs, geometry, device and type, and a bias if the old one has one. Its
    values are drawn from torch's global generator.

    Args:
        dropout: probability of dropout before each new layer, from 0 (none) to below 1.
        init: initial weights of the last layer: ``xavier`` (uniform; Glorot and Bengio 2010), ``normal``
            (standard deviation 0.01) or ``zero``, each with a bias of zero, or ``default`` (torch's own). A
            hidden layer starts as in He et al. 2015, or with ``default`` at torch's own values.
        design: a hidden layer or a cosine classifier. None: neither.

    Raises:
        UserError: a cosine classifier would replace a convolution.
        FinetuneError: the module at this path is neither a linear layer nor a convolution.
    """
    require_known("head init", init, get_args(Init))
    design = design or HeadDesign()
    old = module.get_submodule(head_path)
    if not (isinstance(old, nn.Linear) or (isinstance(old, nn.Conv2d) and old.groups == 1)):
        raise FinetuneError(
            f"the head {head_path} is a {type(old).__name__}, not a linear layer or a convolution"
        )
    if design.kind == "cosine" and isinstance(old, nn.Conv2d):
        raise UserError(
            f"model.head.type: cosine needs one feature vector per image, and the head {head_path} is a "
            f"convolution over a map. Cut the network before it with model.head.at, or use type: linear."
        )
    parts: list[nn.Module] = []
    if design.hidden is not None:
        hidden = _hidden(old, design.hidden)
        if init != "default":
            nn.init.kaiming_uniform_(hidden.weight, nonlinearity="relu")
            nn.init.zeros_(hidden.bias)  # type: ignore[arg-type]
        parts = [*_dropout(dropout), hidden, nn.ReLU()]
    layer = _last_layer(old, num_classes, design)
    _initialise(layer, init)
    parts += [*_dropout(dropout), layer]
    module.set_submodule(head_path, nn.Sequential(*parts) if len(parts) > 1 else layer)


def find_linear(module: nn.Module, head_path: str) -> nn.Linear | None:
    """Return the head's linear layer if the head is dropout and a linear layer with bias, else None."""
    head = module.get_submodule(head_path)
    parts = list(head) if isinstance(head, nn.Sequential) else [head]
    layer = parts.pop()
    if any(not isinstance(part, nn.Dropout) for part in parts) or not isinstance(layer, nn.Linear):
        return None
    return layer if layer.bias is not None else None


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share > 0 else []


def _hidden(old: nn.Linear | nn.Conv2d, units: int) -> nn.Linear | nn.Conv2d:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, units, device=old.weight.device, dtype=old.weight.dtype)
    # 1 x 1: the last layer has the old one's geometry.
    return nn.Conv2d(old.in_channels, units, 1, device=old.weight.device, dtype=old.weight.dtype)


def _last_layer(
    old: nn.Linear | nn.Conv2d, num_classes: int, design: HeadDesign
) -> nn.Linear | nn.Conv2d | CosineLinear:
    options: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
    if isinstance(old, nn.Linear):
        features = design.hidden or old.in_features
        if design.kind == "cosine":
            return CosineLinear(features, num_classes, design.scale, design.learn_scale).to(**options)
        return nn.Linear(features, num_classes, old.bias is not None, **options)
    for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        options[name] = getattr(old, name)
    return nn.Conv2d(design.hidden or old.in_channels, num_classes, bias=old.bias is not None, **options)


def _initialise(layer: nn.Linear | nn.Conv2d | CosineLinear, init: str) -> None:
    if init == "default":
        return
    if init == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "normal":
        nn.init.normal_(layer.weight, std=NORMAL_STD)
    else:
        nn.init.zeros_(layer.weight)
    if not isinstance(layer, CosineLinear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
