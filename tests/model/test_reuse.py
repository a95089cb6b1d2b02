"""Heads whose rows start from the source's classifier."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetune.errors import UserError, WeightsError
from finetune.model.backbones import create
from finetune.model.build import Network, build
from finetune.model.reuse import SourceHead, choose_rows, copy_rows, fold
from finetune.recipe.schema import HeadSection, ModelSection

NAMES = ("crane", "hotdog", "Egyptian cat", "crane", "T-shirt")


def source(*shape: int, names: tuple[str, ...] | None = NAMES) -> SourceHead:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 7, *shape, generator=generator) * 3 + 2
    return SourceHead(weight, torch.randn(5, generator=generator), names)


def test_names_are_folded() -> None:
    assert {fold(name) for name in ("hot dog", "Hotdog", "hot_dog", "HOT-DOG", " hot  dog ")} == {"hotdog"}


def test_auto_takes_unique_names() -> None:
    classes = ("hot dog", "egyptian_cat", "crane", "boat", "t shirt")
    assert choose_rows("auto", classes, source()) == {"hot dog": 1, "egyptian_cat": 2, "t shirt": 4}
    assert choose_rows("auto", ("boat",), source()) == {}


def test_classes_are_given_by_name_or_number() -> None:
    rows = choose_rows(
        {"Snack": "HotDog", "bird": 3, "cat": "egyptian cat"}, ("snack", "bird", "cat"), source()
    )
    assert rows == {"snack": 1, "bird": 3, "cat": 2}
    assert choose_rows({"snack": 4}, ("snack",), source(names=None)) == {"snack": 4}


@pytest.mark.parametrize(
    ("reuse", "names", "message"),
    [
        ({"snak": "hotdog"}, NAMES, "the data has no class 'snak'. Did you mean 'snack'?"),
        ({"snack": "hotdgo"}, NAMES, "the source has no class 'hotdgo'. Did you mean 'hotdog'?"),
        ({"snack": "crane"}, NAMES, "classes 0, 3 are all called 'crane'. Give the number of one"),
        ({"snack": 5}, NAMES, "the source has classes 0 to 4, not 5"),
        ({"snack": "hotdog"}, None, "names of the source's classes are not known"),
        ("auto", None, "names of the source's classes are not known"),
    ],
)
def test_what_cannot_be_reused(reuse: Any, names: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_rows(reuse, ("snack", "boat"), source(names=names))
    assert message in str(caught.value)


def heads() -> list[tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    return [
        (nn.Linear(7, 4), ()),
        (nn.Conv2d(7, 4, 1), (1, 1)),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(7, 4)), ()),
    ]


@pytest.mark.parametrize(("head", "shape"), heads(), ids=["linear", "convolution", "dropout"])
def test_copied_rows_have_the_scale_of_random_rows(head: nn.Module, shape: tuple[int, ...]) -> None:
    given = source(*shape)
    layer = next(each for each in head.modules() if isinstance(each, nn.Linear | nn.Conv2d))
    assert layer.bias is not None
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    copy_rows(head, {2: 1, 0: 4}, given)
    after = layer.weight.detach()
    assert torch.equal(after[[1, 3]], before[[1, 3]])
    assert torch.equal(layer.bias.detach()[[1, 3]], bias[[1, 3]])

    def rms(rows: Tensor) -> float:
        return float(rows.flatten(1).norm(dim=1).square().mean().sqrt())

    assert rms(after[[0, 2]]) == pytest.approx(rms(before[[1, 3]]), rel=1e-5)
    # Between two rows taken over, the source's own difference, times one factor for weight and bias.
    ratio = (after[2] - after[0]) / (given.weight[1] - given.weight[4])
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio), rtol=1e-3, atol=1e-5)
    assert given.bias is not None
    difference = (layer.bias[2] - layer.bias[0]) / (given.bias[1] - given.bias[4])
    torch.testing.assert_close(difference.detach(), ratio.flatten()[0], rtol=1e-3, atol=1e-5)


def test_with_all_rows_copied_classes_rank_as_in_the_source() -> None:
    given, head = source(), nn.Linear(7, 5)
    copy_rows(head, {i: i for i in range(5)}, given)
    features = torch.randn(50, 7)
    assert given.bias is not None
    expected = features @ given.weight.T + given.bias
    assert torch.equal(head(features).argmax(1), expected.argmax(1))


def test_beside_rows_of_zeros_the_scale_stays() -> None:
    given, head = source(), nn.Linear(7, 3)
    nn.init.zeros_(head.weight)
    copy_rows(head, {1: 2}, given)
    torch.testing.assert_close(head.weight[1].detach(), given.weight[2] - given.weight.mean(0))


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(WeightsError, match="the new head takes others"):
        copy_rows(nn.Linear(6, 3), {0: 0}, source())


def made(classes: tuple[str, ...], reuse: Any, **section: Any) -> Network:
    given = {"backbone": "efficientnet_lite0", "weights": "default", "head": {"reuse": reuse}} | section
    return build(ModelSection(**given), len(classes), seed=0, classes=classes)


def row(network: Network, number: int) -> Tensor:
    head = network.module.get_submodule(network.head_path)
    layer = [each for each in head.modules() if isinstance(each, nn.Linear | nn.Conv2d)][-1]
    return layer.weight.detach()[number].flatten()


def same_direction(a: Tensor, b: Tensor) -> bool:
    return float(nn.functional.cosine_similarity(a, b, dim=0)) > 0.9999


def test_imagenets_classes_of_the_packaged_network(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "finetune"):
        network = made(("Hot_dog", "not hotdog"), "auto")
    assert network.reused == {"Hot_dog": "hotdog (934)"}
    assert "head.reuse: Hot_dog from hotdog (934); 1 of 2 classes start at random" in caplog.text
    fresh = made(("Hot_dog", "not hotdog"), None)
    assert torch.equal(row(network, 1), row(fresh, 1))
    assert same_direction(row(network, 0), row(made(("x", "y"), {"x": 934}), 0))
    assert not same_direction(row(network, 0), row(fresh, 0))


def test_nothing_found_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert made(("left", "right"), "auto").reused == {}
    assert "head.reuse: no class has the name of exactly one source class" in caplog.text


def test_a_files_classifier_by_number(tmp_path: Path) -> None:
    """The head is a convolution with fewer classes. A file without classifier is an error."""
    own = create("squeezenet1_1", 4)
    torch.save({"state_dict": own.state_dict()}, tmp_path / "own.pt")
    given = {"backbone": "squeezenet1_1", "weights": str(tmp_path / "own.pt")}
    network = made(("a", "b"), {"b": 3}, **given)
    weight = own.state_dict()["classifier.1.weight"]
    assert same_direction(row(network, 1), (weight[3] - weight.mean(0)).flatten())
    torch.save({n: v for n, v in own.state_dict().items() if "classifier" not in n}, tmp_path / "own.pt")
    with pytest.raises(WeightsError, match="include no classifier"):
        made(("a", "b"), {"b": 3}, **given)


def test_weights_none_has_nothing_to_reuse() -> None:
    with pytest.raises(ValueError, match="has no classifier to start from"):
        ModelSection(backbone="resnet18", weights="none", head=HeadSection(reuse="auto"))
