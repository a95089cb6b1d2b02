"""Networks by name, with random weights: every torchvision classifier, and EfficientNet-Lite0."""

from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from finetune.errors import UserError, first_line
from finetune.model.libraries import efficientnet_lite, timm_library
from finetune.recipe.catalog import TIMM, backbone

# How many the classifiers of the source have, unless timm says otherwise.
SOURCE_CLASSES = 1000
# Networks that are laid out for one image size.
_FIXED_SIZE = ("vit_", "maxvit_")
# Networks with extra classifiers on the way, which serve training only.
AUXILIARY = frozenset({"googlenet", "inception_v3"})
# Where those are; the last two are second classifiers of timm's.
AUXILIARY_HEADS = ("aux1", "aux2", "AuxLogits", "head_dist", "aux_head")


def has_fixed_size(name: str) -> bool:
    """Whether the network is built for one image size (ViT, MaxViT) and takes no other."""
    if name.startswith(TIMM):
        return bool(timm_library.config(name).fixed_input_size)
    return name.startswith(_FIXED_SIZE)


def require(name: str) -> None:
    """Make sure that the network can be created.

    Raises:
        UserError: an unknown name, or one that the installed torchvision does not have.
    """
    if name.startswith(TIMM):
        timm_library.config(name)
    elif name != efficientnet_lite.NAME and name not in models.list_models(module=models):
        backbone(name)  # says what is near, for a name that nobody knows
        raise UserError(f"the installed torchvision {torchvision.__version__} has no {name}; update it")


def create(
    name: str, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
) -> nn.Module:
    """The network of that name with random weights, drawn from torch's global generator.

    Args:
        name: as `finetune backbones` lists it, or ``timm:NAME``.
        num_classes: size of the last layer.
        image_size: side of the images in pixels, which only networks of a fixed size look at; None: their
            own.
        auxiliary: keep the auxiliary classifiers of GoogLeNet and Inception-v3.

    GoogLeNet and Inception-v3 come without their ``transform_input``, which trades ImageNet's normalisation
    for another one: :func:`finetune.model.source_weights.input_spec` asks for the other one to begin with.

    Raises:
        UserError: an unknown name, or an image size that the network cannot be built for.
    """
    require(name)
    if name.startswith(TIMM):
        return timm_library.create(name, num_classes, image_size)
    if name == efficientnet_lite.NAME:
        lite: nn.Module = efficientnet_lite.efficientnet_lite0(num_classes)
        return lite
    if name.startswith("mnasnet"):
        return _MNASNet(float(name.removeprefix("mnasnet").replace("_", ".")), num_classes)
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in AUXILIARY:
        options |= {"aux_logits": auxiliary, "transform_input": False, "init_weights": True}
    if image_size is not None and name.startswith("vit_"):
        options["image_size"] = image_size
    if image_size is not None and name.startswith("maxvit_"):
        options["input_size"] = (image_size, image_size)
    try:
        module: nn.Module = models.get_model(name, **options)
    except (ValueError, AssertionError) as error:
        if image_size is None:
            raise
        raise UserError(f"{name} cannot take images of {image_size} px: {first_line(error)}") from None
    return module


def blueprint(
    name: str, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
) -> nn.Module:
    """As :func:`create`, on the meta device: shapes and structure without memory, in well under a second."""
    with _EmptyOnMeta():
        module = create(name, num_classes, image_size=image_size, auxiliary=auxiliary)
    return module.to("meta")


class _MNASNet(models.MNASNet):  # type: ignore[misc]
    """torchvision's refuses a plain mapping of names to tensors, which does not say which format it is."""

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, {"version": 2} | local_metadata, *rest)


_FILLS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_)


class _EmptyOnMeta(TorchFunctionMode):
    """Allocate what ``torch.empty`` allocates on the meta device, and initialise nothing there.

    ``torch.device("meta")`` would move every factory function there, and RegNet's constructor computes its
    widths with tensors whose values it needs.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            kwargs = kwargs | {"device": "meta"}
        elif func in _FILLS and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)
