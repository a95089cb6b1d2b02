"""Where source weights come from: torchvision, the packaged EfficientNet-Lite0, a checkpoint file, a run.

What they are told by is the recipe's ``model.weights``; what goes with them is the preprocessing they want.
"""

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from torch import nn
from torchvision import models

from finetune.checkpoint.manifest import find_damage, read_unchanged
from finetune.disk.regular import DOCUMENT_BYTES, read_regular
from finetune.errors import WeightsError, printable
from finetune.image.preprocessing import Interpolation, Preprocessing, ResizeMode
from finetune.model.backbones import AUXILIARY, SOURCE_CLASSES, require
from finetune.model.layers.find import find_layers
from finetune.model.layers.table import LayerTable
from finetune.model.libraries import timm_library
from finetune.model.libraries.efficientnet_lite import NAME as LITE
from finetune.model.reuse import SourceHead
from finetune.model.weights.adapt import Adapt
from finetune.model.weights.files import PACKAGE, SUFFIXES, check_hash, fetch, packaged_file, read_file
from finetune.model.weights.load_report import LoadReport
from finetune.model.weights.matching import load_matching
from finetune.recipe.catalog import TIMM, backbone, suggest
from finetune.recipe.limits import CHANNELS, IMAGE_SIZE, RESIZE, is_whole
from finetune.recipe.schema import WeightsFile

PACKAGED = "PACKAGED"
_RUN_CHECKPOINT = Path("checkpoints", "best")


@dataclass(frozen=True)
class LoadedWeights:
    """The outcome of :func:`load_source_weights`.

    Attributes:
        input_spec: the preprocessing that goes with the weights.
        classes: names of the source's classes in the order of its logits, where they are known.
        origin: where the weights came from, for people.
        report: what was loaded and what was not; None for random weights.
        head: the source's classifier, where there is one.
    """

    input_spec: Preprocessing
    classes: tuple[str, ...] | None
    origin: str
    report: LoadReport | None
    head: SourceHead | None = None


@dataclass(frozen=True)
class _Found:
    """What a recipe's ``weights`` turned out to be."""

    kind: Literal["none", "torchvision", "timm", "packaged", "file", "run"]
    entry: Any = None
    path: Path = Path()


def input_spec(backbone_name: str, weights: str | WeightsFile) -> Preprocessing:
    """The preprocessing that goes with a backbone's weights; those of a file, or of none, are the default's.

    Raises:
        UserError: an unknown backbone.
        WeightsError: weights that there are not, or a run that is not of this backbone.
    """
    found = _find(backbone_name, weights)
    if found.kind == "run":
        return _run_card(found.path, backbone_name)[0]
    if backbone_name.startswith(TIMM):
        return _timm_spec(backbone_name)
    if backbone_name == LITE:
        half = (0.5, 0.5, 0.5)
        return Preprocessing(224, 256, "shorter", "bicubic", half, half)
    entry = found.entry or models.get_model_weights(backbone_name).DEFAULT
    preset = entry.transforms()
    # torchvision's GoogLeNet and Inception-v3 renormalise their input to this; ours get it so from the start.
    renormalised = (0.5, 0.5, 0.5) if backbone_name in AUXILIARY else None
    return Preprocessing(
        image_size=preset.crop_size[0],
        resize=preset.resize_size[0],
        resize_mode="shorter",
        interpolation=preset.interpolation.value,
        mean=renormalised or tuple(preset.mean),
        std=renormalised or tuple(preset.std),
    )


