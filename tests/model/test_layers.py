"""The definition of a layer, on small networks with known layers and on every listed backbone."""

import operator
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.errors import FinetuneError
from finetune.model.backbones import blueprint, create
from finetune.model.head import swap_head
from finetune.model.layers.find import find_layers
from finetune.model.layers.shapes import with_output_shapes
from finetune.model.layers.table import LayerTable
from finetune.recipe.catalog import backbones

RESNET18 = [
    ("conv1", 9536, (64, 56, 56)),
    ("layer1.0", 73984, (64, 56, 56)),
    ("layer1.1", 73984, (64, 56, 56)),
    ("layer2.0", 230144, (128, 28, 28)),
    ("layer2.1", 295424, (128, 28, 28)),
    ("layer3.0", 919040, (256, 14, 14)),
    ("layer3.1", 1180672, (256, 14, 14)),
    ("layer4.0", 3673088, (512, 7, 7)),
    ("layer4.1", 4720640, (512,)),
    ("fc", 513000, (1000,)),
]
DENSENET121 = [
    ("features.conv0", 9536, (64, 56, 56)),
    ("features.denseblock1", 335552, (256, 56, 56)),
    ("features.transition1.conv", 32768, (128, 28, 28)),
    ("features.denseblock2", 920704, (512, 28, 28)),
    ("features.transition2.conv", 131072, (256, 14, 14)),
    ("features.denseblock3", 2839808, (1024, 14, 14)),
    ("features.transition3.conv", 524288, (512, 7, 7)),
    ("features.denseblock4", 2160128, (1024,)),
    ("classifier", 1025000, (1000,)),
]
VIT_B_16 = [
    ("conv_proj", 742656, (197, 768)),
    *((f"encoder.layers.encoder_layer_{i}", 7087872, (197, 768)) for i in range(11)),
    ("encoder.layers.encoder_layer_11", 7089408, (768,)),
    ("heads.head", 769000, (1000,)),
]


def rows(table: LayerTable) -> list[tuple[str, int, tuple[int, ...] | None]]:
    return [(layer.name, layer.num_parameters, layer.output_shape) for layer in table.layers]


def names(table: LayerTable) -> list[str]:
    return [layer.name for layer in table.body]


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet18", RESNET18), ("densenet121", DENSENET121), ("vit_b_16", VIT_B_16)]
)
def test_expected_table(name: str, expected: list[tuple[str, int, tuple[int, ...]]]) -> None:
    network = blueprint(name)
    assert rows(with_output_shapes(network, find_layers(network), 224)) == expected


def test_bare_parameters_belong_to_the_layer_that_uses_them_first() -> None:
    table = find_layers(blueprint("vit_b_16"))
    stem = ("class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding")
    assert table.body[0].parameters == stem
    assert {"encoder.ln.weight", "encoder.ln.bias"} <= set(table.body[-1].parameters)
    scales = [name for layer in find_layers(blueprint("convnext_tiny")).body for name in layer.parameters]
    assert sum(name.endswith("layer_scale") for name in scales) == 18


def test_hidden_classifier_layers_are_body() -> None:
    table = find_layers(blueprint("vgg11"))
    assert names(table)[-2:] == ["classifier.0", "classifier.3"]
    assert table.head.name == "classifier.6"


def test_a_convolution_may_be_the_head() -> None:
    table = find_layers(blueprint("squeezenet1_1"))
    assert table.head.name == "classifier.1"
    assert "classifier.2" in table.head.modules  # the ReLU that follows


def test_auxiliary_classifiers_belong_to_the_head() -> None:
    table = find_layers(blueprint("googlenet"))
    auxiliary = {name for name in table.head.parameters if name.startswith("aux")}
    assert auxiliary
    assert set(table.head.parameters) - auxiliary == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t", "maxvit_t"])
def test_layers_come_in_execution_order(name: str) -> None:
    """The order is that in which forward hooks see the modules."""
    network = create(name, 10).eval()
    table = find_layers(network)
    owner = {each: layer.number for layer in table.layers for each in layer.parameters}
    order: list[int] = []

    def note(path: str) -> None:
        first = next(
            (f"{path}.{n}" for n, _ in network.get_submodule(path).named_parameters(recurse=False)), ""
        )
        order.append(owner[first])

    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm):
            module.register_forward_hook(lambda *_, path=path: note(path))
    with torch.no_grad():
        network(torch.rand(1, 3, 224, 224) if name == "maxvit_t" else torch.rand(1, 3, 32, 32))
    assert order == sorted(order)
    assert set(order) == {layer.number for layer in table.layers}


