"""The objects that a recipe describes: splits, preprocessing, loss and networks."""

from pathlib import Path

import pytest
import torch

import tiny
from finetune.errors import UserError
from finetune.image.preprocessing import Preprocessing
from finetune.recipe.schema import DataSection
from finetune.training.setup.prepare import load_data, resolve_preprocessing

OF_THE_WEIGHTS = Preprocessing(
    image_size=224,
    resize=256,
    resize_mode="shorter",
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.stand_in(monkeypatch)
    return tiny.draw_images(tmp_path / "images", {"train": (9, 3), "val": (2, 2)})


def data(**keys: object) -> DataSection:
    return DataSection.model_validate({"source": "digits", **keys})


def test_preprocessing_is_that_of_the_weights() -> None:
    assert resolve_preprocessing(data(), OF_THE_WEIGHTS) == OF_THE_WEIGHTS


def test_another_image_size_keeps_the_proportion_of_the_crop() -> None:
    found = resolve_preprocessing(data(image_size=112), OF_THE_WEIGHTS)
    assert (found.image_size, found.resize) == (112, 128)


def test_padding_shows_the_whole_image() -> None:
    found = resolve_preprocessing(data(resize_mode="pad"), OF_THE_WEIGHTS)
    assert (found.image_size, found.resize) == (224, 224)
    with pytest.raises(UserError, match=r"data\.resize: .* at most the 224 px"):
        resolve_preprocessing(data(resize_mode="pad", resize=256), OF_THE_WEIGHTS)


def test_the_recipe_gets_the_resolved_values(images: Path) -> None:
    recipe = tiny.recipe(images, "{}", "data.image_size=auto", "data.resize=auto")
    setup = tiny.setup(recipe)
    side = setup.card.preprocessing.image_size
    assert (setup.recipe.data.image_size, setup.image) == (side, (3, side, side))
    assert "auto" not in (setup.recipe.data.resize, setup.recipe.data.interpolation)


def test_the_moving_average_is_what_is_evaluated(images: Path) -> None:
    plain, averaged = (tiny.setup(tiny.recipe(images, train)) for train in ("{}", "{ema: 0.9}"))
    assert plain.evaluated is plain.network.module
    assert averaged.ema is not None
    assert averaged.evaluated is averaged.ema.module


def test_starting_weights_are_stored_for_l2_sp_alone(images: Path) -> None:
    plain, penalized = (tiny.setup(tiny.recipe(images, train)) for train in ("{}", "{l2_sp: {}}"))
    assert plain.start == {}
    current = dict(penalized.network.module.named_parameters())
    assert penalized.start
    assert all(torch.equal(value, current[name]) for name, value in penalized.start.items())


def test_val_is_held_out_by_split_seed_and_not_by_seed(tmp_path: Path) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (20, 20)})

    def val(seed: int, **keys: object) -> list[str]:
        split = load_data(data(source=str(source), val_fraction=0.25, **keys), seed).splits["val"]
        return [split.name(index) for index in range(len(split))]

    assert val(1) != val(2)
    assert val(1, split_seed=7) == val(2, split_seed=7)
