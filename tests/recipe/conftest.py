"""A valid recipe, and a fixture for the problems of an invalid one."""

from collections.abc import Callable, Sequence

import pytest

from finetune.errors import RecipeError
from finetune.recipe.load import parse_recipe

SOUND = """\
# A comment with ünïcode
seed: 3
data:
  source: photos
  image_size: 64
model:
  backbone: resnet18
  head: {dropout: 0.25}
train:
  optimizer: sgd
  augment:
    crop: random_resized
    scale: [0.5, 1]
    color_jitter: &jitter {brightness: .2, hue: 5e-2}
  phases:
    - {freeze: backbone, epochs: 1, lr: 1e-3}
    - freeze: 4
      lr: 'auto'
"""


@pytest.fixture
def sound() -> str:
    return SOUND


@pytest.fixture
def problems() -> Callable[..., list[str]]:
    """The problems of a text as ``recipe.yaml``; the test fails if there are none."""

    def read(text: str | bytes, overrides: Sequence[str] = ()) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            parse_recipe(text, "recipe.yaml", overrides)
        assert caught.value.exit_code == 2
        return caught.value.problems

    return read
