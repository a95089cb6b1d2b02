"""Networks built from a recipe's section, and rebuilt from their description."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune.errors import CheckpointError, UserError, WeightsError
from finetune.model.backbones import blueprint, create
from finetune.model.build import Network, build, describe, rebuild
from finetune.recipe.schema import ModelSection


def section(backbone: str = "efficientnet_lite0", weights: str = "none", **options: Any) -> ModelSection:
    return ModelSection.model_validate({"backbone": backbone, "weights": weights, **options})


def made(seed: int = 0, classes: int = 3, **options: Any) -> Network:
    return build(section(**options), classes, seed=seed)


def head_of(network: Network) -> torch.Tensor:
    return network.module.get_parameter(f"{network.head_path}.weight")


def test_pretrained_weights_are_loaded() -> None:
    network = made(weights="default")
    assert network.module.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    assert network.weights is not None
    assert network.weights.report.share == 1.0
    assert network.input_spec.mean == (0.5, 0.5, 0.5)
    assert network.table.head.name == network.head_path == "classifier.1"
    assert network.table.head.num_parameters == 1280 * 3 + 3
    assert len(network.table.body) == 31


def test_the_head_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = head_of(made(weights="default"))
    torch.manual_seed(2)
    torch.rand(7)
    state = torch.get_rng_state()
    assert torch.equal(head_of(made(weights="default")), first)
    assert torch.equal(head_of(made(weights="none")), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(head_of(made(seed=1)), first)


def test_a_random_backbone_depends_on_the_seed_alone() -> None:
    def stem(seed: int) -> torch.Tensor:
        return made(seed=seed).module.get_parameter("features.0.0.weight")

    assert torch.equal(stem(4), stem(4))
    assert not torch.equal(stem(4), stem(5))


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("efficientnet_lite0", {"dropout": 0.4}),
        ("squeezenet1_1", {"dropout": 0.0}),
        ("mobilenet_v3_small", {"dropout": 0.1, "init": "zero"}),
        ("googlenet", {}),
    ],
)
def test_a_rebuilt_network_takes_the_trained_weights(backbone: str, head: dict[str, Any]) -> None:
    network = made(backbone=backbone, head=head)
    state = torch.get_rng_state()
    again = rebuild(json.loads(json.dumps(network.architecture)), 3)
    assert torch.equal(torch.get_rng_state(), state)
    again.load_state_dict(network.module.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.module.eval()(images))


def test_rebuild_for_another_image_size() -> None:
    small = build(section("vit_b_32"), 3, seed=0, image_size=64)
    assert small.architecture["image_size"] == 64
    again = rebuild(small.architecture, 3)
    assert {n: p.shape for n, p in again.named_parameters()} == {
        n: p.shape for n, p in small.module.named_parameters()
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": 3},
        {"head": {"path": "nowhere", "dropout": 0.0}},
        {"head": {"path": "features", "dropout": 0}},
        {"head": {"path": "classifier.1", "dropout": 2.0}},
        {"head": None},
        {"auxiliary": "x"},
        {"image_size": "x"},
    ],
)
def test_rebuild_refuses_what_build_did_not_write(changed: dict[str, Any]) -> None:
    good = {
        "backbone": "efficientnet_lite0",
        "auxiliary": False,
        "head": {"path": "classifier.1", "dropout": 0.0},
    }
    assert isinstance(rebuild(good, 2), nn.Module)
    with pytest.raises(CheckpointError):
        rebuild(good | changed, 2)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        made(backbone="resnet-18x")
    with pytest.raises(WeightsError, match="has no 'IMAGENET1K_V3'"):
        made(backbone="resnet50", weights="IMAGENET1K_V3")


def test_another_image_size_is_built_or_refused() -> None:
    assert build(section(), 2, seed=0, image_size=65).module.eval()(torch.rand(1, 3, 65, 65)).shape == (1, 2)
    with pytest.raises(UserError, match="alexnet cannot take images of 24 px"):
        build(section("alexnet"), 2, seed=0, image_size=24)
    with pytest.raises(UserError, match="vit_b_16 cannot take images of 100 px"):
        build(section("vit_b_16"), 2, seed=0, image_size=100)
    with pytest.raises(UserError, match="maxvit_t cannot take images of 256 px"):
        build(section("maxvit_t"), 2, seed=0, image_size=256)


def test_a_head_of_zeros_before_a_relu_cannot_train() -> None:
    with pytest.raises(UserError, match="a ReLU follows the head"):
        made(backbone="squeezenet1_1", head={"init": "zero"})


def test_loaded_weights_are_reported(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    torch.save(made(seed=9).module.state_dict(), path)
    with caplog.at_level(logging.INFO, "finetune"):
        network = made(weights=str(path))
        assert network.weights is not None
        network.weights.log()
    assert f"weights: {path}" in caplog.text
    assert "100.0 % of the body's parameters" in caplog.text
    assert not torch.equal(head_of(network), head_of(made(seed=9)))
    own = network.module.get_parameter("features.0.0.weight")
    assert torch.equal(own, made(seed=9).module.get_parameter("features.0.0.weight"))


def test_describe_numbers_what_build_builds() -> None:
    for name in ("googlenet", "efficientnet_lite0"):
        described, built = describe(name), made(backbone=name).table
        assert [layer.name for layer in described.body] == [layer.name for layer in built.body]
        assert described.head.output_shape == (1000,)


@pytest.mark.parametrize("name", ["mnasnet0_75", "vit_b_32", "densenet121"])
def test_a_plain_mapping_loads(name: str) -> None:
    """A mapping from safetensors loads: it has no format versions, unlike a state_dict."""
    network = create(name, 2, image_size=32)
    plain = {key: value + 1 for key, value in network.state_dict().items()}
    network.load_state_dict(plain)
    assert all(torch.equal(value, plain[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["regnet_x_400mf", "swin_v2_t", "mnasnet0_5", "efficientnet_lite0"])
def test_a_blueprint_is_the_network_without_values(name: str) -> None:
    plan, real = blueprint(name, 10), create(name, 10)
    assert {n: t.shape for n, t in plan.state_dict().items()} == {
        n: t.shape for n, t in real.state_dict().items()
    }
    assert {t.device.type for t in plan.state_dict().values()} == {"meta"}
    assert {t.device.type for t in real.state_dict().values()} == {"cpu"}
