"""What the layers of a network have learned, as a figure."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune.api.paths import check_run
from finetune.disk.nearby import did_you_mean, is_run
from finetune.errors import UserError, printable
from finetune.recipe import catalog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from finetune.explain.layers.views import LayerViews


@dataclass(frozen=True)
class LayerRequest:
    """What :func:`draw_layers` takes, except the device."""

    what: str
    image: Path | None = None
    data: str | None = None
    weights: str | None = None
    at: str | None = None

    @property
    def of_run(self) -> bool:
        """Whether ``what`` is a run directory, not a backbone."""
        return self.what not in catalog.backbones() and Path(self.what).exists()

    def check(self) -> None:
        """Check names and paths, without loading torch.

        Raises:
            UserError: as :func:`draw_layers`.
        """
        name = printable(self.what)
        if self.image is not None and not self.image.is_file():
            raise UserError(f"{printable(self.image)}: no such image file.")
        if self.of_run:
            check_run(Path(self.what))
            if self.weights is not None:
                raise UserError(f"--weights: {name} is a run, which has its own. Leave this out.")
            return
        if os.sep in self.what and catalog.is_listed(self.what):
            hint = did_you_mean(self.what, is_run) or " `finetune backbones` lists the backbones."
            raise UserError(f"{name}: no such run or backbone.{hint}")
        catalog.check_backbone(self.what)
        if self.data is None:
            raise UserError(f"{name} is a backbone: give the images to show it with --data SOURCE.")

    def find(
        self,
        checkpoint: Literal["best", "last"] = "best",
        device: str | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "LayerViews":
        """Find what the figure shows. Raises as :func:`draw_layers`."""
        from finetune.explain.layers.subject import subject_of_backbone, subject_of_run
        from finetune.explain.layers.views import view_layers
        from finetune.training.compute.precision import pick_device

        chosen = pick_device(device)
        if self.of_run:
            subject = subject_of_run(Path(self.what), checkpoint, chosen, data=self.data)
        else:
            subject = subject_of_backbone(self.what, self.data or "", self.weights or "default", chosen)
        return view_layers(subject, self.at, self.image, progress=progress)


def draw_layers(
    what: str | os.PathLike[str],
    image: str | os.PathLike[str] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    at: str | None = None,
    device: str | None = None,
) -> "Figure":
    """Draw what the layers of a network have learned, from the first to the last.

    The figure shows the filters of the first layer and, at several depths, channels: the training images that
    excite them most, cropped to what the unit sees, and their values on one image. Of a run, it shows the
    same channels before and after fine-tuning.

    Args:
        what: a run directory, or a backbone (`finetune backbones`).
        image: the image whose values are shown. Default: the first of val.
        data: the images, as ``data.source`` names them. A backbone needs them; for a run, they say where its
            own images are now.
        weights: for a backbone: ``default``, ``none``, or what else ``model.weights`` takes.
        at: numbers or names of layers, such as ``1,5,9``. Default: five, evenly spaced.
        device: as for :func:`finetune.load`.

    Raises:
        UserError: no such run, backbone, layer or device, or no ``data`` for a backbone.
        BadImageError: an image cannot be read.
        DataError: the images cannot be found or used.
        WeightsError: the weights cannot be loaded.
        RunDirError: the weights that a run started from cannot be loaded any more.
    """
    request = LayerRequest(
        os.fspath(what),
        None if image is None else Path(image),
        None if data is None else os.fspath(data),
        weights,
        at,
    )
    request.check()
    from finetune.explain.layers.figure import draw_layers as draw

    return draw(request.find(device=device))
