"""``train.select``: the choice of the best epoch."""

import pytest

from finetune.errors import RecipeError
from finetune.recipe.load import minimal_recipe
from finetune.training.run.position import Best

BEST = Best(3, 0.8, 0.5)


@pytest.mark.parametrize(
    ("select", "top1", "loss", "better"),
    [
        ("top1", 0.9, 0.9, True),
        ("top1", 0.7, 0.1, False),
        ("top1", 0.8, 0.4, True),
        ("loss", 0.9, 0.9, False),
        ("loss", 0.7, 0.1, True),
        # Whatever val says.
        ("last", 0.9, 0.1, True),
        ("last", 0.1, 0.9, True),
    ],
)
def test_an_epoch_beats_the_best_by_the_selected_value(
    select: str, top1: float, loss: float, better: bool
) -> None:
    assert BEST.beaten_by(top1, loss, select) is better  # type: ignore[arg-type]


def test_select_last_excludes_early_stopping() -> None:
    settings = ["train.select=last", "train.early_stopping=2"]
    with pytest.raises(RecipeError, match=r"early_stopping: has no effect under select: last"):
        minimal_recipe("digits", "resnet18", overrides=settings)
    assert minimal_recipe("digits", "resnet18", overrides=settings[:1]).train.select == "last"