def leaves_alone(network: nn.Module) -> tuple[dict[str, bool], set[str]]:
    return {path: each.training for path, each in network.named_modules()}, set(vars(network))


def test_tracing_does_not_change_the_network() -> None:
    network = blueprint("maxvit_t").train()
    network.get_submodule("blocks.1").eval()
    before = leaves_alone(network)
    find_layers(network)
    assert leaves_alone(network) == before


class Block(nn.Module):
    """A block with two residual steps in one forward, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm(x))
        return x + self.scale * self.mlp(x)


class Toy(nn.Module):
    """A stem with a bare parameter, a functional norm, a plain layer, a block, two branches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))
        self.stem = nn.Linear(3, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.plain = nn.Linear(4, 4)
        self.block = Block()
        self.left = nn.Linear(2, 4)
        self.right = nn.Linear(2, 4)
        self.free = nn.Parameter(torch.rand(4, 4))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)
        self.spare = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x + self.shift)
        x = F.layer_norm(x, (4,), self.gain)
        x = self.plain(x).relu()
        x = self.block(x)
        a, b = x.chunk(2, dim=-1)
        x = self.left(a) * self.right(b)
        x = F.linear(x, self.free)
        x = self.head(self.drop(x))
        return x.softmax(-1) if not self.training else self.spare(x)


def test_a_network_with_every_kind_of_layer() -> None:
    table = find_layers(Toy())
    assert names(table) == ["stem", "plain", "block", "left", "free"]
    assert set(table.body[0].parameters) == {"shift", "stem.weight", "stem.bias", "gain"}
    assert len(table.body[2].parameters) == 9
    assert "drop" in table.body[4].modules
    assert set(table.head.parameters) == {"head.weight", "head.bias", "spare.weight", "spare.bias"}


def test_reused_weights_belong_to_their_first_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.between = nn.Linear(3, 3), nn.Linear(3, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(self.between(self.first(x))))

    table = find_layers(Twice())
    assert names(table) == ["first", "between"]
    assert table.spans["first"] == (1, 2)


def test_a_named_head_takes_its_dropout_with_it() -> None:
    network = blueprint("efficientnet_lite0")
    path = find_layers(network).head.name
    swap_head(network, path, 3, dropout=0.5, init="default")
    by_structure, by_name = find_layers(network), find_layers(network, path)
    assert by_structure.head.name == f"{path}.1"
    assert f"{path}.0" in by_structure.body[-1].modules
    assert by_name.head.name == path
    assert f"{path}.0" in by_name.head.modules


def test_networks_without_layers_are_refused() -> None:
    class Ways(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(FinetuneError, match="cannot be traced"):
        find_layers(Ways())
    with pytest.raises(FinetuneError, match="no linear layer or convolution"):
        find_layers(nn.Sequential(nn.ReLU()))
    with pytest.raises(FinetuneError, match="no layer before its head"):
        find_layers(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))


@pytest.mark.parametrize("name", sorted(backbones()))
def test_the_layers_of_every_backbone(name: str) -> None:
    """Each parameter is in one layer, the head can be replaced, and the table has the number of layers."""
    network = blueprint(name)
    table = find_layers(network)
    held = Counter(each for layer in table.layers for each in layer.parameters)
    assert held == Counter(each for each, _ in network.named_parameters())
    assert len(table.body) == backbones()[name].depth >= 2
    assert [layer.number for layer in table.layers] == list(range(1, len(table.body) + 2))
    assert len(set(names(table))) == len(table.body)
    assert all(layer.num_parameters > 0 and layer.cut is not None for layer in table.body)
    last = operator.attrgetter(table.head.name)(network)
    assert (last.out_features if isinstance(last, nn.Linear) else last.out_channels) == 1000
    swap_head(network, table.head.name, 7, dropout=0.0, init="xavier")
    assert operator.attrgetter(table.head.name)(network).weight.shape[0] == 7
