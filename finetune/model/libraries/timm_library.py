"""Networks of timm, by the name ``timm:NAME``: created, described, and filled with weights.

timm is an extra. Its networks go through the same code as torchvision's.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from finetune.errors import MissingExtraError, UserError, WeightsError, first_line
from finetune.model.weights.adapt import Adapt
from finetune.offline import because, is_offline
from finetune.recipe.catalog import TIMM, suggest


def require_timm() -> Any:
    """The module ``timm``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError:
        raise MissingExtraError("A backbone timm:NAME", "timm", "timm") from None
    return timm


def config(name: str) -> Any:
    """timm's description of ``timm:NAME``: input size, mean, classifier and so on.

    Raises:
        MissingExtraError: timm is not installed.
        UserError: it has no network of that name.
    """
    timm = require_timm()
    own = name.removeprefix(TIMM)
    if not timm.is_model(own):
        raise UserError(f"timm {timm.__version__} has no {own!r}.{suggest(own, timm.list_models())}")
    try:
        found = timm.get_pretrained_cfg(own)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from None
    if found is None:
        raise UserError(f"{name}: timm does not describe its input, so it cannot be used")
    return found


def create(name: str, num_classes: int, image_size: int | None) -> nn.Module:
    """The network with random weights, built for ``image_size`` where it is built for one size.

    Raises:
        MissingExtraError, UserError: as :func:`config`; or a size or head that it cannot have.
    """
    given = config(name)
    options: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
    if given.fixed_input_size and image_size is not None and image_size != given.input_size[-1]:
        options["img_size"] = image_size
    try:
        module: nn.Module = require_timm().create_model(name.removeprefix(TIMM), **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"{name} cannot be built ({first_line(error)})") from None
    return module


def pretrained(name: str, num_classes: int) -> dict[str, Any]:
    """The state of the network with timm's pretrained weights, from its cache or the hub it names.

    Raises:
        WeightsError: there are none, or they could not be fetched.
    """
    own = name.removeprefix(TIMM)
    timm = require_timm()
    forbidden = is_offline()
    try:
        # What is announced on stdout would be taken for data.
        with (
            contextlib.redirect_stdout(sys.stderr),
            _cache_alone() if forbidden else contextlib.nullcontext(),
        ):
            module = timm.create_model(own, pretrained=True, num_classes=num_classes)
    except Exception as error:
        # The hub's client has errors of its own, of many kinds.
        why = because() if forbidden else f"could not be had from timm's hub ({first_line(error)})"
        raise WeightsError(
            f"the weights of {name} {'are not there, and were ' if forbidden else ''}{why}. Fetch its "
            f"checkpoint elsewhere ({_address(name)}) and set model.weights to the file, or to none; or take "
            f"the backbone efficientnet_lite0, whose weights need no download."
        ) from None
    return dict(module.state_dict())


@contextlib.contextmanager
def _cache_alone() -> Iterator[None]:
    """Within, the hub's client and torch's read what is kept, and fetch nothing."""
    import torch

    def refuse(url: str, *_: Any, **__: Any) -> None:
        raise OSError(f"{url}: {because()}")

    fetches = torch.hub.download_url_to_file
    timm_hub = sys.modules.get("timm.models._hub")
    own = getattr(timm_hub, "download_url_to_file", None)
    hub = sys.modules.get("huggingface_hub.constants")
    before = getattr(hub, "HF_HUB_OFFLINE", None)
    torch.hub.download_url_to_file = refuse
    try:
        if own is not None:
            timm_hub.download_url_to_file = refuse  # type: ignore[union-attr]
        if hub is not None:
            hub.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        yield
    finally:
        torch.hub.download_url_to_file = fetches
        if own is not None:
            timm_hub.download_url_to_file = own  # type: ignore[union-attr]
        if hub is not None:
            hub.HF_HUB_OFFLINE = before  # type: ignore[attr-defined]


def _address(name: str) -> str:
    """Where timm has the weights from."""
    given = config(name)
    return f"https://huggingface.co/{given.hf_hub_id}" if given.hf_hub_id else str(given.url or "no address")


def resizer(module: nn.Module) -> Adapt | None:
    """How timm fits a checkpoint's entries to the network's image size; None where it has no way.

    Position embeddings and tables of relative positions are resampled; kernels are left alone.
    """
    own_way = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if own_way is None:
        return None

    def resize(name: str, found: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
        if name.endswith(".weight") or found.ndim != own.ndim:
            return None
        # Each architecture has its own code for this, which fails in its own way on what is not its own.
        with contextlib.suppress(
            RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError
        ):
            fitted = own_way({name: found.float()}, module)[name]
            return fitted, f"resampled by timm from {tuple(found.shape)} to {tuple(own.shape)}"
        return None

    return resize


def classifiers(name: str) -> tuple[str, ...]:
    """Paths of the last layers: one, or several whose logits the network itself puts together.

    Raises:
        UserError: timm names none.
    """
    given = config(name).classifier
    paths = (given,) if isinstance(given, str) else tuple(given or ())
    if not paths:
        raise UserError(f"{name}: timm names no classifier of it, so it has no head to swap")
    return paths
