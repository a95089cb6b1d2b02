"""The network to train, from the recipe's ``model`` section: backbone, weights, layers, new head."""

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
from finetune.model.auxiliary import has_room, swap_auxiliary
from finetune.model.backbones import AUXILIARY, SOURCE_CLASSES, blueprint, create, has_fixed_size
from finetune.model.head import HeadDesign, plain_names, swap_head
from finetune.model.layers.find import find_layers
from finetune.model.layers.shapes import with_output_shapes
from finetune.model.layers.table import LayerTable
from finetune.model.libraries import timm_layers, timm_library
from finetune.model.reuse import choose_rows, take_over
from finetune.model.source_weights import LoadedWeights, input_spec, load_source_weights
from finetune.model.truncate import Cut, kept_part, plan_cut, truncate, truncated_table
from finetune.model.weights.adapt import COLOURS, Adapt, adapter, repeated, set_in_channels
from finetune.model.weights.load_report import LoadReport
from finetune.recipe.catalog import TIMM
from finetune.recipe.limits import CHANNELS, IMAGE_SIZE, is_whole
from finetune.recipe.schema import ModelSection

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Network:
    """A network ready to be trained.

    Attributes:
        module: images ``(N, in_channels, S, S)`` to logits ``(N, num_classes)``.
        table: its layers, with the new head.
        head_path: where the new head is.
        input_spec: the preprocessing that its weights want.
        weights: what was loaded; None where it starts from random weights.
        architecture: what :func:`rebuild` needs, JSON-ready.
        reused: classes that start from a source class, and which.
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
        section: the recipe's.
        num_classes: of the new head.
        seed: the head's initial values depend on it alone, and so do a random backbone's.
        image_size: of the images it will see, in pixels; None: the weights' own.
        classes: their names, which ``head.reuse`` goes by; None: their numbers.

    Raises:
        UserError: an unknown backbone, images of a size that it cannot take, or a class to reuse that
            there is not.
        WeightsError: weights that cannot be had or matched.
    """
    name = section.backbone
    spec = input_spec(name, section.weights)
    channels = section.in_channels
    spec = replace(spec, mean=repeated(spec.mean, channels), std=repeated(spec.std, channels))
    size = spec.image_size if image_size is None else image_size
    if size != spec.image_size:
        describe(name, size, tell=False)  # refuses one that would fail later
    whole = section.head.at is None
    auxiliary = whole and has_room(name, size)
    if name in AUXILIARY and whole and not auxiliary:
        log.warning(
            "%s: images of %d px are too small for its auxiliary classifiers, which are left out",
            name,
            size,
        )
    with _seeded(seed, "backbone"):
        module = create(name, SOURCE_CLASSES, image_size=size, auxiliary=auxiliary)
        first = set_in_channels(module, channels) if channels != COLOURS else None
    source = _layers(name, module, tell=True)
    head = section.head
    cut = None if head.at is None else plan_cut(module, source, head.at, size, channels)
    weights = None
    if section.weights != "none":
        # What is cut off is not asked of the weights either.
        wanted = source if cut is None else kept_part(source, cut)
        weights = load_source_weights(module, name, section.weights, wanted, _adapter(name, module, first))
        if weights.report is not None:
            _tell(weights.origin, weights.report)
    design = HeadDesign(head.hidden, head.type, head.scale, head.learn_scale)
    path = source.head.name
    if cut is not None:
        module, path = truncate(module, source, cut)
    elif head.hidden is None:
        _check_init(module, source, head.init)
    with _seeded(seed, "head"):
        for each in _heads(name, path, cut):
            swap_head(module, each, num_classes, dropout=head.dropout, init=head.init, design=design)
        if auxiliary:
            swap_auxiliary(module, name, num_classes, init=head.init)
    reused: dict[str, str] = {}
    if head.reuse is not None:
        names = [str(number) for number in range(num_classes)] if classes is None else classes
        reused = _reuse(module.get_submodule(path), head.reuse, names, weights)
    architecture: dict[str, Any] = {
        "backbone": name,
        "auxiliary": auxiliary,
        "in_channels": channels,
        "head": {"path": path, "dropout": head.dropout, **design.to_dict()},
    }
    if cut is not None:
        architecture["head"]["cut"] = cut.to_dict()
    if has_fixed_size(name):
        architecture["image_size"] = size
    table = _layers(name, module, path) if cut is None else truncated_table(module, source, cut, path)
    return Network(module, table, path, spec, weights, architecture, reused)


