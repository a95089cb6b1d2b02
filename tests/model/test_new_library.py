"""A library registered in this test alone: its backbone is built, listed, frozen and trained like others."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from finetune.errors import RecipeError, UserError
from finetune.image.preprocessing import Preprocessing
from finetune.model.backbones import find_backbone
from finetune.model.build import Network, build, describe, rebuild
from finetune.model.freeze import Freeze, resolve_freeze
from finetune.model.libraries.protocol import SOURCE_CLASSES, Backbone, Library, PublishedWeights
from finetune.model.param_groups import GroupRules, param_groups
from finetune.recipe import catalog
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import ModelSection

RECIPE = """
data: {source: digits}
model: {backbone: "toy:small", weights: default}
train: {phases: [{epochs: 1, freeze: 1}]}
"""


class Small(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.second = nn.Conv2d(4, 5, 3)
        self.head = nn.Linear(5, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))
        return logits


class SmallBackbone(Backbone):
    name = "toy:small"

    def create(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        return Small(num_classes)

    def preprocessing(self, weights: str = "default") -> Preprocessing:
        return Preprocessing(16, 16, "shorter", "bilinear", (0.5,) * 3, (0.5,) * 3)

    def fetch_weights(self, weights: str = "default") -> PublishedWeights:
        state = Small(SOURCE_CLASSES).state_dict()
        state = {name: torch.full_like(value, 0.5) for name, value in state.items()}
        return PublishedWeights(state, "toy weights")


class ToyLibrary(Library):
    def names(self) -> Sequence[str]:
        return ("small",)

    def backbone(self, name: str) -> Backbone:
        if name != SmallBackbone.name:
            raise UserError(f"no backbone {name}")
        return SmallBackbone()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Registers the library and builds its backbone from a recipe."""
    monkeypatch.setitem(catalog.LIBRARIES, "toy", (f"{__name__}:ToyLibrary",))
    return build(parse_recipe(RECIPE, "recipe.yaml").model, 3, seed=0)


def test_it_is_built_with_its_weights(network: Network) -> None:
    assert network.weights is not None
    assert network.weights.origin == "toy weights"
    assert torch.equal(network.module.get_parameter("first.weight"), torch.full((4, 3, 3, 3), 0.5))
    assert network.module.get_parameter("head.weight").shape == (3, 5)
    rebuilt = rebuild(network.architecture, 3)
    assert rebuilt.state_dict().keys() == network.module.state_dict().keys()


def test_its_layers_are_listed(network: Network) -> None:
    assert [layer.name for layer in network.table.layers] == ["first", "second", "head"]
    assert [layer.output_shape for layer in describe("toy:small").layers] == [(4, 7, 7), (5,), (1000,)]
    assert find_backbone("toy:small").name == "toy:small"


def test_it_trains_a_step_with_a_frozen_layer(network: Network) -> None:
    freeze = Freeze(network.module, network.table, resolve_freeze("first", network.table))
    freeze.apply()
    freeze.train_mode()
    before, second = freeze.frozen_digests(), network.module.get_parameter("second.weight").clone()
    optimizer = torch.optim.SGD(param_groups(network.module, network.table, GroupRules(0.1, 10.0, 0.0)))
    loss = nn.functional.cross_entropy(network.module(torch.rand(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    optimizer.step()
    freeze.verify(before)
    assert not torch.equal(network.module.get_parameter("second.weight"), second)


def test_an_unknown_name_or_library_is_refused(network: Network) -> None:
    with pytest.raises(UserError, match="no backbone toy:large"):
        build(ModelSection(backbone="toy:large"), 3, seed=0)
    with pytest.raises(
        RecipeError, match=r"3:19: model.backbone: unknown backbone 'toi:small'\. Did you mean 'toy:small'"
    ):
        parse_recipe(RECIPE.replace("toy:", "toi:"), "recipe.yaml")