def load_source_weights(
    module: nn.Module,
    backbone_name: str,
    weights: str | WeightsFile,
    table: LayerTable | None = None,
    adapt: Adapt | None = None,
) -> LoadedWeights:
    """Load a recipe's ``weights`` into a network that still has its source's head.

    Args:
        module: as :func:`finetune.model.backbones.create` makes it, with 1000 classes.
        backbone_name: its name.
        weights: ``default``, ``none``, a name of torchvision's, a .pt, .pth or .safetensors file, or a run
            directory; the last two perhaps with rules for renaming and a least share. Of these two the
            head's entries are left out: the new head starts afresh.
        table: the network's layers, where they are known already.
        adapt: how entries for the source's images become the network's, where it is made for others.

    Raises:
        WeightsError: weights that cannot be had, read, or matched with the network.
    """
    found = _find(backbone_name, weights)
    spec = input_spec(backbone_name, weights)
    if found.kind == "none":
        return LoadedWeights(spec, None, "none", None)
    table = table or find_layers(module)
    if found.kind == "packaged":
        report = _load_packaged(module, table, adapt)
        names = _imagenet_classes()
        return LoadedWeights(spec, names, f"{PACKAGE} (packaged)", report, _source_head(report, names))
    if found.kind == "timm":
        count = timm_library.config(backbone_name).num_classes
        report = load_matching(
            module,
            table,
            timm_library.pretrained(backbone_name, SOURCE_CLASSES if count is None else count),
            where=backbone_name,
            min_share=1.0,
            with_head=count == SOURCE_CLASSES,
            adapt=adapt,
        )
        classes = _imagenet_classes() if count == SOURCE_CLASSES else None
        return LoadedWeights(spec, classes, backbone_name, report, _source_head(report, classes))
    if found.kind == "torchvision":
        content = fetch(found.entry, backbone_name)
        origin = f"torchvision {found.entry.name}"
        report = load_matching(
            module, table, content, where=origin, min_share=1.0, with_head=True, adapt=adapt
        )
        classes = tuple(found.entry.meta["categories"] or ()) or None
        return LoadedWeights(spec, classes, origin, report, _source_head(report, classes))
    asked = weights if isinstance(weights, WeightsFile) else WeightsFile(path=weights)
    classes, content = _read_found(found, backbone_name)
    report = load_matching(
        module,
        table,
        content,
        where=str(found.path),
        min_share=asked.min_share,
        rename=asked.rename,
        adapt=adapt,
    )
    return LoadedWeights(spec, classes, str(found.path), report, _source_head(report, classes))


def _read_found(found: _Found, backbone_name: str) -> tuple[tuple[str, ...] | None, Any]:
    """The classes, where they are known, and the content of a file or of a run, which may be training."""
    if found.kind != "run":
        return None, read_file(found.path)

    def read() -> tuple[tuple[str, ...], Any]:
        _check_whole(found.path)
        return _run_card(found.path, backbone_name)[1], read_file(found.path)

    return read_unchanged([found.path.parent], read)


def _source_head(report: LoadReport, classes: tuple[str, ...] | None) -> SourceHead | None:
    """The last linear map or convolution below the head's path; its classes, if they are as many."""
    weights = [
        name for name, value in report.source_head.items() if name.endswith("weight") and value.ndim > 1
    ]
    if not weights:
        return None
    weight = report.source_head[weights[-1]].float()
    bias = report.source_head.get(weights[-1].removesuffix("weight") + "bias")
    if not weight.isfinite().all():
        return None
    named = classes if classes is not None and len(classes) == len(weight) else None
    return SourceHead(weight, None if bias is None else bias.float(), named)


def _find(backbone_name: str, weights: str | WeightsFile) -> _Found:
    require(backbone_name)
    if isinstance(weights, WeightsFile):
        return _find_path(weights.path) or _missing(weights.path, "model.weights.path")
    if weights == "none":
        return _Found("none")
    if backbone_name.startswith(TIMM):
        if weights == "default":
            return _Found("timm")
        return _find_path(weights) or _missing(weights, "model.weights")
    names = [each.name for each in backbone(backbone_name).weights]
    if backbone_name == LITE and weights in {"default", PACKAGED}:
        return _Found("packaged")
    if backbone_name != LITE:
        known = models.get_model_weights(backbone_name)
        if weights == "default":
            return _Found("torchvision", entry=known.DEFAULT)
        if weights in known.__members__:
            return _Found("torchvision", entry=known[weights])
    if (found := _find_path(weights)) is not None:
        return found
    path = Path(weights)
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        _missing(weights, "model.weights")
    raise WeightsError(
        f"model.weights: {backbone_name} has no {weights!r}.{suggest(weights, [*names, 'default', 'none'])} "
        f"It has: default, none, {', '.join(names)}; or give a checkpoint file or a run directory."
    )


