"""Networks cut after a layer: same values up to the cut, same names, right numbers of parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from finetune.errors import CheckpointError, RecipeError, UserError, WeightsError
from finetune.model.backbones import create
from finetune.model.build import Network, build, rebuild
from finetune.model.freeze import Freeze, resolve_freeze
from finetune.model.head import swap_head
from finetune.model.layers.find import find_layers
from finetune.model.layers.shapes import with_output_shapes
from finetune.model.param_groups import GroupRules, param_groups
from finetune.model.truncate import Cut, plan_cut, truncate, truncated_table
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import HeadSection, ModelSection, WeightsFile

SIZE = 32


def cut_off(network: nn.Module, at: int) -> tuple[nn.Module, str, Cut]:
    table = find_layers(network)
    cut = plan_cut(network, table, at, SIZE)
    short, head = truncate(network, table, cut)
    swap_head(short, head, 3, dropout=0.0, init="xavier")
    return short, head, cut


def value_at(network: nn.Module, at: int, images: torch.Tensor) -> torch.Tensor:
    """The output of the layer before ``at``, computed by torch's interpreter."""
    from torch import fx

    from finetune.model.layers.graph import trace

    name = find_layers(network).body[at - 2].cut
    found = {}

    class Look(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            found[n.name] = value
            return value

    Look(fx.GraphModule(network, trace(network))).run(images)
    return found[name or ""]


def test_every_cut_of_every_family(small: Callable[..., nn.Module], family: str) -> None:
    images = torch.rand(2, 3, SIZE, SIZE)
    depth = len(find_layers(small(family)).body)
    for at in sorted({2, (depth + 2) // 2, depth}):
        network = small(family)
        table = find_layers(network)
        before = dict(network.named_parameters())
        if family in ("swin", "densenet") and at > 2:  # dropout by function
            with pytest.raises(UserError, match="training and evaluation compute different"):
                cut_off(network, at)
            continue
        short, head, cut = cut_off(network, at)
        kept = {n: p for n, p in short.named_parameters() if not n.startswith("head.")}
        assert set(kept) == {n for layer in table.body[: at - 1] for n in layer.parameters}
        assert all(p is before[n] for n, p in kept.items())
        value = value_at(network.eval(), at, images)
        pooled = value.mean(cut.pool) if cut.pool else value
        torch.testing.assert_close(short.eval()(images), short.get_submodule(head)(pooled))
        new = truncated_table(short, table, cut, head)
        assert [layer.name for layer in new.layers] == [layer.name for layer in table.body[: at - 1]] + [
            "head"
        ]
        assert sorted(n for layer in new.layers for n in layer.parameters) == sorted(
            n for n, _ in short.named_parameters()
        )
        assert sum(layer.num_parameters for layer in new.layers) == sum(p.numel() for p in short.parameters())
        with_output_shapes(short, new, SIZE)


def test_it_trains_and_freezes(small: Callable[..., nn.Module]) -> None:
    network = small("efficientnet")
    table = find_layers(network)
    short, head, cut = cut_off(network, len(table.body))
    table = truncated_table(short, table, cut, head)
    freeze = Freeze(short, table, 2)
    freeze.apply()
    freeze.train_mode()
    norms = {path: m for path, m in short.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {m.training for m in norms.values()} == {True, False}
    rules = GroupRules(lr=0.01, head_lr_mult=2, weight_decay=0.1, layer_decay=0.5)
    groups = param_groups(short, table, rules)
    before = {name: tensor.clone() for name, tensor in short.state_dict().items()}
    held = freeze.frozen_digests()
    optimizer = torch.optim.AdamW(groups)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(short(torch.rand(4, 3, SIZE, SIZE)), torch.arange(4) % 3).backward()
        optimizer.step()
    freeze.verify(held)
    moved = {name for name, tensor in short.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {n for layer in table.layers[2:] for n in layer.parameters} <= moved
    assert not moved & {n for layer in table.body[:2] for n in layer.parameters}


def built(backbone: str, **head: Any) -> Network:
    section = ModelSection(backbone=backbone, weights="none", head=HeadSection(**head))
    return build(section, 4, seed=0, image_size=64)


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("resnet18", {"at": "layer4.0"}),
        ("resnet18", {"at": 3, "hidden": 8, "dropout": 0.1}),
        ("squeezenet1_1", {"at": 7, "type": "cosine", "learn_scale": False}),
        ("squeezenet1_1", {"hidden": 8}),
        ("mobilenet_v3_small", {"type": "cosine", "hidden": 8}),
        ("shufflenet_v2_x0_5", {"type": "cosine"}),
    ],
)
def test_a_rebuilt_network_computes_the_same(backbone: str, head: dict[str, Any]) -> None:
    network = built(backbone, **head)
    again = rebuild(network.architecture, 4)
    again.load_state_dict(network.module.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.module.eval()(images))
    held = [name for layer in network.table.layers for name in layer.parameters]
    assert sorted(held) == sorted(name for name, _ in network.module.named_parameters())
    for k in range(len(network.table.body) + 1):
        assert resolve_freeze(k, network.table) == k
        Freeze(network.module, network.table, k)


def test_vgg_without_its_hidden_layers() -> None:
    with torch.device("meta"):
        network = models.vgg11()
    table = find_layers(network)
    cut = plan_cut(network, table, "classifier.0", 224)
    assert cut == Cut("classifier.0", (), 25088)
    short, _ = truncate(network, table, cut)
    assert not [name for name, _ in short.named_parameters() if name.startswith("classifier")]


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (10, "10 is the head"),
        ("fc", "fc is the head"),
        (11, "11 is not one of the 9 layers"),
        ("layer4.2", "Did you mean 'layer4.1'"),
        ("conv1", "is the first layer"),
    ],
)
def test_cuts_that_are_refused(at: int | str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        built("resnet18", at=at)


def test_dropout_by_function_is_refused(small: Callable[..., nn.Module]) -> None:
    network = small("densenet")
    table = find_layers(network)
    with pytest.raises(UserError, match="training and evaluation compute different"):
        truncate(network, table, plan_cut(network, table, len(table.body), SIZE))


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": 0},
        {"hidden": "8"},
        {"cosine": {}},
        {"cosine": {"learn_scale": 1}},
        {"cut": {"at": "layer4.0", "pool": [2, 3]}},
        {"cut": {"at": 4, "pool": [2, 3], "in_features": 8}},
        {"cut": {"at": "nowhere", "pool": [2, 3], "in_features": 8}},
    ],
)
def test_a_strange_architecture_is_refused(changed: dict[str, Any]) -> None:
    architecture = built("resnet18").architecture
    architecture["head"] |= changed
    with pytest.raises(CheckpointError):
        rebuild(architecture, 4)


