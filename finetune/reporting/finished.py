"""Whether the training of a run came to its end."""

from pathlib import Path

from finetune.checkpoint.storage import STATE, find_checkpoint, read_document
from finetune.training.run.files import CHECKPOINTS


def is_finished(run: Path) -> bool:
    """Whether a training came to its end, as far as its last checkpoint tells.

    A run of one checkpoint without a position, such as one that a probe saved, is finished.

    Raises:
        CheckpointError: its last checkpoint is damaged.
    """
    folder, _ = find_checkpoint(run / CHECKPOINTS, "last")
    if folder is None:
        return find_checkpoint(run / CHECKPOINTS, "best")[0] is not None
    state = folder / STATE
    found = read_document(state) if state.is_file() else {}
    return not isinstance(found, dict) or bool(found.get("finished", True))