def _timm_spec(backbone_name: str) -> Preprocessing:
    config = timm_library.config(backbone_name)
    size = int(config.input_size[-1])
    return Preprocessing(
        image_size=size,
        resize=math.floor(size / config.crop_pct),
        interpolation=config.interpolation if config.interpolation in get_args(Interpolation) else "bicubic",
        mean=tuple(config.mean),
        std=tuple(config.std),
        resize_mode="squash" if config.crop_mode == "squash" else "shorter",
    )


def _find_path(name: str) -> _Found | None:
    path = Path(name).expanduser()
    with contextlib.suppress(OSError):  # a name too long for the file system is a name of nothing
        if path.is_dir():
            best = path / _RUN_CHECKPOINT
            return _Found("run", path=read_unchanged([best], lambda: _run_file(path)))
        if path.exists():
            return _Found("file", path=path)  # whatever it is, its reader tells
    return None


def _missing(name: str, key: str) -> NoReturn:
    raise WeightsError(f"{key}: there is no file or run directory {name!r}")


def _run_file(run: Path) -> Path:
    path = run / _RUN_CHECKPOINT / "model.safetensors"
    if not path.is_file() or not path.with_name("card.json").is_file():
        raise WeightsError(
            f"{printable(run)}: is a folder, but no run directory with a best checkpoint "
            f"({_RUN_CHECKPOINT}/). Give the "
            f"folder that `finetune train` printed, or a checkpoint file."
        )
    _check_whole(path)
    return path


def _check_whole(path: Path) -> None:
    if (damage := find_damage(path.parent, (path.name, "card.json"))) is not None:
        raise WeightsError(f"model.weights: {damage}")


def _run_card(path: Path, backbone_name: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """The preprocessing and the classes of the run whose checkpoint ``path`` is."""
    where = path.with_name("card.json")
    try:
        card = json.loads(read_regular(where, DOCUMENT_BYTES))
        given = card["preprocessing"]
        mean, std = _finite(given["mean"]), _finite(given["std"])
        spec = Preprocessing(
            int(given["image_size"]), int(given["resize"]), given["resize_mode"], given["interpolation"],
            mean, std,
        )  # fmt: skip
        classes = tuple(str(name) for name in card["classes"])
        trained = card["architecture"]["backbone"]
        if (
            min(std) <= 0
            or len(mean) != len(std)
            or len(mean) == 2
            or not is_whole(given["image_size"], IMAGE_SIZE)
            or not is_whole(given["resize"], RESIZE)
            or not is_whole(len(mean), CHANNELS)
            or len(set(classes)) != len(classes)
            or spec.interpolation not in get_args(Interpolation)
            or spec.resize_mode not in get_args(ResizeMode)
        ):
            raise ValueError("its preprocessing is impossible")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise WeightsError(
            f"{printable(where)}: is not the description of a trained model ({error})"
        ) from None
    if trained != backbone_name:
        raise WeightsError(
            f"{path.parents[2]}: was trained with backbone {trained!r}, and the recipe asks for "
            f"{backbone_name!r}. Set model.backbone to {trained}."
        )
    return spec, classes


def _finite(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{values} is not finite")
    return numbers


def _load_packaged(module: nn.Module, table: LayerTable, adapt: Adapt | None) -> LoadReport:
    """EfficientNet-Lite0's file names its entries otherwise, and has them in the same order."""
    path = packaged_file()
    check_hash(path)
    given = [(name, value) for name, value in read_file(path).items() if "num_batches" not in name]
    own = [name for name in module.state_dict() if "num_batches" not in name]
    ends = [name.rpartition(".")[2] for name, _ in given]
    if ends != [name.rpartition(".")[2] for name in own]:
        raise WeightsError(f"{printable(path)}: its entries are not those of {LITE}")
    renamed = {name: value for name, (_, value) in zip(own, given, strict=True)}
    return load_matching(module, table, renamed, where=str(path), min_share=1.0, with_head=True, adapt=adapt)


def _imagenet_classes() -> tuple[str, ...]:
    return tuple(models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
