"""What a run learns at its end: which images are unlike its training images."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from finetune.checkpoint.storage import CARD, MODEL, NOVELTY, save_checkpoint
from finetune.decision.decision import Decision
from finetune.decision.novelty import nearest_scores
from finetune.errors import CheckpointError
from finetune.explain.features.split_features import features_of_images
from finetune.training import novelty
from finetune.training.novelty import Learned, learn_novelty
from finetune.training.novelty_file import read_reference, reference_tensors
from finetune.training.run.signals import Signals
from finetune.training.setup.prepare import Setup
from finetune.training.trained import Trained
from finetune.training.validation import collect

Make = Callable[..., Setup]


@pytest.fixture
def make(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def setup(train: str = "precision: fp32") -> Setup:
        tiny.stand_in(monkeypatch)
        found = tiny.setup(tiny.recipe(shapes, f"{{batch_size: 8, {train}}}"))
        found.network.module.eval()
        return found

    return setup


def learn(setup: Setup) -> Learned:
    splits = setup.source.splits
    return learn_novelty(setup, splits["train"], splits["val"], Signals())


def test_the_threshold_keeps_val_and_logits_are_those_of_an_evaluation(make: Make, tmp_path: Path) -> None:
    setup = make()
    learned, expected = learn(setup), collect(setup, "val", Signals())
    assert np.array_equal(learned.val.logits, expected.logits)
    assert learned.novelty is not None
    assert learned.reference is not None
    assert learned.reference.dtype == torch.float16
    train, val = setup.source.splits["train"], setup.source.splits["val"]
    assert (learned.novelty.n, learned.novelty.images) == (len(val), len(train))

    module = setup.network.module
    trained = Trained(module, setup.card, tmp_path, tmp_path, "best", setup.recipe)
    features = features_of_images(trained, train).features
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.array_equal(learned.reference.numpy(), unit.astype(np.float16))

    again = learn(setup)
    assert again.novelty == learned.novelty
    assert again.reference is not None
    assert torch.equal(again.reference, learned.reference)


def test_a_sample_of_train_has_every_class(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "MOST_IMAGES", 4)
    setup = make()
    found = learn(setup)
    assert found.novelty is not None
    assert found.novelty.images == 4
    assert found.novelty.neighbours == 4


def test_a_small_val_gives_scores_without_a_threshold(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    setup = make()
    val = setup.source.splits["val"].subset(range(12))
    with caplog.at_level(logging.INFO, logger="finetune"):
        found = learn_novelty(setup, setup.source.splits["train"], val, Signals()).novelty
    assert found is not None
    assert (found.threshold, found.n) == (None, 12)
    assert "needs 19" in caplog.text


def test_nothing_is_learned_where_the_recipe_says_so(make: Make) -> None:
    setup = make("novelty: none")
    found = learn(setup)
    assert (found.novelty, found.reference) == (None, None)
    assert np.array_equal(found.val.logits, collect(setup, "val", Signals()).logits)


def test_features_that_are_not_finite_give_no_marks(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    setup = make()
    with torch.no_grad():
        next(setup.network.module.parameters()).fill_(float("nan"))
    found = learn(setup)
    assert (found.novelty, found.reference) == (None, None)
    assert "not finite" in caplog.text


def test_the_file_has_to_be_what_the_card_says(make: Make, tmp_path: Path) -> None:
    import dataclasses

    setup = make()
    learned = learn(setup)
    assert learned.reference is not None
    card = dataclasses.replace(setup.card, decision=Decision(novelty=learned.novelty))

    def saved(reference: torch.Tensor | None) -> Path:
        tensors = {MODEL: {"a": torch.zeros(1)}, NOVELTY: reference_tensors(reference)}
        documents = {CARD: card.to_dict()}
        return save_checkpoint(tmp_path, "best", tensors, documents, keep_previous=False) / NOVELTY

    found = read_reference(saved(learned.reference), card)
    assert found is not None
    assert torch.equal(found, learned.reference)
    assert read_reference(saved(learned.reference), setup.card) is None
    whole = learned.reference.float()
    for other in (
        learned.reference[:-1],
        whole,
        learned.reference[0],
        None,
        learned.reference * float("nan"),
    ):
        with pytest.raises(CheckpointError, match="does not hold features"):
            read_reference(saved(other), card)
    assert nearest_scores(whole.numpy(), learned.reference.numpy(), 1).max() < 1e-3
