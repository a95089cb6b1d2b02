"""Builds the network to train from a recipe's ``model`` section: backbone, weights, layers, new head."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from finetune.errors import CheckpointError, FinetuneError, UserError, WeightsError, first_line
from finetune.image.preprocessing import Preprocessing
from finetune.model.auxiliary import has_room
from finetune.model.backbones import find_backbone
from finetune.model.head import HeadDesign, swap_head
from finetune.model.layers.find import find_layers
from finetune.model.layers.table import LayerTable
from finetune.model.libraries.protocol import Backbone
from finetune.model.reuse import choose_rows, copy_rows
from finetune.model.source_weights import LoadedWeights, input_spec, load_source_weights
from finetune.model.truncate import Cut, plan_cut, table_before, truncate, truncated_table
from finetune.model.weights.adapt import COLOURS, adapter, repeated, set_in_channels
from finetune.recipe.limits import CHANNELS, IMAGE_SIZE, is_whole
from finetune.recipe.schema import ModelSection

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Network:
    """A network ready to be trained.

    Attributes:
        module: images ``(N, in_channels, S, S)`` to logits ``(N, num_classes)``.
        table: its layers, with the new head.
        input_spec: the preprocessing that the source weights were trained with.
        weights: the source weights; None for random weights.
        architecture: the argument of :func:`rebuild`, JSON-ready.
        reused: classes whose head row starts from a source class, and that class.
    """

    module: nn.Module
    table: LayerTable
    head_path: str
    input_spec: Preprocessing
    weights: LoadedWeights | None
    architecture: dict[str, Any]
    reused: Mapping[str, str] = field(default_factory=dict)


def build(
    section: ModelSection,
    num_classes: int,
    *,
    seed: int,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
) -> Network:
    """Create a backbone, load its source weights and give it a new head.

    Args:
        section: the recipe's ``model`` section.
        seed: determines the initial values of the head, and of a backbone without weights.
        image_size: side of the training images in pixels; None: the image size of the weights.
        classes: class names for ``head.reuse``; None: the classes' numbers.

    Raises:
        UserError: an unknown backbone, an image size that it cannot take, or an unknown class to reuse.
        WeightsError: the weights cannot be fetched, read or matched.
    """
    head, channels = section.head, section.in_channels
    backbone = find_backbone(section.backbone)
    spec = input_spec(backbone.name, section.weights)
    mean, std = repeated(spec.mean, channels), repeated(spec.std, channels)
    spec = replace(spec, mean=mean, std=std, reads="colours")
    size = spec.image_size if image_size is None else image_size
    if size != spec.image_size:
        describe(backbone.name, size, warn=False)  # refuses a size that would fail later
    auxiliary = head.at is None and _has_auxiliary(backbone, size)
    with _seeded(seed, "backbone"):
        module = backbone.create(image_size=size, auxiliary=auxiliary)
        first_conv = set_in_channels(module, channels) if channels != COLOURS else None
    source = backbone.find_layers(module, warn=True)
    cut = None if head.at is None else plan_cut(module, source, head.at, size, channels)
    weights = None
    if section.weights != "none":
        # Weights of the layers that are cut off need not match.
        wanted = source if cut is None else table_before(source, cut)
        adapt = adapter(first_conv, backbone.resizer(module))
        weights = load_source_weights(module, backbone.name, section.weights, wanted, adapt)
    path = source.head.name
    if cut is not None:
        module, path = truncate(module, source, cut)
    elif head.hidden is None:
        _check_init(module, source, head.init)
    design = HeadDesign(head.hidden, head.type, head.scale, head.learn_scale)
    architecture: dict[str, Any] = {
        "backbone": backbone.name,
        "auxiliary": auxiliary,
        "in_channels": channels,
        "head": {"path": path, "dropout": head.dropout, **design.to_dict()},
    }
    if cut is not None:
        architecture["head"]["cut"] = cut.to_dict()
    if backbone.has_fixed_size:
        architecture["image_size"] = size
    with _seeded(seed, "head"):
        _swap_heads(module, architecture, num_classes, head.init, design)
    reused: dict[str, str] = {}
    if head.reuse is not None:
        names = [str(number) for number in range(num_classes)] if classes is None else classes
        reused = _reuse(module.get_submodule(path), head.reuse, names, weights)
    table = backbone.find_layers(module, path) if cut is None else truncated_table(module, source, cut, path)
    return Network(module, table, path, spec, weights, architecture, reused)


def rebuild(architecture: dict[str, Any], num_classes: int) -> nn.Module:
    """Create the network that :func:`build` described, with random weights, to load a checkpoint into.

    The state of torch's global generator does not change.

    Raises:
        CheckpointError: :func:`build` did not write this description.
        UserError: the installation does not have the backbone.
    """
    try:
        name, auxiliary, head = (architecture[key] for key in ("backbone", "auxiliary", "head"))
        path, dropout = head["path"], head["dropout"]
        size, channels = architecture.get("image_size"), architecture.get("in_channels", COLOURS)
        if not (
            isinstance(name, str)
            and isinstance(auxiliary, bool)
            and isinstance(path, str)
            and type(dropout) in (int, float)
            and 0 <= dropout < 1
            and (size is None or is_whole(size, IMAGE_SIZE))
            and is_whole(channels, CHANNELS)
        ):
            raise TypeError("an entry of the wrong type")
        design = HeadDesign.from_dict(head)
        cut = Cut.from_dict(head["cut"]) if "cut" in head else None
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint's architecture is invalid ({error!r})") from None
    backbone = find_backbone(name)
    with _seeded(0, "rebuild"):
        module = backbone.create(image_size=size, auxiliary=auxiliary)
        if channels != COLOURS:
            set_in_channels(module, channels)
        try:
            if cut is not None:
                module, _ = truncate(module, find_layers(module), cut)
            _swap_heads(module, architecture, num_classes, "default", design)
        except (AttributeError, FinetuneError) as error:
            raise CheckpointError(f"the checkpoint's architecture has no such head ({error})") from None
    return module


def find_own_layers(module: nn.Module, architecture: dict[str, Any]) -> LayerTable:
    """Number the layers of a network that :func:`rebuild` created, as :func:`build` numbered them."""
    backbone, head = find_backbone(architecture["backbone"]), architecture["head"]
    if "cut" not in head:
        return backbone.find_layers(module, head["path"])
    whole = backbone.blueprint(image_size=architecture.get("image_size"), auxiliary=architecture["auxiliary"])
    return truncated_table(module, find_layers(whole), Cut.from_dict(head["cut"]), head["path"])


def published_names(module: nn.Module, architecture: dict[str, Any]) -> dict[str, str]:
    """Map entries to their names in the library's own implementation, where the names differ.

    Dropout before the last layer changes that layer's name: ``fc.weight`` becomes ``fc.1.weight``.

    Args:
        module: as :func:`build` or :func:`rebuild` returns it.
        architecture: its description.
    """
    if "cut" in architecture["head"]:
        return {}  # no library has such a network
    found: dict[str, str] = {}
    for path in _head_paths(architecture):
        head = module.get_submodule(path)
        if isinstance(head, nn.Sequential) and len(head) == 2 and isinstance(head[0], nn.Dropout):
            found |= {f"{path}.1.{name}": f"{path}.{name}" for name in head[1].state_dict()}
    return found


def describe(name: str, image_size: int | None = None, *, warn: bool = True) -> LayerTable:
    """Return the layers of a backbone as :func:`build` numbers them, with their output shapes.

    Args:
        image_size: of the images, in pixels; None: the default weights' own.
        warn: log a warning if the layers are not cuts of the forward graph.

    Raises:
        UserError: an unknown backbone, or images of a size that it cannot take.
    """
    backbone = find_backbone(name)
    own = backbone.preprocessing().image_size
    size = own if image_size is None else image_size
    network = backbone.blueprint(image_size=size)
    table = backbone.find_layers(network, warn=warn)
    try:
        return backbone.with_output_shapes(network, table, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"{name} cannot take images of {size} px ({first_line(error)}). Its weights were trained at "
            f"{own} px."
        ) from None


def _head_paths(architecture: dict[str, Any]) -> Sequence[str]:
    head = architecture["head"]
    if "cut" in head:
        return (head["path"],)
    return find_backbone(architecture["backbone"]).head_paths(head["path"])


def _swap_heads(
    module: nn.Module, architecture: dict[str, Any], num_classes: int, init: str, design: HeadDesign
) -> None:
    dropout = architecture["head"]["dropout"]
    for path in _head_paths(architecture):
        swap_head(module, path, num_classes, dropout=dropout, init=init, design=design)
    if architecture["auxiliary"]:
        for path in find_backbone(architecture["backbone"]).auxiliary_heads:
            swap_head(module, path, num_classes, dropout=0.0, init=init)


def _has_auxiliary(backbone: Backbone, image_size: int) -> bool:
    """Whether to build the auxiliary classifiers. Warns if the images are too small for them."""
    auxiliary = has_room(backbone.name, image_size)
    if backbone.auxiliary_heads and not auxiliary:
        log.warning(
            "%s: images of %d px are too small for its auxiliary classifiers, so it is built without them",
            backbone.name,
            image_size,
        )
    return auxiliary


def _reuse(
    head: nn.Module,
    reuse: str | Mapping[str, str | int],
    classes: Sequence[str],
    weights: LoadedWeights | None,
) -> dict[str, str]:
    """Copy rows of the source's head, and return each class with its source class."""
    source = weights.head if weights is not None else None
    if source is None:
        raise WeightsError("model.head.reuse: the weights include no classifier to start from")
    rows = choose_rows(reuse, classes, source)
    if not rows:
        log.warning(
            "head.reuse: no class has the name of exactly one source class. The whole head starts at random."
        )
        return {}
    copy_rows(head, {list(classes).index(name): row for name, row in rows.items()}, source)
    names = source.classes
    pairs = {name: str(row) if names is None else f"{names[row]} ({row})" for name, row in rows.items()}
    fresh = [name for name in classes if name not in rows]
    rest = f"; {len(fresh)} of {len(classes)} classes start at random" if fresh else ""
    log.info("head.reuse: %s%s", ", ".join(f"{own} from {theirs}" for own, theirs in pairs.items()), rest)
    return pairs


def _check_init(module: nn.Module, table: LayerTable, init: str) -> None:
    after = [module.get_submodule(path) for path in table.head.modules if path != table.head.name]
    if init == "zero" and any(isinstance(each, nn.ReLU) for each in after):
        raise UserError(
            "model.head.init: zero cannot train here: a ReLU follows the head, and its gradient at zero is "
            "zero. Choose xavier."
        )


@contextlib.contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's global generator by seed and purpose, and restore its state on exit."""
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(int.from_bytes(digest, "little"))
        yield
    finally:
        torch.set_rng_state(state)
