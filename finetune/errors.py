"""Every error that the toolkit raises on purpose, and the exit code that it ends a command with.

::

    FinetuneError                1   the run failed
    ├── UserError                2   the user's input is wrong; the message says what to do
    │   ├── RecipeError              the recipe or a --set: every fault in it, each with its place
    │   ├── DataError                the data set cannot serve: layout, classes, splits, CSV
    │   │   └── BadImageError        one image cannot be read, and why
    │   ├── WeightsError             weights that cannot be had, read or matched
    │   ├── FreezeError              a freeze that names no layer or leaves nothing to train
    │   ├── RunDirError              a run directory that is taken, missing or not a run
    │   │   └── FinishedRunError     a finished run, and another training than its own is asked for
    │   ├── MissingExtraError        an optional package that a command needs
    │   └── BrokenPackageError       a package that is always needed is absent or broken
    ├── CheckpointError          2   a checkpoint that is torn, altered or foreign
    ├── SaveError                1   a file cannot be written: the disk is full or failing
    ├── FreezeBrokenError        1   a frozen parameter or buffer changed
    ├── NonFiniteLossError       1   the loss became infinite or not a number
    ├── NoMemoryError            1   something did not fit into memory
    ├── ExportError              1   an exported file disagrees with the model
    ├── GateMissedError          1   a number fell short of what the command asked for
    └── StoppedError              129, 130 or 143   stopped by a signal, resumable
"""

import errno

# What `typing` would say too; importing that, or `collections`, takes longer than refusing a run may.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def printable(name: object) -> str:
    """A path or another name on one line: control characters and undecodable bytes become escapes."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(name))


# What turns the direction of writing, and what some take for the end of a line.
_STEERING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """``text`` without what steers a terminal or is no Unicode: escapes in its place. Lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_escape(char) if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    if char.isprintable() or char in "\n\t":
        return False
    code = ord(char)
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000 or char in _STEERING


def _escape(char: str) -> str:
    # JSON has escapes of this form only, and writes this one control character as it is.
    return "\\u007f" if char == "\x7f" else char.encode("unicode_escape").decode("ascii")


def check_unicode(what: str, path: object, remedy: str = "Choose another.") -> None:
    """Refuse a place for files that only take Unicode names, as safetensors and onnxruntime do.

    Raises:
        UserError: ``path`` is not Unicode.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} {printable(path)}: its name is not UTF-8. {remedy}") from None


def first_line(error: BaseException) -> str:
    """What a foreign exception says, fit for the middle of a message: one line, never empty or long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# What torch's allocators and oneDNN say; they raise a plain RuntimeError, or one kind or another of it.
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a memory object",
)
# In full: "could not create a primitive descriptor" is of what oneDNN cannot compute.
NO_PRIMITIVE = "could not create a primitive"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was no memory left, on a GPU or in the machine."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):
        # A library's code cannot be mapped: where it lies on a file system that forbids that, or where
        # there is no room in what addresses a process may have.
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
    """Whether ``error`` says that this user, or the machine, has as many processes and threads as it may."""
    if isinstance(error, OSError):
        return error.errno == errno.EAGAIN
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def is_out_of_files(error: BaseException) -> bool:
    """Whether ``error`` says that this process, or the machine, has as many files open as it may."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


class FinetuneError(Exception):
    """Base of all errors below; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UserError(FinetuneError):
    """The user's input is wrong."""

    exit_code = 2


class RecipeError(UserError):
    """All faults of one recipe, each a line such as ``recipe.yaml:12:3: train.phases[0].lr: ...``."""

    def __init__(self, problems: "Sequence[str]") -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """The data set cannot serve as it is."""


class BadImageError(DataError):
    """One image cannot be read.

    ``name`` is its path (or its place in a set without files), ``reason`` a short phrase.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"{printable(name)}: {reason}")

    def __reduce__(self) -> tuple[type["BadImageError"], tuple[str, str]]:
        # Loader workers send their errors through pickle, which by default replays `args` (one message).
        return type(self), (self.name, self.reason)


class WeightsError(UserError):
    """Weights that cannot be fetched, read or matched."""


class FreezeError(UserError):
    """A freeze that names no layer, goes beyond the body or leaves nothing to train."""


class RunDirError(UserError):
    """A run directory that is taken, missing or not a run."""


class FinishedRunError(RunDirError):
    """A run is finished, and what is asked for now is another training than its own.

    ``longer``: it is the same for more epochs. ``weights``: the run's weights could be its start, and with
    ``reuse`` its classifier too.
    """

    def __init__(self, message: str, *, longer: bool, weights: bool, reuse: bool) -> None:
        self.longer = longer
        self.weights = weights
        self.reuse = reuse
        super().__init__(message)


class MissingExtraError(UserError):
    """An optional package is needed and absent."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}. "
            f"Install it with: pip install 'finetune-pictures[{extra}]'"
        )


class BrokenPackageError(UserError):
    """A package that ``finetune`` depends on cannot be imported: ``error`` came of that."""

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
    """Refuse a name that is none of those that the code knows what to do with.

    A recipe's are checked when it is read; this is for whoever calls from Python, and for a new name that
    was forgotten somewhere. What no branch takes must not become the last one's.

    Raises:
        FinetuneError: it is none of them.
    """
    if name not in known:
        raise FinetuneError(f"unknown {what} {name!r}; known are {', '.join(map(str, known))}")


class CheckpointError(FinetuneError):
    """A checkpoint is torn, altered or does not belong to this run."""

    exit_code = 2


class SaveError(FinetuneError):
    """A file, of a run or one that the user names, cannot be written; what was there before is intact."""


class FreezeBrokenError(FinetuneError):
    """A parameter or buffer that was frozen is not what it was before training."""


class NonFiniteLossError(FinetuneError):
    """The loss became infinite or not a number; nothing was updated with it."""


class NoMemoryError(FinetuneError):
    """Something did not fit into memory; of a training step, the message has a batch size that does."""


class ExportError(FinetuneError):
    """An exported file does not compute what the model computes."""


class GateMissedError(FinetuneError):
    """A measured number fell short of the one that the command asked for."""


class StoppedError(FinetuneError):
    """Stopped by a signal after saving; ``--resume`` continues."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)
