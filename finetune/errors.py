"""The exceptions that the toolkit raises on purpose, and the exit code of each on the command line.

::

    FinetuneError                1   the run failed
    ├── UserError                2   the user's input is wrong; the message says what to do
    │   ├── RecipeError              the recipe or a --set: all faults, each with its place
    │   ├── DataError                the data set is unusable: layout, classes, splits, CSV
    │   │   └── BadImageError        an unreadable image
    │   ├── WeightsError             weights that cannot be fetched, read or matched
    │   ├── FreezeError              `freeze` names no layer or leaves nothing to train
    │   ├── RunDirError              a run directory that is in use, missing or not a run
    │   │   └── FinishedRunError     the run is finished, and the request differs from it
    │   ├── MissingExtraError        an optional package is missing
    │   └── BrokenPackageError       a required package is missing or broken
    ├── CheckpointError          2   a checkpoint is incomplete, altered or of another run
    ├── SaveError                1   a file cannot be written: the disk is full or failing
    ├── FreezeBrokenError        1   a frozen parameter or buffer changed
    ├── NonFiniteLossError       1   the loss is infinite or not a number
    ├── NoMemoryError            1   out of memory
    ├── ExportError              1   an exported file computes other results than the model
    ├── GateMissedError          1   a measured number is below the required one
    └── StoppedError              129, 130 or 143   stopped by a signal, resumable
"""

import errno

# As in `typing`, which takes too long to import for a run that is refused at once.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def printable(name: object) -> str:
    """A path or name on one line: control characters and undecodable bytes become escapes."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(name))


# Characters that change the direction of text, and that some programs take for the end of a line.
_STEERING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """``text`` with escapes for terminal control characters and invalid Unicode. Lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_escape(char) if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    if char.isprintable() or char in "\n\t":
        return False
    code = ord(char)
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000 or char in _STEERING


def _escape(char: str) -> str:
    # The only form of escape in JSON, which would leave this control character as it is.
    return "\\u007f" if char == "\x7f" else char.encode("unicode_escape").decode("ascii")


def check_unicode(what: str, path: object, remedy: str = "Choose another.") -> None:
    """Refuse a path whose name is not Unicode. safetensors and onnxruntime cannot open such files.

    Raises:
        UserError: ``path`` is not Unicode.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} {printable(path)}: its name is not UTF-8. {remedy}") from None


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 200 characters, never empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# Parts of the messages of torch's allocators and oneDNN, which raise RuntimeError or subclasses of it.
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a memory object",
)
# The whole message: oneDNN says "could not create a primitive descriptor" for unsupported operations.
NO_PRIMITIVE = "could not create a primitive"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that the GPU or the machine is out of memory."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):
        # A library cannot be mapped into memory: the limit on the address space is reached, or its file
        # system forbids it.
        return "cannot allocate memory" in text.lower() or (
            "failed to map segment" in text and _addresses_are_limited()
        )
    return isinstance(error, RuntimeError) and (
        text == NO_PRIMITIVE or any(sign in text for sign in NO_MEMORY)
    )


def _addresses_are_limited() -> bool:
    try:
        import resource  # not on Windows

        return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    except (ImportError, OSError, ValueError):
        return False


def is_out_of_threads(error: BaseException) -> bool:
    """Whether ``error`` means that the user or the machine has reached its limit of processes and threads."""
    if isinstance(error, OSError):
        return error.errno == errno.EAGAIN
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def is_out_of_files(error: BaseException) -> bool:
    """Whether ``error`` means that the process or the machine has reached its limit of open files."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


class FinetuneError(Exception):
    """Base of all exceptions of the toolkit. The command line exits with ``exit_code``."""

    exit_code = 1


class UserError(FinetuneError):
    """The user's input is wrong."""

    exit_code = 2


class RecipeError(UserError):
    """All faults of a recipe, one line each: ``recipe.yaml:12:3: train.phases[0].lr: ...``."""

    def __init__(self, problems: "Sequence[str]") -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """The data set is unusable."""


class BadImageError(DataError):
    """An image cannot be read.

    ``name`` is its path, or its position in a set without files. ``reason`` is a short phrase.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"{printable(name)}: {reason}")

    def __reduce__(self) -> tuple[type["BadImageError"], tuple[str, str]]:
        # Loader processes pickle their errors, and pickle would pass only the message.
        return type(self), (self.name, self.reason)


class WeightsError(UserError):
    """Weights that cannot be fetched, read or matched."""


class FreezeError(UserError):
    """``freeze`` names no layer, exceeds the body, or leaves nothing to train."""


class RunDirError(UserError):
    """A run directory is in use, missing, or not a run."""


class FinishedRunError(RunDirError):
    """The run is finished, and the requested training differs from it.

    ``longer``: the request differs only in more epochs. ``weights``: the new training could start from the
    weights of the run. ``reuse``: and from its head.
    """

    def __init__(self, message: str, *, longer: bool, weights: bool, reuse: bool) -> None:
        self.longer = longer
        self.weights = weights
        self.reuse = reuse
        super().__init__(message)


class MissingExtraError(UserError):
    """An optional package is missing."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}. "
            f"Install it with: pip install 'finetune-pictures[{extra}]'"
        )


class BrokenPackageError(UserError):
    """A required package cannot be imported; ``error`` is the reason."""

    def __init__(self, package: str, error: BaseException) -> None:
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        what = "is not installed" if absent else f"cannot be loaded ({first_line(error)})"
        of_torch = package in ("torch", "torchvision")
        again = "" if absent else "--force-reinstall "
        super().__init__(
            f"the package {package!r} {what}, and this command needs it. Install it with: pip install "
            f"{again}{'torch torchvision' if of_torch else package}"
            + (". Exported models run without it: finetune predict MODEL.onnx PATH..." if of_torch else "")
        )


def require_known(what: str, name: object, known: "Sequence[object]") -> None:
    """Refuse an unknown name, so that it never falls into the last branch of the code.

    The schema checks the names in a recipe. This check is for callers from Python and for new names.

    Raises:
        FinetuneError: ``name`` is not in ``known``.
    """
    if name not in known:
        raise FinetuneError(f"unknown {what} {name!r}; known are {', '.join(map(str, known))}")


class CheckpointError(FinetuneError):
    """A checkpoint is incomplete, altered, or of another run."""

    exit_code = 2


class SaveError(FinetuneError):
    """A file cannot be written. The file that was there before is intact."""


class FreezeBrokenError(FinetuneError):
    """A frozen parameter or buffer changed during training."""


class NonFiniteLossError(FinetuneError):
    """The loss is infinite or not a number. The weights were not updated with it."""


class NoMemoryError(FinetuneError):
    """Out of memory. For a training step, the message suggests a batch size that fits."""


class ExportError(FinetuneError):
    """An exported file computes other results than the model."""


class GateMissedError(FinetuneError):
    """A measured number is below the required one."""


class StoppedError(FinetuneError):
    """A signal stopped the command after it saved its state. ``--resume`` continues."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)