@pytest.mark.parametrize(
    "head", ["{reuse: auto, at: 5}", "{reuse: auto, hidden: 8}", "{reuse: auto, type: cosine}"]
)
def test_a_row_of_the_source_fits_a_head_like_the_sources(head: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.head\.reuse: needs a head like that of the source"):
        parse_recipe(
            f"data: {{source: digits}}\nmodel: {{backbone: resnet18, head: {head}}}\n", "recipe.yaml"
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("head: {type: cosine, init: zero}", r"model\.head\.init: type: cosine"),
        (
            "batchnorm: frozen, batchnorm_recalibrate: 64",
            r"model\.batchnorm_recalibrate: has no effect under batchnorm: frozen",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(model: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(f"data: {{source: digits}}\nmodel: {{backbone: resnet18, {model}}}\n", "recipe.yaml")


def test_weights_need_only_the_layers_before_the_cut(tmp_path: Path) -> None:
    """A file with the first layers only is complete up to the cut."""
    first = {
        name: value
        for name, value in create("squeezenet1_1").state_dict().items()
        if int(name.split(".")[1]) < 9 and name.startswith("features")
    }
    torch.save(
        {name.replace("features.", "base."): value for name, value in first.items()}, tmp_path / "f.pth"
    )
    weights = WeightsFile(path=str(tmp_path / "f.pth"), rename={"base.": "features."})
    section = ModelSection(backbone="squeezenet1_1", weights=weights)
    with pytest.raises(WeightsError, match="does not fit"):
        build(section, 3, seed=0)
    cut = section.model_copy(update={"head": HeadSection(at="features.9.squeeze")})
    network = build(cut, 3, seed=0)
    assert network.weights is not None
    assert network.weights.report.share == 1.0
    assert not network.weights.report.kept
    assert all(torch.equal(network.module.get_parameter(name), value) for name, value in first.items())
