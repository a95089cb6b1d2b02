"""A refit (``train.refit``): the network that it trains, how long, and what it keeps from before."""

import csv
from pathlib import Path

import pytest
import safetensors.torch

import tiny
from finetune.errors import UserError
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.fit import Result, fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from finetune.training.trained import load_trained
from finetune.training.val_logits import val_logits
from small_runs import bits, metrics

COUNTS = {"train": (8, 4), "val": (3, 3), "test": (3, 3)}
SOLVED = "{freeze: backbone, optimizer: lbfgs, weight_decay: 0.1}"
HEAD = "fc.weight"


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.stand_in(monkeypatch)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.draw_images(tmp_path_factory.mktemp("refit") / "images", COUNTS)


def train(run: Path, source: Path, section: str, **continuation: bool) -> Result:
    with RunDir.open(run, resume=bool(continuation)) as opened:
        recipe = tiny.recipe(source, section)
        return fit(recipe, opened, device="cpu", continuation=Continuation(**continuation))


def best_weights(run: Path) -> dict[str, object]:
    return dict(safetensors.torch.load_file(run / "checkpoints" / "best" / "model.safetensors"))


def list_as_train(source: Path, table: Path) -> Path:
    """A table with the images of train and val as train, and those of test as val and test."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, uses in (("train", ["train"]), ("val", ["train"]), ("test", ["val"])):
            for path in sorted((source / split).rglob("*.png")):
                writer.writerows([str(path), path.parent.name, use] for use in uses)
    return table


def test_the_head_is_that_of_train_and_val_together(images: Path, tmp_path: Path) -> None:
    section = f"{{batch_size: 6, refit: true, phases: [{SOLVED}]}}"
    result = train(tmp_path / "refit", images, section)
    assert result.refit is not None
    assert (result.epochs, result.refit.epochs, result.refit.images) == (1, 1, 18)
    table = list_as_train(images, tmp_path / "table.csv")
    train(tmp_path / "together", table, section.replace("refit: true, ", ""))
    train(tmp_path / "without", images, section.replace("refit: true, ", ""))
    heads = [best_weights(tmp_path / name)[HEAD] for name in ("refit", "together", "without")]
    assert heads[0] == pytest.approx(heads[1], abs=1e-6)
    assert heads[0] != pytest.approx(heads[2], abs=1e-3)


def test_it_is_as_long_as_the_best_epoch_took(images: Path, tmp_path: Path) -> None:
    phases = f"[{SOLVED}, {{epochs: 4, lr: 3.0, schedule: constant, optimizer: sgd}}]"
    result = train(tmp_path / "r", images, f"{{batch_size: 6, select: loss, refit: true, phases: {phases}}}")
    lines = metrics(tmp_path / "r")
    refit = [line for line in lines if line.get("refit")]
    assert result.epochs == 5
    assert result.best.epoch < 5  # at this rate, the last epochs are worse
    assert len(refit) == result.best.epoch
    assert [line["epoch"] for line in refit] == list(range(6, 6 + len(refit)))
    # The schedule is that of the whole phase, on 18 images in place of 12.
    tuned = [line for line in lines if line["epoch"] in range(2, 6) and "val_top1" in line]
    assert [line["step"] for line in tuned] == [3, 5, 7, 9]
    assert [line["step"] - lines[4]["step"] for line in refit] == [1 + 3 * n for n in range(len(refit))]
    assert all("val_top1" not in line for line in refit)


def test_all_epochs_are_trained_again_if_the_last_one_is_taken(images: Path, tmp_path: Path) -> None:
    section = "{batch_size: 6, select: last, refit: true, phases: [{freeze: 1, epochs: 2}]}"
    train(tmp_path / "r", images, section)
    lines = metrics(tmp_path / "r")
    assert [line["epoch"] for line in lines if line.get("refit")] == [3, 4]


def test_what_was_decided_on_val_stays(images: Path, tmp_path: Path) -> None:
    section = f"{{batch_size: 6, phases: [{SOLVED}]}}"
    train(tmp_path / "without", images, section)
    train(tmp_path / "refit", images, section.replace("phases", "refit: true, phases"))
    first, second = (load_trained(tmp_path / name) for name in ("without", "refit"))
    assert first.card.decision == second.card.decision
    assert (val_logits(first).logits == val_logits(second).logits).all()
    assert best_weights(first.run)[HEAD] != pytest.approx(best_weights(second.run)[HEAD], abs=1e-3)


def test_val_no_longer_serves_to_judge_or_to_choose(images: Path, tmp_path: Path) -> None:
    train(tmp_path / "r", images, f"{{batch_size: 6, refit: true, phases: [{SOLVED}]}}")
    best, last = (load_trained(tmp_path / "r", which) for which in ("best", "last"))
    assert any("was trained on val" in each for each in images_to_evaluate(best, "val").warnings)
    assert images_to_evaluate(best, "test").warnings == ()
    with pytest.raises(UserError, match="'last' was trained on val"):
        val_logits(last)


def test_a_finished_refit_stays_as_it_is(images: Path, tmp_path: Path) -> None:
    section = f"{{batch_size: 6, refit: true, phases: [{SOLVED}]}}"
    before = train(tmp_path / "r", images, section)
    files = bits(tmp_path / "r")
    after = train(tmp_path / "r", images, section, resume=True)
    assert after.already_finished
    assert after.test is not None
    assert before.test is not None
    assert (after.test.to_dict(), after.refit) == (before.test.to_dict(), before.refit)
    longer = section.replace("]}", ", {freeze: 1, epochs: 1}]}")
    with pytest.raises(UserError, match="cannot be made longer"):
        train(tmp_path / "r", images, longer, resume=True, extend=True)
    assert bits(tmp_path / "r") == files
