"""``train.select``: the choice of the best epoch."""

import pytest

from finetune.errors import RecipeError
from finetune.recipe.load import minimal_recipe
from finetune.training.run.position import Best, Selection

BEST = Best(3, 0.8, 0.5, 0.6)


@pytest.mark.parametrize(
    ("select", "other", "better"),
    [
        ("top1", Best(4, 0.9, 0.9, 0.5), True),
        ("top1", Best(4, 0.7, 0.1, 0.7), False),
        ("top1", Best(4, 0.8, 0.4, 0.5), True),
        ("balanced_accuracy", Best(4, 0.7, 0.9, 0.7), True),
        ("balanced_accuracy", Best(4, 0.9, 0.1, 0.5), False),
        ("balanced_accuracy", Best(4, 0.7, 0.4, 0.6), True),
        ("balanced_accuracy", Best(4, 0.9, 0.6, 0.6), False),
        ("loss", Best(4, 0.9, 0.9, 0.7), False),
        ("loss", Best(4, 0.7, 0.1, 0.5), True),
        # Whatever val says.
        ("last", Best(4, 0.9, 0.1, 0.7), True),
        ("last", Best(4, 0.1, 0.9, 0.5), True),
    ],
)
def test_an_epoch_beats_the_best_by_the_selected_value(select: Selection, other: Best, better: bool) -> None:
    assert BEST.beaten_by(other, select) is better


def test_the_best_epoch_of_an_earlier_version_has_no_balanced_accuracy() -> None:
    earlier = Best(epoch=3, val_top1=0.8, val_loss=0.5)
    assert earlier.to_dict() == {"epoch": 3, "val_top1": 0.8, "val_loss": 0.5}
    assert earlier.beaten_by(Best(4, 0.1, 0.9, 0.1), "balanced_accuracy")
    assert not earlier.beaten_by(Best(4, 0.1, 0.9, 0.1), "top1")


def test_select_last_excludes_early_stopping() -> None:
    settings = ["train.select=last", "train.early_stopping=2"]
    with pytest.raises(RecipeError, match=r"early_stopping: has no effect under select: last"):
        minimal_recipe("digits", "resnet18", overrides=settings)
    assert minimal_recipe("digits", "resnet18", overrides=settings[:1]).train.select == "last"