def rebuild(architecture: dict[str, Any], num_classes: int) -> nn.Module:
    """The network that :func:`build` described, with random weights: something to load a checkpoint into.

    Leaves torch's global generator as it was.

    Raises:
        CheckpointError: a description that :func:`build` did not write.
        UserError: a backbone that this installation does not know.
    """
    try:
        name, auxiliary = architecture["backbone"], architecture["auxiliary"]
        path, dropout = architecture["head"]["path"], architecture["head"]["dropout"]
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
        head = architecture["head"]
        design = HeadDesign.from_dict(head)
        cut = Cut.from_dict(head["cut"]) if "cut" in head else None
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint's architecture cannot be understood ({error!r})") from None
    with _seeded(0, "rebuild"):
        module = create(name, SOURCE_CLASSES, image_size=size, auxiliary=auxiliary)
        if channels != COLOURS:
            set_in_channels(module, channels)
        try:
            if cut is not None:
                module, path = truncate(module, find_layers(module), cut)
            for each in _heads(name, path, cut):
                swap_head(module, each, num_classes, dropout=dropout, init="default", design=design)
            if auxiliary and name in AUXILIARY:
                swap_auxiliary(module, name, num_classes, init="default")
        except (AttributeError, FinetuneError) as error:
            raise CheckpointError(f"the checkpoint's architecture has no such head ({error})") from None
    return module


def published_names(module: nn.Module, architecture: dict[str, Any]) -> dict[str, str]:
    """Entries that the architecture's own implementation calls otherwise, and what it calls them.

    Dropout in front of the last layer changes its name in here, and nothing that has weights.

    Args:
        module: what :func:`build` or :func:`rebuild` made.
        architecture: the description of it.
    """
    head = architecture["head"]
    if "cut" in head:
        return {}  # nobody else has such a network
    found: dict[str, str] = {}
    for path in _heads(architecture["backbone"], head["path"], None):
        found |= plain_names(module, path)
    return found


def describe(name: str, image_size: int | None = None, *, tell: bool = True) -> LayerTable:
    """The layers of a backbone as :func:`build` would number them, with their output shapes.

    Computed on the meta device: no weights, no memory.

    Args:
        image_size: of the images, in pixels; None: the default weights' own.
        tell: log where the layers are no cuts of a forward graph.

    Raises:
        UserError: an unknown backbone, or images of a size that it cannot take.
    """
    own = input_spec(name, "none").image_size
    size = own if image_size is None else image_size
    # timm's constructors may compute with values, which the meta device has not.
    build_plan = create if name.startswith(TIMM) else blueprint
    network = build_plan(name, image_size=size)
    table = _layers(name, network, tell=tell)
    shaped = with_output_shapes if table.body[0].cut is not None else timm_layers.with_output_shapes
    try:
        return shaped(network, table, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"{name} cannot take images of {size} px ({first_line(error)}); its weights' own are {own} px"
        ) from None


def _tell(origin: str, report: LoadReport) -> None:
    """A line where all is well, a table where something was kept or not used."""
    lines = [f"weights: {origin}: {report.summary()}"]
    if report.kept or report.unused:
        lines += [f"  {line}" for line in report.lines()]
    log.log(logging.WARNING if report.partial else logging.INFO, "%s", "\n".join(lines))


def _adapter(name: str, module: nn.Module, first: str | None) -> Adapt:
    return adapter(module, first, timm_library.resizer(module) if name.startswith(TIMM) else None)


def _heads(name: str, path: str, cut: Cut | None) -> tuple[str, ...]:
    """Where new heads go: some of timm's networks have two, of which the logits are averaged."""
    return timm_library.classifiers(name) if name.startswith(TIMM) and cut is None else (path,)


def _layers(name: str, module: nn.Module, head_path: str | None = None, *, tell: bool = False) -> LayerTable:
    if name.startswith(TIMM):
        return timm_layers.layers(name, module, tell=tell)
    return find_layers(module, head_path)


def _reuse(
    head: nn.Module,
    reuse: str | Mapping[str, str | int],
    classes: Sequence[str],
    weights: LoadedWeights | None,
) -> dict[str, str]:
    """Start classes from the source's, and say which; returns the pairs."""
    source = weights.head if weights is not None else None
    if source is None:
        raise WeightsError("model.head.reuse: the weights come without a classifier to start from")
    rows = choose_rows(reuse, classes, source)
    if not rows:
        log.warning("head.reuse: no class has the name of exactly one source class; the head starts afresh")
        return {}
    take_over(head, {list(classes).index(name): row for name, row in rows.items()}, source)
    names = source.classes
    pairs = {name: str(row) if names is None else f"{names[row]} ({row})" for name, row in rows.items()}
    fresh = [name for name in classes if name not in rows]
    rest = f"; {len(fresh)} of {len(classes)} classes start afresh" if fresh else ""
    log.info("head.reuse: %s%s", ", ".join(f"{own} from {theirs}" for own, theirs in pairs.items()), rest)
    return pairs


def _check_init(module: nn.Module, table: LayerTable, init: str) -> None:
    after = [module.get_submodule(path) for path in table.head.modules if path != table.head.name]
    if init == "zero" and any(isinstance(each, nn.ReLU) for each in after):
        raise UserError(
            "model.head.init: zero cannot train here: a ReLU follows the head, and passes no gradient at "
            "zero. Choose xavier."
        )


@contextlib.contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Draw from a stream of this seed and purpose; the generator's state is as before afterwards."""
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(int.from_bytes(digest, "little"))
        yield
    finally:
        torch.set_rng_state(state)
