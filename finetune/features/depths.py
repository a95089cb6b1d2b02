"""Features at several depths of a network, from one pass."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from finetune.features.cut import fold_batchnorm, operations, segment_graphs
from finetune.model.layers.table import LayerTable
from finetune.model.truncate import Pool, plan_pools


class DepthExtractor(nn.Module):
    """Computes features (N, D) after each of the layers ``ks``, averaged over positions or tokens.

    It is in eval mode and runs the network's own modules, so hooks on them see the values. With ``folded``,
    BatchNorms are folded into convolutions instead, which is faster.

    Attributes:
        ks: the layers, from 1, increasing.
        pools: of each layer, the axes that are averaged over; empty where its output is a vector.
        lengths: of each layer, the length of its features.
        operations: of each layer, the number of operations from the images to it, without pooling.
        code: all operations as text.

    Raises:
        CutError: the network cannot be cut there.
        UserError: the output of a layer cannot be reduced to a vector.
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
        pools = plan_pools(module, table, ks, image_size, channels)
        self.ks = tuple(ks)
        self.pools = [axes for axes, _ in pools]
        self.lengths = [length for _, length in pools]
        self._pools = [Pool(axes) for axes in self.pools]
        segments = segment_graphs(module, table, ks)
        segments = [fold_batchnorm(each) for each in segments] if folded else segments
        self.operations = list(accumulate(map(operations, segments)))
        self.code = "\n".join(f"{each.code}{axes}" for each, axes in zip(segments, self.pools, strict=True))
        self._segments = nn.ModuleList(segments)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of images (N, C, S, S), the shallowest first."""
        found, value = [], images
        for segment, pool in zip(self._segments, self._pools, strict=True):
            value = segment(value)
            found.append(pool(value))
        return found
