"""Check paths of runs and models, with a hint on what was meant, before torch is loaded."""

from pathlib import Path
from typing import Literal

from finetune.disk.nearby import did_you_mean, is_run
from finetune.errors import RunDirError, UserError, check_unicode, printable
from finetune.training.run.files import RESOLVED

ONNX = ".onnx"
# The checkpoints of a run that can be loaded.
Checkpoint = Literal["best", "last"]


def run_name(source: str) -> str:
    """The default name of a run on ``source``: that of the folder, the file or the known set."""
    path = Path(source)
    name = path.resolve().stem if path.exists() else source.rpartition(":")[2]
    return name or "images"


def check_run(run: Path) -> None:
    """Check that ``run`` is a run directory.

    Raises:
        RunDirError: the folder does not exist or holds no run.
    """
    check_unicode("run directory", run, "Rename it.")
    name = printable(run)
    if not run.is_dir():
        hint = did_you_mean(str(run), is_run) or " Give the run directory that `finetune train` printed."
        raise RunDirError(f"{name}: no such folder.{hint}")
    if not (run / RESOLVED).is_file():
        inside = next((each for each in sorted(run.glob("*")) if is_run(str(each))), None)
        hint = "" if inside is None else f" It contains runs: give one, such as {printable(str(inside))}."
        raise RunDirError(f"{name}: not a run directory (it has no {RESOLVED}).{hint}")


def check_model(model: Path, precision: str = "fp32") -> None:
    """Check that ``model`` is a run directory, or an ONNX file that can compute in ``precision``.

    Raises:
        RunDirError: the folder holds no run.
        UserError: the path is neither, or an ONNX file is to compute in another precision than fp32.
    """
    if model.is_dir():
        check_run(model)
    elif not model.exists():
        hint = did_you_mean(str(model), lambda path: is_run(path) or path.lower().endswith(ONNX))
        raise UserError(f"{printable(model)}: no such run directory or ONNX file.{hint}")
    elif model.suffix.lower() != ONNX:
        raise UserError(f"{printable(model)}: neither a run directory nor an {ONNX} file.")
    elif precision != "fp32":
        raise UserError(
            f"precision {precision}: an ONNX file computes in fp32. Give the run directory, or leave this "
            "out."
        )
