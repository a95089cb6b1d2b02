"""torchvision's classifiers and their published weights."""

import contextlib
import http.client
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.hub
import torchvision
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from finetune.errors import UserError, WeightsError, first_line, printable
from finetune.image.preprocessing import Preprocessing
from finetune.model.libraries.protocol import SOURCE_CLASSES, Backbone, Library, PublishedWeights
from finetune.model.weights.adapt import Adapt
from finetune.model.weights.files import UNREADABLE, check_hash, read_file
from finetune.offline import NOT_FETCHED, is_offline
from finetune.recipe import catalog

# Last layers of auxiliary classifiers.
_AUXILIARY_HEADS = {"googlenet": ("aux1.fc2", "aux2.fc2"), "inception_v3": ("AuxLogits.fc",)}
_POSITIONS = "encoder.pos_embedding"


class TorchvisionLibrary(Library):
    """Every classifier of the installed torchvision."""

    def names(self) -> Sequence[str]:
        return models.list_models(module=models)  # type: ignore[no-any-return]

    def backbone(self, name: str) -> Backbone:
        if name not in self.names():
            catalog.backbone(name)  # raises for a name that no torchvision has
            raise UserError(f"the installed torchvision {torchvision.__version__} has no {name}. Update it.")
        return TorchvisionBackbone(name)


class TorchvisionBackbone(Backbone):
    """A classifier of torchvision.

    GoogLeNet and Inception-v3 come without their ``transform_input``, which converts ImageNet's
    normalisation to mean and std 0.5. Their preprocessing normalises to 0.5 directly.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def weights_names(self) -> Sequence[str]:
        return tuple(models.get_model_weights(self.name).__members__)

    @property
    def has_fixed_size(self) -> bool:
        return self.name.startswith(("vit_", "maxvit_"))

    @property
    def auxiliary_heads(self) -> Sequence[str]:
        return _AUXILIARY_HEADS.get(self.name, ())

    def create(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        if self.name.startswith("mnasnet"):
            return _MNASNet(float(self.name.removeprefix("mnasnet").replace("_", ".")), num_classes)
        options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
        if self.auxiliary_heads:
            options |= {"aux_logits": auxiliary, "transform_input": False, "init_weights": True}
        if image_size is not None and self.name.startswith("vit_"):
            options["image_size"] = image_size
        if image_size is not None and self.name.startswith("maxvit_"):
            options["input_size"] = (image_size, image_size)
        try:
            module: nn.Module = models.get_model(self.name, **options)
        except (ValueError, AssertionError) as error:
            if image_size is None:
                raise
            raise UserError(
                f"{self.name} cannot take images of {image_size} px: {first_line(error)}"
            ) from None
        return module

    def preprocessing(self, weights: str = "default") -> Preprocessing:
        preset = self._entry(weights).transforms()
        mean, std = preset.mean, preset.std
        if self.auxiliary_heads:
            mean = std = (0.5, 0.5, 0.5)
        return Preprocessing(
            image_size=preset.crop_size[0],
            resize=preset.resize_size[0],
            resize_mode="shorter",
            interpolation=preset.interpolation.value,
            mean=tuple(mean),
            std=tuple(std),
        )

    def fetch_weights(self, weights: str = "default") -> PublishedWeights:
        entry = self._entry(weights)
        content = _fetch(entry, self.name)
        classes = tuple(entry.meta["categories"] or ()) or None
        return PublishedWeights(content, f"torchvision {entry.name}", classes)

    def resizer(self, module: nn.Module) -> Adapt | None:
        return resize_positions if isinstance(module, VisionTransformer) else None

    def _entry(self, weights: str) -> Any:
        known = models.get_model_weights(self.name)
        return known.DEFAULT if weights == "default" else known[weights]


def imagenet_classes() -> tuple[str, ...]:
    """The class names of ImageNet-1K, in the order of the logits."""
    return tuple(models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def resize_positions(name: str, found: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Interpolate a ViT's position embeddings for another image size.

    Bicubic, all but the class token's (Dosovitskiy et al. 2021, section 3.2).
    """
    if name != _POSITIONS or found.ndim != 3 or found.shape[2] != own.shape[2]:
        return None
    before, after = (round((each.shape[1] - 1) ** 0.5) for each in (found, own))
    if before < 1 or found.shape[1] != before**2 + 1:
        return None
    state = interpolate_embeddings(after, 1, {name: found.float()})
    return state[name], f"interpolated from {before} x {before} places to {after} x {after}"


class _MNASNet(models.MNASNet):  # type: ignore[misc]
    """Loads a plain mapping of names to tensors. torchvision's class demands a format version in it."""

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, {"version": 2} | local_metadata, *rest)


def _fetch(entry: Any, backbone_name: str) -> Any:
    """Read a weights file from torch's cache, or download it over https."""
    url = str(entry.url)
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.exists():
        check_hash(path)
        return read_file(path)
    by_hand = (
        f"Download {url} elsewhere and put it at {printable(path)}; or set model.weights to none or to a "
        f"checkpoint; or use the backbone {catalog.DEFAULT_BACKBONE}, whose weights need no download."
    )
    if is_offline():
        raise WeightsError(
            f"the weights of {backbone_name} ({entry.name}) are not in the cache, and were {NOT_FETCHED}. "
            f"{by_hand}"
        )
    if not url.startswith("https://"):
        raise WeightsError(f"{url}: weights are downloaded over https only")
    try:
        # torch prints its progress to stdout, which is for data.
        verbose = logging.getLogger("finetune").isEnabledFor(logging.INFO)
        with contextlib.redirect_stdout(sys.stderr if verbose else io.StringIO()):
            return entry.get_state_dict(
                progress=verbose and sys.stderr.isatty(),
                check_hash=True,
                map_location="cpu",
                weights_only=True,
            )
    except (*UNREADABLE, http.client.HTTPException) as error:
        raise WeightsError(
            f"the weights of {backbone_name} ({entry.name}) could not be downloaded ({first_line(error)}). "
            f"{by_hand}"
        ) from None
