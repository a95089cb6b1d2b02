"""Networks and weights adapted to another number of channels or another image size."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from finetune.checkpoint.manifest import MANIFEST, digest
from finetune.errors import UserError
from finetune.model.backbones import blueprint, create
from finetune.model.build import Network, build, rebuild
from finetune.model.layers.find import find_layers
from finetune.model.libraries.torchvision_library import resize_positions
from finetune.model.source_weights import input_spec
from finetune.model.weights.adapt import adapter, first_convolution, repeated, set_in_channels, with_channels
from finetune.model.weights.load_report import LoadReport
from finetune.model.weights.matching import MatchRules, load_matching
from finetune.recipe.catalog import backbones
from finetune.recipe.schema import ModelSection


@pytest.mark.parametrize("name", sorted({info.family: name for name, info in backbones().items()}.values()))
def test_every_first_convolution_is_found(name: str) -> None:
    """It is the convolution that the network calls first."""
    network = blueprint(name)
    assert f"{first_convolution(network)}.weight" in find_layers(network).body[0].parameters


def test_a_network_without_first_convolution_is_refused() -> None:
    with pytest.raises(UserError, match="no first convolution of 3 channels"):
        first_convolution(nn.Sequential(nn.Conv2d(1, 2, 3)))


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 6, 8])
def test_the_response_to_grey_is_the_same(channels: int) -> None:
    weight, grey = torch.randn(5, 3, 3, 3), torch.rand(2, 1, 9, 9)
    before = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    after = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), with_channels(weight, channels))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("channels", [3, 4, 7])
def test_the_response_to_repeated_colours_is_the_same(channels: int) -> None:
    weight, image = torch.randn(5, 3, 3, 3), torch.rand(2, 3, 9, 9)
    after = nn.functional.conv2d(image[:, [c % 3 for c in range(channels)]], with_channels(weight, channels))
    torch.testing.assert_close(after, nn.functional.conv2d(image, weight))


def test_mean_and_std_follow_the_channels() -> None:
    assert repeated((0.1, 0.2, 0.6), 1) == pytest.approx((0.3,))
    assert repeated((0.1, 0.2, 0.6), 5) == (0.1, 0.2, 0.6, 0.1, 0.2)
    assert repeated((0.5,), 3) == (0.5, 0.5, 0.5)
    assert repeated((0.1, 0.2), 2) == (0.1, 0.2)


def made(channels: int, **section: Any) -> Network:
    given: dict[str, Any] = {"backbone": "efficientnet_lite0", "weights": "default", "in_channels": channels}
    return build(ModelSection(**(given | section)), 2, seed=0)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_packaged_network_answers_grey_as_before(channels: int) -> None:
    colour, other = made(3), made(channels)
    grey = torch.randn(2, 1, 64, 64)
    expected = colour.module.eval()(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(
        other.module.eval()(grey.expand(-1, channels, -1, -1)), expected, atol=1e-4, rtol=1e-4
    )
    assert other.architecture["in_channels"] == channels
    assert len(other.input_spec.mean) == len(other.input_spec.std) == channels
    assert other.weights is not None
    assert other.weights.report.share == 1.0
    assert list(other.weights.report.adapted.values()) == [f"3 channels became {channels}"]
    again = rebuild(other.architecture, 2)
    again.load_state_dict(other.module.state_dict())


def test_a_grey_run_provides_weights_for_grey_images(tmp_path: Path) -> None:
    before = made(1)
    folder = tmp_path / "checkpoints" / "best"
    folder.mkdir(parents=True)
    spec = before.input_spec
    preprocessing = {
        "image_size": 64, "resize": 64, "resize_mode": "shorter", "interpolation": "bilinear",
        "mean": list(spec.mean), "std": list(spec.std),
    }  # fmt: skip
    architecture = before.architecture
    card = {
        "format": 1, "architecture": architecture, "classes": ["a", "b"], "preprocessing": preprocessing,
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card))
    safetensors.torch.save_file(before.module.state_dict(), folder / "model.safetensors")
    digests = {path.name: digest(path) for path in folder.iterdir()}
    (folder / MANIFEST).write_text(json.dumps({"sha256": digests}))
    assert input_spec("efficientnet_lite0", str(tmp_path)).mean == spec.mean
    after = made(1, weights=str(tmp_path))
    name = f"{first_convolution(create('efficientnet_lite0'))}.weight"
    assert torch.equal(after.module.get_parameter(name), before.module.get_parameter(name))
    assert after.weights is not None
    assert not after.weights.report.adapted


def vit(size: int) -> models.VisionTransformer:
    return models.VisionTransformer(size, 8, 2, 2, 16, 32, num_classes=5)


def moved(source: nn.Module, network: nn.Module, **changed: Tensor) -> LoadReport:
    state = {**source.state_dict(), **changed}
    rules = MatchRules(0.5, adapt=adapter(None, resize_positions))
    return load_matching(network, find_layers(network), state, "f", rules)


@pytest.mark.parametrize("size", [16, 40, 64])
def test_position_embeddings_are_torchvisions(size: int) -> None:
    source, network = vit(32), vit(size)
    nn.init.normal_(source.encoder.pos_embedding)
    report = moved(source, network)
    expected = interpolate_embeddings(size, 8, dict(source.state_dict()))["encoder.pos_embedding"]
    torch.testing.assert_close(network.encoder.pos_embedding.data, expected)
    assert torch.equal(network.encoder.pos_embedding[:, 0], source.encoder.pos_embedding[:, 0])
    assert report.adapted == {
        "encoder.pos_embedding": f"interpolated from 4 x 4 places to {size // 8} x {size // 8}"
    }
    assert report.share == 1.0
    network.eval()(torch.rand(1, 3, size, size))


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 17, 12), (1, 1, 16), (17, 16)])
def test_other_shapes_are_not_position_embeddings(shape: tuple[int, ...]) -> None:
    report = moved(vit(32), vit(40), **{"encoder.pos_embedding": torch.ones(shape)})
    assert "shape" in report.kept["encoder.pos_embedding"]


def test_set_in_channels_keeps_the_type() -> None:
    network = create("efficientnet_lite0", 2)
    before = type(network.get_submodule(first_convolution(network)))
    path = set_in_channels(network, 1)
    convolution = network.get_submodule(path)
    assert type(convolution) is before
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 2)
