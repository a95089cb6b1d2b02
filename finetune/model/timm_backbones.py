"""Networks of timm, by the name ``timm:NAME``: created, described, and cut into layers.

timm is an extra. Its networks go through the same code as torchvision's. Where one cannot be traced, timm's
own grouping of its parameters gives the layers: freezing and parameter groups stand on names alone then, and
what needs a cut in the forward graph (output shapes, caching, a prefix that runs by itself) is not available.
"""

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

from finetune.errors import FinetuneError, MissingExtraError, UserError, WeightsError
from finetune.model.layers import Layer, LayerTable, find_layers
from finetune.recipe.catalog import TIMM, suggest

SOURCE_CLASSES = 1000

log = logging.getLogger("finetune")


def require_timm() -> Any:
    """The module ``timm``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError:
        raise MissingExtraError("A backbone timm:NAME", "timm", "timm") from None
    return timm


def config(name: str) -> Any:
    """timm's description of ``timm:NAME``: input size, mean, classifier and so on.

    Raises:
        MissingExtraError: timm is not installed.
        UserError: it has no network of that name.
    """
    timm = require_timm()
    own = name.removeprefix(TIMM)
    if not timm.is_model(own):
        raise UserError(f"timm {timm.__version__} has no {own!r}.{suggest(own, timm.list_models())}")
    try:
        found = timm.get_pretrained_cfg(own)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from None
    if found is None:
        raise UserError(f"{name}: timm does not describe its input, so it cannot be used")
    return found


def create(name: str, num_classes: int, image_size: int | None) -> nn.Module:
    """The network with random weights, built for ``image_size`` where it is built for one size.

    Raises:
        MissingExtraError, UserError: as :func:`config`; or a size or head that it cannot have.
    """
    given = config(name)
    options: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
    if given.fixed_input_size and image_size is not None and image_size != given.input_size[-1]:
        options["img_size"] = image_size
    try:
        module: nn.Module = require_timm().create_model(name.removeprefix(TIMM), **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"{name} cannot be built ({str(error).splitlines()[0]})") from None
    return module


def pretrained(name: str, num_classes: int) -> dict[str, Any]:
    """The state of the network with timm's pretrained weights, from its cache or the hub it names.

    Raises:
        WeightsError: there are none, or they could not be fetched.
    """
    own = name.removeprefix(TIMM)
    try:
        # What is announced on stdout would be taken for data.
        with contextlib.redirect_stdout(sys.stderr):
            module = require_timm().create_model(own, pretrained=True, num_classes=num_classes)
    except Exception as error:
        # The hub's client has errors of its own, of many kinds.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise WeightsError(
            f"the weights of {name} could not be had from timm's hub ({reason}). Fetch its checkpoint "
            f"elsewhere and set model.weights to the file, or to none; or take the backbone "
            f"efficientnet_lite0, whose weights need no download."
        ) from None
    return dict(module.state_dict())


def classifiers(name: str) -> tuple[str, ...]:
    """Paths of the last layers: one, or several whose logits the network itself puts together.

    Raises:
        UserError: timm names none.
    """
    given = config(name).classifier
    paths = (given,) if isinstance(given, str) else tuple(given or ())
    if not paths:
        raise UserError(f"{name}: timm names no classifier of it, so it has no head to swap")
    return paths


def head_path(paths: Sequence[str]) -> str:
    """What holds all of the last layers; the first where nothing smaller than the network does."""
    parents = {path.rpartition(".")[0] for path in paths}
    return next(iter(parents)) if len(paths) > 1 and len(parents) == 1 and "" not in parents else paths[0]


def layers(name: str, module: nn.Module, *, tell: bool) -> LayerTable:
    """The layers: by the forward graph where it can be traced, else by timm's own groups.

    Args:
        tell: log which of the two it came to be, where it is the latter.

    Raises:
        FinetuneError: neither can be had.
    """
    paths = classifiers(name)
    try:
        return find_layers(module, head_path(paths))
    except (FinetuneError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        if not hasattr(module, "group_matcher"):
            raise FinetuneError(
                f"{name}: cannot be traced, and timm has no groups for it: {error}"
            ) from error
    if tell:
        log.warning(
            "%s cannot be traced: timm's own groups of parameters are its layers. freeze and head_lr_mult "
            "work; output shapes, and caching what a frozen prefix computes, are not available",
            name,
        )
    return _by_groups(module, paths)


def _by_groups(module: nn.Module, heads: Sequence[str]) -> LayerTable:
    from timm.models import group_parameters

    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    in_head = {name for name in sizes if any(name.startswith(f"{path}.") for path in heads)}
    grouped = group_parameters(module, module.group_matcher(coarse=False))  # type: ignore[operator]
    body: list[list[str]] = []
    for number, (_, names) in enumerate(sorted(grouped.items())):
        own = [name for name in names if name in sizes and name not in in_head]
        if own and body and number == len(grouped) - 1 and len(own) < len(names):
            body[-1].extend(own)  # the norm before the head
        elif own:
            body.append(own)
    number_of = {name: number for number, names in enumerate(body, start=1) for name in names}
    spans: dict[str, tuple[int, int]] = {}
    for name in sizes:
        number = number_of.get(name, len(body) + 1)
        path = name
        while path:
            path = path.rpartition(".")[0]
            first, last = spans.get(path, (number, number))
            spans[path] = min(first, number), max(last, number)
    names = [_common(parameters) for parameters in body]
    unique = [name if names.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(names, start=1)]
    rows = [*zip(unique, body, strict=True), (head_path(heads), [name for name in sizes if name in in_head])]
    found = []
    for number, (label, parameters) in enumerate(rows, start=1):
        modules = tuple(path for path, span in spans.items() if path and span == (number, number))
        found.append(
            Layer(number, label, tuple(parameters), modules, sum(sizes[each] for each in parameters))
        )
    if sum(layer.num_parameters for layer in found) != sum(sizes.values()) or not body:
        raise FinetuneError(f"timm's groups of {type(module).__name__} do not cover its parameters")
    return LayerTable(tuple(found[:-1]), found[-1], spans)


def _common(parameters: Sequence[str]) -> str:
    """The deepest module that holds all of them, or that holds the first."""
    split = [name.split(".")[:-1] for name in parameters]
    common = [parts[0] for parts in zip(*split, strict=False) if len(set(parts)) == 1]
    # A prefix only counts as far as it is unbroken.
    length = next(
        (i for i, parts in enumerate(zip(*split, strict=False)) if len(set(parts)) > 1), len(common)
    )
    return ".".join(split[0][:length] or split[0]) or parameters[0]
