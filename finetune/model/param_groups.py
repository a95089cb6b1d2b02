"""Which learning rate and which weight decay each trainable parameter gets."""

from typing import Any

from torch import nn

from finetune.model.backbones import AUXILIARY_HEADS
from finetune.model.graph import NORMS


def param_groups(
    module: nn.Module,
    head_path: str,
    *,
    lr: float,
    head_lr_mult: float,
    weight_decay: float,
    decay_bias_and_norm: bool,
) -> list[dict[str, Any]]:
    """Groups for an optimizer; every parameter that takes a gradient is in exactly one.

    The head learns at ``lr * head_lr_mult``. Weight decay is for weight matrices and kernels: biases, norms,
    layer scales, class tokens, position embeddings and bias tables have none, unless ``decay_bias_and_norm``.

    Args:
        module: the network, with ``requires_grad`` as it is to be trained.
        head_path: path of the head; what is below it belongs to it, and so do auxiliary classifiers.

    Returns:
        Up to four groups, ``body/decay``, ``body/no_decay``, ``head/decay`` and ``head/no_decay``, without
        the empty ones; each with ``name``, ``params``, ``param_names``, ``lr`` and ``weight_decay``.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for part, rate in (("body", lr), ("head", lr * head_lr_mult)):
        for kind, decay in (("decay", weight_decay), ("no_decay", 0.0)):
            groups[part, kind] = {
                "name": f"{part}/{kind}", "params": [], "param_names": [], "lr": rate, "weight_decay": decay,
            }  # fmt: skip
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        heads = (head_path, *AUXILIARY_HEADS)
        part = "head" if any(name == head or name.startswith(f"{head}.") for head in heads) else "body"
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
