"""timm's networks, named ``timm:NAME``. timm is an optional extra."""

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, get_args

from torch import Tensor, hub, nn

from finetune.errors import MissingExtraError, UserError, WeightsError, first_line
from finetune.image.preprocessing import Interpolation, Preprocessing
from finetune.model.layers.table import LayerTable
from finetune.model.libraries import timm_layers
from finetune.model.libraries.protocol import SOURCE_CLASSES, Backbone, Library, PublishedWeights
from finetune.model.libraries.torchvision_library import imagenet_classes
from finetune.model.weights.adapt import Adapt
from finetune.offline import NOT_FETCHED, is_offline
from finetune.recipe import catalog


class TimmLibrary(Library):
    """Every network of the installed timm."""

    def names(self) -> Sequence[str]:
        return _require_timm().list_models()  # type: ignore[no-any-return]

    def backbone(self, name: str) -> Backbone:
        timm, own = _require_timm(), catalog.split_name(name)[1]
        if not timm.is_model(own):
            raise UserError(f"timm {timm.__version__} has no {own!r}.{catalog.suggest(own, self.names())}")
        return TimmBackbone(name, own)


class TimmBackbone(Backbone):
    """A network of timm.

    Args:
        name: as a recipe names it.
        own: timm's name for it.
    """

    def __init__(self, name: str, own: str) -> None:
        self.name = name
        self._own = own

    @cached_property
    def _config(self) -> Any:
        """timm's description: input size, mean, classifier and so on."""
        try:
            found = _require_timm().get_pretrained_cfg(self._own)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.name}: {error}") from None
        if found is None:
            raise UserError(f"{self.name} cannot be used: timm does not describe its input")
        return found

    @property
    def has_fixed_size(self) -> bool:
        return bool(self._config.fixed_input_size)

    @property
    def _num_classes(self) -> int:
        """Classes of the pretrained head; 0 without a head."""
        count = self._config.num_classes
        return SOURCE_CLASSES if count is None else int(count)

    def create(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        options: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
        if self.has_fixed_size and image_size is not None and image_size != self._config.input_size[-1]:
            options["img_size"] = image_size
        try:
            module: nn.Module = _require_timm().create_model(self._own, **options)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UserError(f"{self.name} cannot be built ({first_line(error)})") from None
        return module

    def blueprint(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        # timm's constructors may compute with values, which the meta device does not have.
        return self.create(num_classes, image_size=image_size)

    def preprocessing(self, weights: str = "default") -> Preprocessing:
        config = self._config
        size = int(config.input_size[-1])
        known = config.interpolation in get_args(Interpolation)
        return Preprocessing(
            image_size=size,
            resize=math.floor(size / config.crop_pct),
            resize_mode="squash" if config.crop_mode == "squash" else "shorter",
            interpolation=config.interpolation if known else "bicubic",
            mean=tuple(config.mean),
            std=tuple(config.std),
        )

    def fetch_weights(self, weights: str = "default") -> PublishedWeights:
        """Fetch timm's pretrained weights, from its cache or from its model hub."""
        timm = _require_timm()
        offline = is_offline()
        try:
            # timm's client prints to stdout, which is for data.
            with (
                contextlib.redirect_stdout(sys.stderr),
                _no_download() if offline else contextlib.nullcontext(),
            ):
                module = timm.create_model(self._own, pretrained=True, num_classes=self._num_classes)
        except Exception as error:
            # The hub's client raises errors of many kinds.
            why = (
                f"are not in the cache, and were {NOT_FETCHED}"
                if offline
                else f"could not be downloaded from timm's hub ({first_line(error)})"
            )
            raise WeightsError(
                f"the weights of {self.name} {why}. Download the checkpoint elsewhere ({self._address()}) "
                f"and set model.weights to the file, or to none; or use the backbone "
                f"{catalog.DEFAULT_BACKBONE}, whose weights need no download."
            ) from None
        has_head = self._num_classes == SOURCE_CLASSES
        classes = imagenet_classes() if has_head else None
        return PublishedWeights(dict(module.state_dict()), self.name, classes, has_head=has_head)

    def _address(self) -> str:
        config = self._config
        hub_page = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else None
        return hub_page or str(config.url or "no address")

    def head_paths(self, path: str = "") -> Sequence[str]:
        """Paths of the last layers: one, or several whose logits the network averages.

        Raises:
            UserError: timm names none.
        """
        given = self._config.classifier
        paths = (given,) if isinstance(given, str) else tuple(given or ())
        if not paths:
            raise UserError(f"{self.name} cannot be used: timm names no classifier to replace")
        return paths

    def find_layers(
        self, module: nn.Module, head_path: str | None = None, *, warn: bool = False
    ) -> LayerTable:
        return timm_layers.find_layers(self.name, module, self.head_paths(), warn=warn)

    def with_output_shapes(self, module: nn.Module, table: LayerTable, image_size: int) -> LayerTable:
        if table.body[0].cut is None:
            return timm_layers.with_output_shapes(module, table, image_size)
        return super().with_output_shapes(module, table, image_size)

    def resizer(self, module: nn.Module) -> Adapt | None:
        """Return timm's own function: it resamples position embeddings and tables of relative positions."""
        resample = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
        if resample is None:
            return None

        def resize(name: str, found: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
            if name.endswith(".weight") or found.ndim != own.ndim:
                return None
            # The function differs per architecture, and so do its errors for other entries.
            with contextlib.suppress(
                RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError
            ):
                fitted = resample({name: found.float()}, module)[name]
                return fitted, f"resampled by timm from {tuple(found.shape)} to {tuple(own.shape)}"
            return None

        return resize


def _require_timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise MissingExtraError("A backbone timm:NAME", "timm", "timm") from None
    return timm


@contextlib.contextmanager
def _no_download() -> Iterator[None]:
    """Let timm and the hub's client read their caches, and make every download fail."""

    def refuse(url: str, *_: Any, **__: Any) -> None:
        raise OSError(f"{url}: {NOT_FETCHED}")

    places = [
        (hub, "download_url_to_file", refuse),
        (sys.modules.get("timm.models._hub"), "download_url_to_file", refuse),
        (sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE", True),
    ]
    with contextlib.ExitStack() as stack:
        for module, attribute, value in places:
            if hasattr(module, attribute):
                stack.callback(setattr, module, attribute, getattr(module, attribute))
                setattr(module, attribute, value)
        yield
