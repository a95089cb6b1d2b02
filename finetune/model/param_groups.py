"""Which learning rate and which weight decay each trainable parameter gets."""

from typing import Any

from torch import nn

from finetune.errors import FinetuneError
from finetune.model.graph import NORMS
from finetune.model.layers import LayerTable


def param_groups(
    module: nn.Module,
    table: LayerTable,
    *,
    lr: float,
    head_lr_mult: float,
    weight_decay: float,
    decay_bias_and_norm: bool,
    layer_decay: float | None = None,
    head_weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Groups for an optimizer; every parameter that takes a gradient is in exactly one.

    The head learns at ``lr * head_lr_mult``. Weight decay is for weight matrices and kernels: biases, norms,
    layer scales, class tokens, position embeddings and bias tables have none, unless ``decay_bias_and_norm``.

    Args:
        module: the network, with ``requires_grad`` as it is to be trained.
        table: its layers, which hold every one of its parameters.
        layer_decay: above 0 and up to 1. Layer n of a body of L learns at ``lr * layer_decay ** (L - n)``, so
            that the earlier, the gentler (Howard and Ruder 2018 divide by 2.6 a layer). The last layer of
            the body learns at ``lr``, and the head as it does without. None: all layers at ``lr``.
        head_weight_decay: the head's, where it has one of its own.

    Returns:
        Groups without the empty ones, from the first layer to the head: ``body/decay``, ``body/no_decay``,
        ``head/decay`` and ``head/no_decay``; under ``layer_decay`` ``body.1/decay``, ``body.1/no_decay``,
        ``body.2/decay`` and so on in place of the body's. Each has ``name``, ``params``, ``param_names``,
        ``lr`` and ``weight_decay``.

    Raises:
        FinetuneError: a parameter that takes a gradient is in no layer.
    """
    owner = {name: layer.number for layer in table.layers for name in layer.parameters}
    depth = len(table.body)
    rates = {"body": lr, "head": lr * head_lr_mult}
    if layer_decay is not None:
        rates = {f"body.{n}": lr * layer_decay ** (depth - n) for n in range(1, depth + 1)}
        rates["head"] = lr * head_lr_mult
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for part, rate in rates.items():
        own = weight_decay if part != "head" or head_weight_decay is None else head_weight_decay
        for kind, decay in (("decay", own), ("no_decay", 0.0)):
            groups[part, kind] = {
                "name": f"{part}/{kind}", "params": [], "param_names": [], "lr": rate, "weight_decay": decay,
            }  # fmt: skip
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in owner:
            raise FinetuneError(f"internal error: {name} is in no layer, so it has no learning rate")
        number = owner[name]
        body = "body" if layer_decay is None else f"body.{number}"
        part = "head" if number > depth else body
        decays = decay_bias_and_norm or _is_matrix(module, name)
        group = groups[part, "decay" if decays else "no_decay"]
        group["params"].append(parameter)
        group["param_names"].append(name)
    return [group for group in groups.values() if group["params"]]


def _is_matrix(module: nn.Module, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    parameter = module.get_parameter(name)
    in_norm = isinstance(module.get_submodule(owner), NORMS)
    return last.endswith("weight") and parameter.ndim >= 2 and not in_norm
