"""Frozen layers stay bit-identical in training, and other layers change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from finetune.errors import FinetuneError, FreezeBrokenError, FreezeError
from finetune.model.backbones import blueprint
from finetune.model.freeze import Freeze, resolve_freeze, untrained_layers
from finetune.model.layers.find import find_layers
from finetune.model.layers.table import LayerTable
from finetune.model.param_groups import GroupRules, param_groups

Small = Callable[..., nn.Module]
BATCHNORM = nn.modules.batchnorm._BatchNorm
RANDOM = (nn.Dropout, StochasticDepth)


@pytest.fixture(scope="module")
def resnet18() -> LayerTable:
    return find_layers(blueprint("resnet18"))


def groups(network: nn.Module, table: LayerTable, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    rules = GroupRules(lr=0.05, head_lr_mult=2.0, weight_decay=weight_decay, decay_bias_and_norm=True)
    return param_groups(network, table, rules)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def train(network: nn.Module, optimizer: torch.optim.Optimizer, freeze: Freeze, steps: int = 3) -> set[str]:
    """Train for some steps, and return the names of the parameters with a gradient."""
    generator = torch.Generator().manual_seed(1)
    reached = set()
    for _ in range(steps):
        freeze.train_mode()
        images = torch.randn(4, 3, 32, 32, generator=generator)
        targets = torch.randint(0, 5, (4,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), targets).backward()
        reached |= {name for name, p in network.named_parameters() if p.grad is not None}
        optimizer.step()
    return reached


def without_chance(network: nn.Module) -> None:
    """Switch stochastic depth off, so that every block gets a gradient."""
    for each in network.modules():
        if isinstance(each, StochasticDepth):
            each.p = 0.0


@pytest.mark.parametrize("where", ["none", "middle", "backbone"])
def test_training_does_not_change_frozen_layers(small: Small, family: str, where: str) -> None:
    network = small(family)
    without_chance(network)
    table = find_layers(network)
    k = {"none": 0, "middle": len(table.body) // 2, "backbone": len(table.body)}[where]
    freeze = Freeze(network, table, k)
    freeze.apply()
    optimizer = torch.optim.AdamW(groups(network, table))
    before, digests = state(network), freeze.frozen_digests()
    reached = train(network, optimizer, freeze)
    freeze.verify(digests)

    held = {name for layer in table.body[:k] for name in layer.parameters}
    free = {name for layer in table.layers[k:] for name in layer.parameters}
    after = state(network)
    assert reached == free
    assert {name for name in free if torch.equal(before[name], after[name])} == set()
    assert {name for name in held if not torch.equal(before[name], after[name])} == set()
    assert set(freeze.frozen_names) == held
    named = dict(network.named_parameters())
    assert set(optimizer.state) == {named[name] for name in free}
    assert all(named[name].grad is None for name in held)

    for path, each in network.named_modules():
        if isinstance(each, BATCHNORM):
            rests = f"{path}.weight" in held
            same = torch.equal(before[f"{path}.running_mean"], after[f"{path}.running_mean"])
            counted = before[f"{path}.num_batches_tracked"] != after[f"{path}.num_batches_tracked"]
            assert (rests, same, bool(counted)) in {(True, True, False), (False, False, True)}


@pytest.mark.parametrize("make", ["sgd", "adamw"])
def test_weight_decay_and_momentum_do_not_change_frozen_layers(small: Small, make: str) -> None:
    network = small("resnet")
    table = find_layers(network)
    everything = Freeze(network, table, 0)
    everything.apply()
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(groups(network, table, 0.1), momentum=0.9)
        if make == "sgd"
        else torch.optim.AdamW(groups(network, table, 0.1))
    )
    train(network, optimizer, everything)
    freeze = Freeze(network, table, 3)
    freeze.apply()
    assert all(p.grad is None for n, p in network.named_parameters() if n in freeze.frozen_names)
    digests = freeze.frozen_digests()
    # Even an optimizer that still knows the frozen parameters leaves them, for want of a gradient.
    train(network, optimizer, freeze)
    freeze.verify(digests)


def test_frozen_layers_run_in_eval_mode(small: Small, family: str) -> None:
    """The frozen part's output is deterministic, unlike that of a part that trains."""
    network = small(family)
    for each in network.modules():
        if isinstance(each, StochasticDepth):
            each.p = 0.5
    table = find_layers(network)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def random(k: int) -> bool:
        Freeze(network, table, k).train_mode()
        with torch.no_grad():
            return any(not torch.equal(network(images), network(images)) for _ in range(3))

    assert not random(len(table.body))
    has_chance = family not in {"resnet"}
    assert random(0) is has_chance
    network.train()
    assert all(each.training for each in network.modules())


def test_modules_that_work_in_frozen_layers_only_stay_in_eval_mode(small: Small) -> None:
    network = small("vit")
    table = find_layers(network)
    Freeze(network, table, 2).train_mode()
    resting = {path for path, each in network.named_modules() if not each.training}
    assert {"conv_proj", "encoder.dropout", "encoder.layers.encoder_layer_0"} <= resting
    # A part of attention that is never called itself rests with it.
    assert "encoder.layers.encoder_layer_0.self_attention.out_proj" in resting
    assert not any(path.startswith("encoder.layers.encoder_layer_1") for path in resting)
    assert not {"", "encoder", "encoder.layers", "heads"} & resting


