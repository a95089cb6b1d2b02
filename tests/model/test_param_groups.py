"""Parameter groups: each parameter in one group, with its learning rate and weight decay."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from finetune.errors import FinetuneError
from finetune.model.backbones import blueprint
from finetune.model.freeze import Freeze
from finetune.model.layers.find import find_layers
from finetune.model.layers.table import LayerTable
from finetune.model.param_groups import GroupRules, param_groups
from finetune.recipe.catalog import backbones

NAMES = ["body/decay", "body/no_decay", "head/decay", "head/no_decay"]


def groups(network: nn.Module, table: LayerTable | None = None, **changed: Any) -> dict[str, dict[str, Any]]:
    rules = GroupRules(**({"lr": 0.1, "head_lr_mult": 10.0, "weight_decay": 0.01} | changed))
    return {group["name"]: group for group in param_groups(network, table or find_layers(network), rules)}


@pytest.mark.parametrize("k", [0, 5, 9])
def test_each_trainable_parameter_is_in_exactly_one_group(k: int) -> None:
    network = blueprint("resnet18")
    table = find_layers(network)
    Freeze(network, table, k).apply()
    found = groups(network, table)
    held = Counter(name for group in found.values() for name in group["param_names"])
    assert held == Counter(name for layer in table.layers[k:] for name in layer.parameters)
    assert list(found) == (NAMES if k < 9 else NAMES[2:])
    for group in found.values():
        assert [id(p) for p in group["params"]] == [
            id(network.get_parameter(n)) for n in group["param_names"]
        ]


def test_rates_and_decay() -> None:
    found = groups(blueprint("resnet18"), lr=0.2, head_lr_mult=5.0, weight_decay=0.3)
    settings = {name: (group["lr"], group["weight_decay"]) for name, group in found.items()}
    assert settings == {
        "body/decay": (0.2, 0.3),
        "body/no_decay": (0.2, 0.0),
        "head/decay": (1.0, 0.3),
        "head/no_decay": (1.0, 0.0),
    }


def test_decay_on_everything() -> None:
    found = groups(blueprint("resnet18"), decay_bias_and_norm=True)
    assert list(found) == ["body/decay", "head/decay"]


@pytest.mark.parametrize(
    ("name", "spared", "decayed"),
    [
        (
            "vit_b_16",
            {"class_token", "encoder.pos_embedding", "conv_proj.bias", "encoder.ln.weight"},
            {"conv_proj.weight", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"},
        ),
        (
            "swin_t",
            {"features.1.0.attn.relative_position_bias_table", "features.0.2.weight"},
            {"features.1.0.attn.qkv.weight"},
        ),
        ("swin_v2_t", {"features.1.0.attn.logit_scale"}, {"features.1.0.attn.cpb_mlp.0.weight"}),
        ("convnext_tiny", {"features.1.0.layer_scale"}, {"features.1.0.block.0.weight"}),
        ("densenet121", {"features.norm5.weight"}, {"features.transition1.conv.weight"}),
    ],
)
def test_decay_is_for_matrices_and_kernels(name: str, spared: set[str], decayed: set[str]) -> None:
    found = groups(blueprint(name))
    assert spared <= set(found["body/no_decay"]["param_names"])
    assert decayed <= set(found["body/decay"]["param_names"])


def test_a_norm_over_two_axes_has_no_decay() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm((4, 4)), nn.Flatten(), nn.Linear(16, 2))
    assert groups(network)["body/no_decay"]["param_names"] == ["0.bias", "1.weight", "1.bias"]


def test_a_parameter_without_a_layer_has_no_rate() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    table = find_layers(network)
    network.append(nn.Linear(2, 2))
    with pytest.raises(FinetuneError, match=r"2\.weight is in no layer"):
        groups(network, table)


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_b_16", "densenet121", "vgg11_bn", "swin_t", "squeezenet1_1"]
)
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_layer_decay_is_its_closed_form(name: str, share: float) -> None:
    network = blueprint(name)
    table = find_layers(network)
    depth = len(table.body)
    k = round(share * depth)
    Freeze(network, table, k).apply()
    found = groups(network, table, lr=0.2, head_lr_mult=5.0, layer_decay=0.75)
    held = Counter(n for group in found.values() for n in group["param_names"])
    assert held == Counter(n for layer in table.layers[k:] for n in layer.parameters)
    rate = {n: (group["lr"], title) for title, group in found.items() for n in group["param_names"]}
    for layer in table.body[k:]:
        for n in layer.parameters:
            assert rate[n][0] == pytest.approx(0.2 * 0.75 ** (depth - layer.number))
            assert rate[n][1].split("/")[0] == f"body.{layer.number}"
    assert {rate[n][0] for n in table.head.parameters} == {1.0}
    assert {group["weight_decay"] for title, group in found.items() if title.endswith("/decay")} == {0.01}
    assert all(not group["weight_decay"] for title, group in found.items() if title.endswith("/no_decay"))


def test_layer_decay_of_one_changes_no_rate() -> None:
    network = blueprint("resnet18")
    rates = [
        {n: (g["lr"], g["weight_decay"]) for g in groups(network, layer_decay=decay).values()
         for n in g["param_names"]}
        for decay in (None, 1.0)
    ]  # fmt: skip
    assert rates[0] == rates[1]


def test_optimizers_take_the_groups(small: Callable[..., nn.Module]) -> None:
    network = small("vit")
    found = list(groups(network).values())
    for make in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = make(found)
        assert [group["name"] for group in optimizer.param_groups] == NAMES


def test_every_parameter_of_every_family_is_grouped() -> None:
    seen = set()
    for name, info in backbones().items():
        if info.family not in seen and info.parameters < 30e6:
            seen.add(info.family)
            network = blueprint(name)
            found = groups(network)
            assert sum(len(g["params"]) for g in found.values()) == len(list(network.parameters()))
    assert len(seen) > 10
