"""Cached features: batches of features in place of the images of a split."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from finetune.data.batches.batch import Batch
from finetune.data.batches.changed_files import FileChanges
from finetune.data.batches.loaders import read_draws
from finetune.data.batches.options import OnBadImage, ReadOptions
from finetune.data.batches.sampling import Draw
from finetune.data.dataset import Split
from finetune.data.processes.pool import Check, do_nothing
from finetune.errors import BadImageError, DataError, printable
from finetune.features.extract import Extractor, RowSpec
from finetune.features.progress import OnProgress, no_progress
from finetune.features.store import Places
from finetune.image.transforms import Transform


class Store(Protocol):
    """What :class:`CachedFeatures` needs of a :class:`~finetune.features.store.FeatureStore`."""

    def __contains__(self, identity: bytes) -> bool: ...

    def add(self, identities: Sequence[bytes], rows: Tensor) -> None: ...

    def flush(self) -> None: ...

    def locate(self, identities: Sequence[bytes]) -> Places: ...

    def read(self, places: Places) -> Tensor: ...


class CachedFeatures:
    """The features of a split's images, from a store that :meth:`fill` fills before the first batch.

    The identity of a row is the SHA-256 of the image's contents and, with augmentation, of the key of the
    view. A changed file is therefore another image, and splits and runs share the rows of images they share.

    Args:
        plain: without augmentation, when all views of an image are the same.
    """

    def __init__(
        self,
        store: Store,
        extract: Extractor,
        split: Split,
        transform: Transform,
        *,
        plain: bool,
    ) -> None:
        self._store = store
        self._extract = extract
        self._split = split
        self._transform = transform
        self._plain = plain
        self._spec = extract.spec
        self._identities: dict[Draw, bytes] = {}
        self._places: dict[Draw, tuple[int, int]] = {}
        self._bad: dict[int, BadImageError] = {}

    def fill(
        self,
        draws: Iterable[Draw],
        *,
        workers: int = 0,
        on_bad_image: OnBadImage = "error",
        check: Check = do_nothing,
        progress: OnProgress = no_progress,
    ) -> int:
        """Make sure the store has a row for each of ``draws``; missing rows are computed in that order.

        Args:
            check: called before each batch and while waiting for one. It may raise to stop; rows computed
                until then stay in the store.
            progress: called with the number of missing images done, and their total.

        Returns:
            The number of rows computed.

        Raises:
            BadImageError: an image cannot be read and ``on_bad_image`` is error.
            DataError: no image can be read, or an image file is replaced while its features are computed.
        """
        views = list(dict.fromkeys(self._view(draw) for draw in draws))
        changes = FileChanges(self._split)
        digests = self._digests(views, on_bad_image)
        identities = {view: self._identity(digests[view[0]], view[1]) for view in views if view[0] in digests}
        # Images with the same contents share a row.
        distinct = {identities[view]: view for view in reversed(identities)}
        missing = [view for identity, view in reversed(distinct.items()) if identity not in self._store]
        left: dict[int, list[bytes]] = {}
        for view in missing:
            left.setdefault(view[0], []).append(identities[view])
        done = 0
        size = self._extract.images_per_pass
        batches = read_draws(
            self._split,
            self._transform,
            missing,
            ReadOptions(size if size > 1 else 16, workers, on_bad_image),
            check=check,
        )
        try:
            for batch in batches if missing else ():
                check()
                self._bad.update(zip(self._bad_indices(batch, missing, done), batch.bad, strict=True))
                if batch.indices:
                    self._refuse_replaced(changes.changed(batch.indices), digests)
                    self._store.add(
                        [left[index].pop(0) for index in batch.indices], self._extract(batch.images)
                    )
                done += len(batch.indices) + len(batch.bad)
                progress(done, len(missing))
        finally:
            self._store.flush()
        self._identities.update(identities)
        self._locate(identities)
        if views and not self._places:
            first = next(iter(self._bad.values()))
            raise DataError(f"none of the {len(self._split)} images can be read; the first: {first}")
        return done - sum(view[0] in self._bad for view in missing)

    def of_store(self, store: Store, spec: RowSpec) -> "CachedFeatures":
        """The same images, with their rows in another store, which has them all."""
        other = CachedFeatures(store, self._extract, self._split, self._transform, plain=self._plain)
        other._spec, other._bad = spec, self._bad
        other._locate(self._identities)
        return other

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Return features in place of images; :attr:`Batch.bad` has the images that could not be read."""
        views = [self._view(draw) for draw in draws]
        good = [view for view in views if view in self._places]
        rows = self._store.read(np.array([self._places[view] for view in good], np.int64).reshape(-1, 2))
        indices = tuple(index for index, _ in good)
        labels = torch.from_numpy(self._split.targets[np.asarray(indices, dtype=np.int64)])
        bad = tuple(self._bad[index] for index, _ in views if index in self._bad)
        return Batch(self._spec.features(rows), labels, labels, indices, bad)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all images of the split in order, without augmentation."""
        count = len(self._split)
        for start in range(0, count, batch_size):
            yield self.batch([(index, 0) for index in range(start, min(start + batch_size, count))])

    def _locate(self, identities: dict[Draw, bytes]) -> None:
        found = [view for view, identity in identities.items() if identity in self._store]
        places = self._store.locate([identities[view] for view in found])
        self._places.update(zip(found, map(tuple, places.tolist()), strict=True))

    def _view(self, draw: Draw) -> Draw:
        return (draw[0], 0) if self._plain else draw

    def _identity(self, digest: bytes, key: int) -> bytes:
        if self._plain:
            return hashlib.sha256(digest).digest()
        return hashlib.sha256(digest + key.to_bytes(8, "little")).digest()

    def _digests(self, views: Sequence[Draw], on_bad_image: OnBadImage) -> dict[int, bytes]:
        """Hash the contents of each image that can be read."""
        digests: dict[int, bytes] = {}
        for index in dict.fromkeys(index for index, _ in views):
            try:
                digests[index] = self._split.digest(index)
            except BadImageError as error:
                if on_bad_image == "error":
                    raise
                self._bad[index] = error
        return digests

    def _refuse_replaced(self, changed: Iterable[int], digests: dict[int, bytes]) -> None:
        for index in changed:
            if self._split.digest(index) != digests[index]:
                # Its row would be stored under the old contents, and other runs would use it.
                raise DataError(
                    f"{printable(self._split.name(index))}: was replaced while its features were computed. "
                    "Start again once nothing writes there"
                )

    @staticmethod
    def _bad_indices(batch: Batch, missing: Sequence[Draw], done: int) -> list[int]:
        """Return the requested images of ``batch`` that are not among its indices."""
        asked = [index for index, _ in missing[done : done + len(batch.indices) + len(batch.bad)]]
        left = list(batch.indices)
        bad = []
        for index in asked:
            if left and left[0] == index:
                left.pop(0)
            else:
                bad.append(index)
        return bad
