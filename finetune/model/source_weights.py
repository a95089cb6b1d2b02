"""Loads a recipe's ``model.weights``: published weights, a checkpoint file, or a run directory."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from torch import nn

from finetune.errors import WeightsError
from finetune.image.preprocessing import Preprocessing
from finetune.model.backbones import find_backbone
from finetune.model.layers.table import LayerTable
from finetune.model.libraries.protocol import Backbone
from finetune.model.reuse import SourceHead
from finetune.model.run_weights import find_run, read_run, read_run_card
from finetune.model.weights.adapt import Adapt
from finetune.model.weights.files import SUFFIXES, read_file
from finetune.model.weights.load_report import LoadReport
from finetune.model.weights.matching import MatchRules, load_matching
from finetune.recipe.catalog import suggest
from finetune.recipe.schema import WeightsFile

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class LoadedWeights:
    """The result of :func:`load_source_weights`.

    Attributes:
        origin: describes the weights in reports.
        report: what was loaded and what was not.
        head: the source's classifier, if there is one.
    """

    origin: str
    report: LoadReport
    head: SourceHead | None

    def log(self) -> None:
        """Log one line, followed by a table if entries were kept or not used."""
        lines = [f"weights: {self.origin}: {self.report.summary()}"]
        if self.report.kept or self.report.unused:
            lines += [f"  {line}" for line in self.report.lines()]
        log.log(logging.WARNING if self.report.partial else logging.INFO, "%s", "\n".join(lines))


@dataclass(frozen=True)
class _Source:
    """Where a recipe's weights come from. ``path``: a file, or the model file of a run's checkpoint."""

    kind: Literal["published", "file", "run"]
    path: Path = Path()


def input_spec(backbone_name: str, weights: str | WeightsFile) -> Preprocessing:
    """Return the preprocessing that weights expect. A file, and ``none``, have that of the default weights.

    Raises:
        UserError: an unknown backbone.
        WeightsError: unknown weights, or a run of another backbone.
    """
    backbone = find_backbone(backbone_name)
    if weights == "none":
        return backbone.preprocessing()
    source = _find_source(backbone, weights)
    if source.kind == "run":
        return read_run_card(source.path, backbone_name).preprocessing
    return backbone.preprocessing(str(weights) if source.kind == "published" else "default")


def load_source_weights(
    module: nn.Module,
    backbone_name: str,
    weights: str | WeightsFile,
    table: LayerTable | None = None,
    adapt: Adapt | None = None,
) -> LoadedWeights:
    """Load a recipe's ``weights``, other than ``none``, into a network that still has its source's head.

    The head's entries of a file or run are not loaded.

    Args:
        module: as :meth:`Backbone.create` returns it, with 1000 classes.
        weights: the name of published weights, a checkpoint file, or a run directory.
        table: the network's layers, if they are known already.
        adapt: adapts entries to a network with other channels or another image size.

    Raises:
        WeightsError: the weights cannot be fetched, read, or matched with the network.
    """
    backbone = find_backbone(backbone_name)
    source = _find_source(backbone, weights)
    classes = None
    if source.kind == "published":
        found = backbone.fetch_weights(str(weights))
        content, classes, origin = found.entries, found.classes, found.origin
        file, rules = found.file or origin, MatchRules(1.0, with_head=found.has_head, adapt=adapt)
    else:
        if source.kind == "run":
            card, content = read_run(source.path, backbone_name)
            classes = card.classes
        else:
            content = read_file(source.path)
        origin = file = str(source.path)
        given = weights if isinstance(weights, WeightsFile) else WeightsFile(path=weights)
        rules = MatchRules(given.min_share, rename=given.rename, adapt=adapt)
    report = load_matching(module, table or backbone.find_layers(module), content, file, rules)
    return LoadedWeights(origin, report, _source_head(report, classes))


def _source_head(report: LoadReport, classes: tuple[str, ...] | None) -> SourceHead | None:
    """The last linear layer or convolution in the file's head, with class names if their number agrees."""
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


def _find_source(backbone: Backbone, weights: str | WeightsFile) -> _Source:
    if isinstance(weights, WeightsFile):
        return _find_path(weights.path) or _missing(weights.path, "model.weights.path")
    names = backbone.weights_names
    if weights == "default" or weights in names:
        return _Source("published")
    if (source := _find_path(weights)) is not None:
        return source
    path = Path(weights)
    if not names or path.suffix in SUFFIXES or len(path.parts) > 1:
        _missing(weights, "model.weights")
    raise WeightsError(
        f"model.weights: {backbone.name} has no {weights!r}.{suggest(weights, [*names, 'default', 'none'])} "
        f"It has: default, none, {', '.join(names)}. Or give a checkpoint file or a run directory."
    )


def _find_path(name: str) -> _Source | None:
    path = Path(name).expanduser()
    with contextlib.suppress(OSError):  # the name may be too long for the file system
        if path.is_dir():
            return _Source("run", find_run(path))
        if path.exists():
            return _Source("file", path)
    return None


def _missing(name: str, key: str) -> NoReturn:
    raise WeightsError(f"{key}: there is no file or run directory {name!r}")
