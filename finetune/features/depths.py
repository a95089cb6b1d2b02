"""Features at several depths of a network, from one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finetune.features.cut import fold, stretch_graphs
from finetune.model.layers import LayerTable
from finetune.model.truncate import Pool, plan_pools


class Depths(nn.Module):
    """Images (N, C, S, S) to one (N, D) for each of the layers ``ks``, averaged over places or tokens.

    In eval mode, with the network's own modules, so that hooks on them see what passes; or ``folded``, each
    BatchNorm into its convolution, which is faster.

    Raises:
        CutError: the network cannot be cut there.
        UserError: what leaves one of the layers cannot be made a vector.
    """

    def __init__(
        self,
        module: nn.Module,
        table: LayerTable,
        ks: Sequence[int],
        image_size: int,
        channels: int,
        *,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self._pools = [Pool(axes) for axes, _ in plan_pools(module, table, ks, image_size, channels)]
        stretches = stretch_graphs(module, table, ks)
        self._stretches = nn.ModuleList(map(fold, stretches) if folded else stretches)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Features, the shallowest first."""
        found, value = [], images
        for stretch, pool in zip(self._stretches, self._pools, strict=True):
            value = stretch(value)
            found.append(pool(value))
        return found
