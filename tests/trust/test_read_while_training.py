"""Reading a run during training gives a consistent checkpoint, or a message."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.checkpoint import manifest, storage
from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.storage import CARD, MODEL, save_checkpoint
from finetune.errors import CheckpointError
from finetune.image.preprocessing import Preprocessing
from finetune.model import run_weights
from finetune.model.backbones import create
from finetune.model.build import build
from finetune.model.source_weights import load_source_weights
from finetune.recipe.load import dump_recipe
from finetune.recipe.schema import Recipe
from finetune.training import trained as trained_network
from finetune.training.trained import load_trained

BACKBONE = "shufflenet_v2_x0_5"
RECIPE = Recipe.model_validate(
    {"data": {"source": "digits"}, "model": {"backbone": BACKBONE, "weights": "none"}}
)
Save = Callable[[tuple[str, ...]], None]


@functools.cache
def network(count: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A network whose weights all equal the number of its classes."""
    built = build(RECIPE.model, count, seed=0, image_size=32)
    state = {name: torch.full_like(value, count) for name, value in built.module.state_dict().items()}
    return state, built.architecture


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """``save(("a", "b"))`` saves a checkpoint with these classes."""
    grey = (0.5, 0.5, 0.5)
    transform = Preprocessing(32, 32, "shorter", "bilinear", grey, grey)
    (tmp_path / "resolved.yaml").write_text(dump_recipe(RECIPE))

    def write(classes: tuple[str, ...]) -> None:
        state, architecture = network(len(classes))
        card = ModelCard(architecture, classes, transform)
        for name, keep in (("last", True), ("best", False)):
            save_checkpoint(
                tmp_path / "checkpoints", name, {MODEL: state}, {CARD: card.to_dict()}, keep_previous=keep
            )

    return write


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, room: Any, name: str, change: Callable[[], None], times: int
) -> None:
    """``change`` happens just before the first ``times`` calls of a function."""
    real, left = getattr(room, name), [times]

    def disturbed(*words: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            change()
        return real(*words, **options)

    monkeypatch.setattr(room, name, disturbed)


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("at", ["find_damage", "read_document", "read_tensors"])
def test_weights_and_card_are_of_one_moment(
    which: Any, at: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    save(("a", "b"))
    save(("a", "b"))
    room = storage if at == "find_damage" else trained_network
    meanwhile(monkeypatch, room, at, lambda: save(("x", "y", "z")), 2)
    trained = load_trained(tmp_path, which)
    assert trained.card.classes == ("x", "y", "z")
    assert {value.flatten()[0].item() for value in trained.module.state_dict().values()} == {3}
    assert not caplog.records


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_reader_between_two_renames_gets_the_previous_checkpoint(
    which: Any, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment only the previous checkpoint exists; it is deleted once the new one exists."""
    save(("a", "b"))
    folder = tmp_path / "checkpoints" / which
    previous = folder.with_name(f"{which}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    folder.rename(previous)

    def go_on() -> None:
        shutil.rmtree(previous)
        save(("x", "y", "z"))

    meanwhile(monkeypatch, trained_network, "read_tensors", go_on, 1)
    assert load_trained(tmp_path, which).card.classes == ("x", "y", "z")


def test_a_reader_during_constant_replacement_gets_one_checkpoint(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(("a", "b"))
    monkeypatch.setattr(manifest, "ATTEMPTS", 3)
    monkeypatch.setattr(manifest, "PAUSE_SECONDS", 0.0)
    meanwhile(monkeypatch, trained_network, "read_document", lambda: save(("a", "b")), 10)
    with pytest.raises(CheckpointError, match="faster than it can be read"):
        load_trained(tmp_path)


@pytest.mark.parametrize("at", ["find_damage", "read_run_card", "read_file"])
def test_weights_of_a_training_run_can_be_read(
    at: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(("a", "b"))
    meanwhile(monkeypatch, run_weights, at, lambda: save(("x", "y", "z")), 2)
    module = create(BACKBONE)
    loaded = load_source_weights(module, BACKBONE, str(tmp_path))
    assert loaded.head is not None
    assert loaded.head.classes == ("x", "y", "z")
    assert loaded.head.weight.shape[0] == 3


def test_an_inaccessible_folder_is_an_error(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(("a", "b"))

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(CheckpointError, match="checkpoints/best: cannot be read \\(Permission denied\\)"):
        load_trained(tmp_path)