def test_functional_dropout_is_off_too(small: Small) -> None:
    network = small("densenet")
    table = find_layers(network)
    k = next(layer.number for layer in table.body if layer.name == "features.denseblock1")
    Freeze(network, table, k).train_mode()
    modes = {path: each.training for path, each in network.named_modules()}
    assert not modes["features.denseblock1.denselayer1"]
    assert not modes["features.transition1.norm"]
    assert modes["features.transition1.conv"]
    assert modes["features.denseblock2.denselayer1"]


def test_the_dropout_of_a_new_head_is_not_frozen() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)))
    table = find_layers(network, "1")
    Freeze(network, table, 1).train_mode()
    assert not network[0].training
    assert network.get_submodule("1.0").training


def test_frozen_batchnorm_keeps_its_statistics(small: Small) -> None:
    """Statistics stay in every layer, while weights and biases train."""
    network = small("resnet")
    table = find_layers(network)
    freeze = Freeze(network, table, 2, "frozen")
    freeze.apply()
    before, digests = state(network), freeze.frozen_digests()
    assert {"layer4.0.bn1.running_mean", "layer4.0.bn1.num_batches_tracked"} <= digests.keys()
    train(network, torch.optim.SGD(groups(network, table)), freeze)
    freeze.verify(digests)
    after = state(network)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "layer4.0.bn1.weight" in moved
    assert not any("running" in name or "num_batches" in name for name in moved)


def test_a_broken_freeze_is_found(small: Small) -> None:
    network = small("resnet")
    freeze = Freeze(network, find_layers(network), 2)
    digests = freeze.frozen_digests()
    network.train()  # the mistake of other tools: BatchNorm learns on
    network(torch.randn(2, 3, 32, 32))
    with pytest.raises(FreezeBrokenError, match=r"bn1\.running_mean"):
        freeze.verify(digests)
    fresh = freeze.frozen_digests()
    with torch.no_grad():
        network.get_parameter("conv1.weight")[0, 0, 0, 0] += 1e-7
    with pytest.raises(FreezeBrokenError, match=r"1 of \d+ .* conv1\.weight"):
        freeze.verify(fresh)
    with pytest.raises(FreezeBrokenError):
        freeze.verify({})


def test_a_smaller_freeze_unfreezes_layers(small: Small) -> None:
    network = small("resnet")
    table = find_layers(network)
    Freeze(network, table, len(table.body)).apply()
    Freeze(network, table, 1).apply()
    assert {n for n, p in network.named_parameters() if not p.requires_grad} == set(table.body[0].parameters)


def test_dropout_shared_across_the_cut_is_refused() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.b(self.drop(self.a(x)))))

    network = Shared()
    table = find_layers(network)
    assert table.spans["drop"] == (1, 2)
    with pytest.raises(FinetuneError, match="drop works in layers 1 to 2"):
        Freeze(network, table, 1)
    Freeze(network, table, 2)


def test_freeze_resolves_to_a_number_of_layers(resnet18: LayerTable) -> None:
    expected: dict[int | str, int] = {
        "none": 0,
        "backbone": 9,
        0: 0,
        4: 4,
        9: 9,
        "conv1": 1,
        "layer1.0": 2,
        "layer4.1": 9,
    }
    assert {freeze: resolve_freeze(freeze, resnet18) for freeze in expected} == expected


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (10, "too large: the body has 9 layers"),
        (-1, "is not a number of layers"),
        (True, "is not a number of layers"),
        ("fc", "is the head"),
        ("layer4_1", r"Did you mean 'layer4\.1'"),
        ("layer2", r"It contains layer2\.0, layer2\.1\. Name the last layer to freeze, such as 'layer2\.1'"),
        ("nothing", r"The layers are conv1, layer1\.0, layer1\.1, layer2\.0, \.\.\. layer4\.1"),
        ("", "is not a layer"),
    ],
)
def test_an_impossible_freeze_is_refused(resnet18: LayerTable, freeze: int | str, message: str) -> None:
    with pytest.raises(FreezeError, match=message):
        resolve_freeze(freeze, resnet18)


class Reuses(nn.Module):
    """Two layers share a dropout, and a buffer is computed when it is first needed."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        self.drop = nn.Dropout(p)
        self.one.register_buffer("places", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.one.places = torch.arange(3.0)
        return self.fc(self.drop(self.two(self.drop(self.one(x)))).mean((2, 3)))


def test_buffers_outside_checkpoints_are_not_frozen() -> None:
    network = Reuses(0.0)
    freeze = Freeze(network, find_layers(network), 1)
    freeze.apply()
    before = freeze.frozen_digests()
    assert set(before) == {"one.weight", "one.bias"}
    freeze.train_mode()
    network(torch.rand(1, 3, 8, 8))
    freeze.verify(before)


def test_a_dropout_on_both_sides() -> None:
    network = Reuses(0.5)
    with pytest.raises(FinetuneError, match="drop works in layers 1 to 2"):
        Freeze(network, find_layers(network), 1)


def test_layers_without_loaded_weights(resnet18: LayerTable) -> None:
    kept = ["layer1.0.conv1.weight", "layer2.0.bn1.running_mean", "layer4.1.conv2.weight"]
    assert untrained_layers(resnet18, 5, kept) == ["layer1.0", "layer2.0"]
    assert untrained_layers(resnet18, 1, kept) == []
    assert untrained_layers(resnet18, 2, None) == ["conv1", "layer1.0"]
