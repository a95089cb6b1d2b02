"""The best checkpoint of a run as source weights."""

from pathlib import Path
from typing import Any

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.manifest import find_damage, read_unchanged
from finetune.checkpoint.storage import CARD, MODEL, NEEDED, read_document
from finetune.errors import CheckpointError, WeightsError, printable
from finetune.model.weights.files import read_file

_BEST = Path("checkpoints", "best")


def find_run(run: Path) -> Path:
    """Return the model file of a run's best checkpoint. :func:`read_run` verifies its content.

    Raises:
        WeightsError: the folder has no best checkpoint.
    """
    path = run / _BEST / MODEL

    def check() -> None:
        if not path.is_file() or not path.with_name(CARD).is_file():
            raise WeightsError(
                f"{printable(run)}: is not a run directory with a best checkpoint ({_BEST}/). Give the "
                f"directory that `finetune train` printed, or a checkpoint file."
            )

    read_unchanged([path.parent], check)
    return path


def read_run_card(path: Path, backbone_name: str) -> ModelCard:
    """Read the card of the checkpoint whose model file is ``path``.

    Raises:
        WeightsError: the card cannot be read, or the run trained another backbone.
    """
    where = path.with_name(CARD)
    try:
        card = ModelCard.from_dict(read_document(where), str(where))
        trained = card.architecture.get("backbone")
    except CheckpointError as error:
        raise WeightsError(f"model.weights: {error}") from None
    if trained != backbone_name:
        raise WeightsError(
            f"{printable(path.parents[2])}: was trained with backbone {trained!r}, and the recipe asks for "
            f"{backbone_name!r}. Set model.backbone to {trained}."
        )
    return card


def read_run(path: Path, backbone_name: str) -> tuple[ModelCard, Any]:
    """Read card and tensors of one moment, also while a training replaces the checkpoint.

    Raises:
        WeightsError: the checkpoint is damaged, or the run trained another backbone.
    """

    def read() -> tuple[ModelCard, Any]:
        if (harm := find_damage(path.parent, NEEDED)) is not None:
            raise WeightsError(f"model.weights: {harm}")
        return read_run_card(path, backbone_name), read_file(path)

    return read_unchanged([path.parent], read)
