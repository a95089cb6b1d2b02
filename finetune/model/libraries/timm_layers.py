"""The layers of a timm network, from its forward graph or from timm's groups of parameters.

If a network cannot be traced, freezing and parameter groups use timm's groups. Whatever needs a cut in the
forward graph (``head.at``, cached features) is not available for it.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from finetune.errors import FinetuneError, UserError, first_line
from finetune.model.layers import find
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.table import LayerTable, tabulate

log = logging.getLogger("finetune")


def find_layers(name: str, module: nn.Module, head_paths: Sequence[str], *, warn: bool) -> LayerTable:
    """Number the layers by the forward graph or, if the network cannot be traced, by timm's groups.

    Args:
        name: the backbone's name, for messages.
        head_paths: its last layers.
        warn: log a warning if the layers are timm's groups.

    Raises:
        UserError: the network cannot be traced and has no groups.
    """
    try:
        return find.find_layers(module, _head_path(head_paths))
    except (FinetuneError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        if not hasattr(module, "group_matcher"):
            raise UserError(
                f"{name} cannot be used: it cannot be traced ({first_line(error)}), and timm does not group "
                f"its parameters"
            ) from None
    if warn:
        log.warning(
            "%s cannot be traced: its layers are timm's groups of parameters. freeze, layer_decay and "
            "head_lr_mult work. head.at and cached features are not available.",
            name,
        )
    return _by_groups(module, head_paths)


def with_output_shapes(module: nn.Module, table: LayerTable, image_size: int) -> LayerTable:
    """Add output shapes to layers that are timm's groups, by running the network once on its device.

    A layer of several modules, or with several output tensors, has no shape.

    Raises:
        RuntimeError, ValueError, AssertionError: the network cannot take images of that size.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def record_shape(name: str) -> RemovableHandle:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return module.get_submodule(name).register_forward_hook(record)

    single_modules = [
        layer.name
        for layer in table.body
        if all(parameter.startswith(f"{layer.name}.") for parameter in layer.parameters)
    ]
    handles = [record_shape(name) for name in single_modules]
    try:
        with preserve_modes(module), torch.no_grad():
            logits = module.eval()(torch.zeros(1, 3, image_size, image_size))
    finally:
        for handle in handles:
            handle.remove()
    body = tuple(replace(layer, output_shape=shapes.get(layer.name)) for layer in table.body)
    return replace(table, body=body, head=replace(table.head, output_shape=tuple(logits.shape[1:])))


def _by_groups(module: nn.Module, heads: Sequence[str]) -> LayerTable:
    from timm.models import group_parameters

    parameters = [name for name, _ in module.named_parameters()]
    in_head = [name for name in parameters if name.startswith(tuple(f"{path}." for path in heads))]
    grouped = group_parameters(module, module.group_matcher(coarse=False))  # type: ignore[operator]
    body: list[list[str]] = []
    for number, (_, names) in enumerate(sorted(grouped.items())):
        own = [name for name in names if name in parameters and name not in in_head]
        if own and body and number == len(grouped) - 1 and len(own) < len(names):
            body[-1].extend(own)  # the norm before the head
        elif own:
            body.append(own)
    owner = {name: number for number, names in enumerate(body, start=1) for name in names}
    if not body or owner.keys() | {*in_head} != {*parameters}:
        raise UserError(
            f"{type(module).__name__} cannot be used: timm's groups do not include all of its parameters"
        )
    owner |= dict.fromkeys(in_head, len(body) + 1)
    spans: dict[str, tuple[int, int]] = {}
    for path in parameters:
        number = owner[path]
        while path:
            path = path.rpartition(".")[0]
            first, last = spans.get(path, (number, number))
            spans[path] = min(first, number), max(last, number)
    names = [_common(group) for group in body]
    unique = [name if names.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(names, start=1)]
    return tabulate(module, [*unique, _head_path(heads)], owner, spans, [None] * (len(body) + 1))


def _common(parameters: Sequence[str]) -> str:
    """The deepest module that contains all parameters of the most frequent top-level module."""
    most, _ = Counter(name.split(".")[0] for name in parameters).most_common(1)[0]
    split = [name.split(".")[:-1] for name in parameters if name.split(".")[0] == most]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*split, strict=False))
    return ".".join(parts[0] for parts in shared) or most


def _head_path(paths: Sequence[str]) -> str:
    """The module that contains all last layers, or the first of them if only the whole network does."""
    parents = {path.rpartition(".")[0] for path in paths}
    return next(iter(parents)) if len(paths) > 1 and len(parents) == 1 and "" not in parents else paths[0]
