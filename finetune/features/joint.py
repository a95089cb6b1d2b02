"""Features after several layers, computed in one pass of the images and stored layer by layer.

The rows of each layer are bit-identical to those of a network that is cut there, and are stored where that
network finds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor, nn

from finetune.features.cut import fold_batchnorm, operations, prefix_graphs
from finetune.features.depths import DepthExtractor
from finetune.features.extract import RowSpec, prefix_digest
from finetune.features.store import FeatureStore, Places
from finetune.model.layers.table import LayerTable
from finetune.model.truncate import Pool


@dataclass(frozen=True)
class DepthRows:
    """The rows of one layer: (N, D) features, averaged over places or tokens.

    Attributes:
        prefix: computes the same rows alone. It is never run; the digest names what it would compute.
        images_per_pass: as of the :class:`~finetune.features.extract.Extractor` of the pass.
    """

    prefix: nn.Module
    spec: RowSpec
    images_per_pass: int

    def digest(self) -> str:
        """As of an extractor with this prefix."""
        return prefix_digest(self.prefix, self.images_per_pass)


class JoinedDepths(nn.Module):
    """Computes the features after several layers beside each other: (N, D), D the sum of their lengths."""

    def __init__(self, extract: DepthExtractor) -> None:
        super().__init__()
        self._extract = extract

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self._extract(images), 1)


class MirroredDepths(nn.Module):
    """Computes features after several layers as :class:`JoinedDepths`, the mean of image and mirror image.

    Attributes:
        code: the operations, by which features are cached.
    """

    def __init__(self, extract: DepthExtractor) -> None:
        super().__init__()
        self._extract = JoinedDepths(extract)
        self.code = f"{extract.code}\nmean of image and mirror image"

    def forward(self, images: Tensor) -> Tensor:
        mean: Tensor = (self._extract(images) + self._extract(images.flip(-1))) / 2
        return mean


def prefixes_of(module: nn.Module, table: LayerTable, extract: DepthExtractor) -> list[nn.Module | None]:
    """Return, for each layer of ``extract``, the prefix of a network that is cut there.

    None where that network computes other operations: where it folds a BatchNorm into the convolution before
    it, and ``extract`` cuts between the two.
    """
    found: list[nn.Module | None] = []
    whole = [fold_batchnorm(each) for each in prefix_graphs(module, table, extract.ks)]
    for prefix, axes, done in zip(whole, extract.pools, extract.operations, strict=True):
        same = operations(prefix) == done
        pooled = nn.Sequential(prefix, Pool(axes)) if axes else prefix
        found.append(pooled if same else None)
    return found


class JointStore:
    """Several stores as one, whose rows are their rows beside each other. A row that one lacks is missing."""

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self.stores = stores
        self._columns = list(pairwise(accumulate((each.spec.shape[0] for each in stores), initial=0)))
        self._located: list[bytes] = []

    def __contains__(self, identity: bytes) -> bool:
        return all(identity in store for store in self.stores)

    def add(self, identities: Sequence[bytes], rows: Tensor) -> None:
        """Store ``rows`` (N, D), each part where it is missing."""
        for store, (start, stop) in zip(self.stores, self._columns, strict=True):
            new = [place for place, identity in enumerate(identities) if identity not in store]
            if new:
                store.add([identities[place] for place in new], rows[new, start:stop])

    def flush(self) -> None:
        for store in self.stores:
            store.flush()

    def locate(self, identities: Sequence[bytes]) -> Places:
        first = len(self._located)
        self._located.extend(identities)
        return np.array([(first + place, 0) for place in range(len(identities))], np.int64).reshape(-1, 2)

    def read(self, places: Places) -> Tensor:
        identities = [self._located[place] for place, _ in places.tolist()]
        return torch.cat([store.read(store.locate(identities)) for store in self.stores], 1)
