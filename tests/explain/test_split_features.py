"""Logits and penultimate features from one pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from finetune.data.dataset import Split
from finetune.data.images import FileImages
from finetune.errors import FinetuneError
from finetune.explain.features.split_features import at_start, features_of_images
from finetune.training.trained import Trained, evaluate_trained

Make = Callable[..., tuple[Trained, Split]]


@pytest.fixture
def make(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a network as a recipe with these overrides describes it, and images for it."""

    def network(*overrides: str) -> tuple[Trained, Split]:
        if not any("backbone" in each for each in overrides):
            tiny.stand_in(monkeypatch)
        setup = tiny.setup(tiny.recipe(shapes, "{batch_size: 8, precision: fp32}", *overrides))
        module = setup.network.module.eval()
        trained = Trained(module, setup.card, tmp_path, tmp_path, "best", setup.recipe)
        return trained, setup.source.splits["test"]

    return network


@pytest.mark.parametrize(
    "head", ["{}", "{dropout: 0.3}", "{hidden: 5, dropout: 0.1}", "{type: cosine}", "{at: 3}"]
)
def test_logits_are_those_of_an_evaluation_for_every_head(make: Make, head: str) -> None:
    trained, images = make(f"model.head={head}")
    expected = evaluate_trained(trained, images, "test").collected
    before = {name: id(each) for name, each in trained.module.named_modules()}

    found = features_of_images(trained, images)

    assert np.array_equal(found.logits, expected.logits)
    assert np.array_equal(found.targets, expected.targets)
    assert found.names == [images.name(index) for index in range(len(images))]
    assert found.features.dtype == np.float32
    # The network is as it was.
    assert {name: id(each) for name, each in trained.module.named_modules()} == before


@pytest.mark.parametrize("head", ["{}", "{dropout: 0.3}", "{hidden: 5}"])
def test_features_are_the_input_of_the_last_linear_layer(make: Make, head: str) -> None:
    trained, images = make(f"model.head={head}")
    last = [each for each in trained.module.modules() if isinstance(each, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    evaluate_trained(trained, images, "test")
    handle.remove()

    found = features_of_images(trained, images, batch_size=8).features

    assert np.array_equal(found, torch.cat(seen).numpy())
    assert np.ptp(found, axis=0).any()


def test_features_before_a_convolution_are_averaged_over_places(make: Make) -> None:
    trained, images = make("model.backbone=squeezenet1_1", "data.image_size=64", "data.resize=64")
    last = trained.module.get_submodule(trained.card.architecture["head"]["path"])
    assert isinstance(last, nn.Conv2d)
    seen: list[torch.Tensor] = []
    last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    found = features_of_images(trained, images)
    assert seen[0].shape[2:] == (3, 3)
    assert np.array_equal(found.features, torch.cat(seen).mean((2, 3)).numpy())


def test_features_do_not_depend_on_the_images_around(make: Make) -> None:
    trained, images = make()
    found = features_of_images(trained, images)
    some = features_of_images(trained, images.subset([7, 2]), batch_size=2)
    assert np.allclose(some.features, found.features[[7, 2]], atol=1e-6)
    assert not np.allclose(found.features[7], found.features[2], atol=1e-6)


def test_the_start_is_the_network_before_the_first_step(make: Make) -> None:
    trained, images = make()
    start = features_of_images(trained, images).features
    with torch.no_grad():
        next(trained.module.parameters()).mul_(-1.5)
    assert np.array_equal(features_of_images(at_start(trained), images).features, start)
    assert not np.allclose(features_of_images(trained, images).features, start)


def test_an_image_with_features_that_are_no_numbers_is_named(make: Make) -> None:
    trained, images = make()
    with torch.no_grad():
        next(trained.module.parameters()).fill_(float("nan"))
    with pytest.raises(FinetuneError, match=r"disc_00\.png: its features are infinite"):
        features_of_images(trained, images)


def test_an_unreadable_image_is_left_out(make: Make, tmp_path: Path) -> None:
    trained, images = make("data.on_bad_image=skip")
    (tmp_path / "empty.png").touch()
    names = [images.name(0), str(tmp_path / "empty.png"), images.name(1)]
    found = features_of_images(trained, Split(FileImages(names), np.zeros(3, np.int64)))
    assert found.names == [names[0], names[2]]
    assert len(found) == len(found.features) == 2
