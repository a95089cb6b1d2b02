"""Groups parameters by learning rate and weight decay."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from finetune.errors import FinetuneError
from finetune.model.layers.graph import NORMS
from finetune.model.layers.table import LayerTable


@dataclass(frozen=True)
class GroupRules:
    """How the learning rate and the weight decay vary over a network.

    Attributes:
        lr: learning rate of the body.
        head_lr_mult: the head trains at ``lr * head_lr_mult``.
        weight_decay: of weight matrices and kernels. Biases, norms, layer scales, class tokens, position
            embeddings and bias tables get none, unless ``decay_bias_and_norm``.
        layer_decay: above 0 and up to 1. Layer n of a body of L layers trains at ``lr * layer_decay ** (L -
            n)``: lower rates for earlier layers (Howard and Ruder 2018 divide by 2.6 per layer). It does not
            change the head's rate. None: all layers train at ``lr``.
        head_weight_decay: replaces ``weight_decay`` in the head. None: the same.
    """

    lr: float
    head_lr_mult: float
    weight_decay: float
    decay_bias_and_norm: bool = False
    layer_decay: float | None = None
    head_weight_decay: float | None = None


def param_groups(module: nn.Module, table: LayerTable, rules: GroupRules) -> list[dict[str, Any]]:
    """Group the trainable parameters for an optimizer: each one in exactly one group.

    Args:
        module: the network; parameters with ``requires_grad`` are grouped.

    Returns:
        The groups that are not empty, from the first layer to the head: ``body/decay``, ``body/no_decay``,
        ``head/decay`` and ``head/no_decay``. With ``layer_decay``, ``body.1/decay``, ``body.1/no_decay``,
        ``body.2/decay`` and so on replace the body's. Each group has ``name``, ``params``, ``param_names``,
        ``lr`` and ``weight_decay``.

    Raises:
        FinetuneError: a trainable parameter belongs to no layer.
    """
    owner = {name: layer.number for layer in table.layers for name in layer.parameters}
    depth = len(table.body)
    rates = {"body": rules.lr}
    if rules.layer_decay is not None:
        rates = {f"body.{n}": rules.lr * rules.layer_decay ** (depth - n) for n in range(1, depth + 1)}
    rates["head"] = rules.lr * rules.head_lr_mult
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for part, rate in rates.items():
        own = rules.weight_decay
        if part == "head" and rules.head_weight_decay is not None:
            own = rules.head_weight_decay
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
        body = "body" if rules.layer_decay is None else f"body.{number}"
        part = "head" if number > depth else body
        decays = rules.decay_bias_and_norm or _is_matrix(module, name)
        group = groups[part, "decay" if decays else "no_decay"]
        group["params"].append(parameter)
        group["param_names"].append(name)
    return [group for group in groups.values() if group["params"]]


def _is_matrix(module: nn.Module, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    parameter = module.get_parameter(name)
    in_norm = isinstance(module.get_submodule(owner), NORMS)
    return last.endswith("weight") and parameter.ndim >= 2 and not in_norm
