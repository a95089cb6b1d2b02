"""The looks that a split's images have, each with its features."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from finetune.data.batches.batch import Batch
from finetune.data.batches.changed import Changes
from finetune.data.batches.loaders import read_draws
from finetune.data.batches.reading import Draw, OnBadImage
from finetune.data.processes import nothing
from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError, DataError, printable
from finetune.features.extract import Extractor
from finetune.features.store import FeatureStore
from finetune.image.transforms import Transform


class CachedFeatures:
    """Batches of features of a split's images, from a store that is filled before the first batch.

    A row goes by the SHA-256 of its image's contents and, where images are augmented, the key of the
    look: a file that changes is another image, and splits and runs share what they have in common.

    Args:
        plain: every look of an image is the same (no augmentation), whatever its key.
    """

    def __init__(
        self,
        store: FeatureStore,
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
        self._places: dict[Draw, tuple[int, int]] = {}
        self._bad: dict[int, BadImageError] = {}

    def fill(
        self,
        draws: Iterable[Draw],
        *,
        workers: int = 0,
        on_bad_image: OnBadImage = "error",
        watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
        check: Callable[[], None] = nothing,
        tell: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Have a row for each of ``draws``: those that are not in the store are computed, in that order.

        Args:
            watch: passes batches on, and may stop by raising; what was computed until then is kept.
            check: is called while a batch is waited for, and may stop in the same way.
            tell: gets the number of images done, and of all that are to be.

        Returns:
            How many were computed.

        Raises:
            BadImageError: an image cannot be read and ``on_bad_image`` is error.
            DataError: not one can be read, or one is replaced meanwhile by another image.
        """
        wanted = list(dict.fromkeys(self._look(draw) for draw in draws))
        changes = Changes(self._split)
        digests: dict[int, bytes] = {}
        for index in dict.fromkeys(index for index, _ in wanted):
            try:
                digests[index] = self._split.digest(index)
            except BadImageError as error:
                if on_bad_image == "error":
                    raise
                self._bad[index] = error
        readable = [look for look in wanted if look[0] in digests]
        identity = {look: self._identity(digests[look[0]], look[1]) for look in readable}
        # One of each: images with the same contents share a row.
        missing = list({identity[look]: look for look in reversed(readable)}.values())[::-1]
        missing = [look for look in missing if identity[look] not in self._store]
        done = 0
        keys = dict[int, list[bytes]]()
        for look in missing:
            keys.setdefault(look[0], []).append(identity[look])
        batches = read_draws(
            self._split,
            self._transform,
            missing,
            batch_size=self._extract.together if self._extract.together > 1 else 16,
            workers=workers,
            on_bad_image=on_bad_image,
            check=check,
        )
        try:
            for batch in watch(batches) if missing else ():
                self._bad.update(zip(self._bad_places(batch, missing, done), batch.bad, strict=True))
                if batch.indices:
                    for index in changes.among(batch.indices):
                        if self._split.digest(index) != digests[index]:
                            # A row under its former contents would be found, and believed, by other runs.
                            raise DataError(
                                f"{printable(self._split.name(index))}: was replaced while its features were "
                                "computed. Start again once nothing writes there"
                            )
                    names = [keys[index].pop(0) for index in batch.indices]
                    self._store.add(names, self._extract(batch.images))
                done += len(batch.indices) + len(batch.bad)
                tell(done, len(missing))
        finally:
            self._store.flush()
        found = [look for look in readable if identity[look] in self._store]
        places = self._store.locate([identity[look] for look in found])
        self._places.update(zip(found, map(tuple, places.tolist()), strict=True))
        if wanted and not self._places:
            first = next(iter(self._bad.values()))
            raise DataError(f"none of the {len(self._split)} images can be read; the first: {first}")
        return done - sum(look[0] in self._bad for look in missing)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Features in place of images; what could not be read is in :attr:`Batch.bad`."""
        looks = [self._look(draw) for draw in draws]
        good = [look for look in looks if look in self._places]
        rows = self._store.read(np.array([self._places[look] for look in good], np.int64).reshape(-1, 2))
        indices = tuple(index for index, _ in good)
        labels = torch.from_numpy(self._split.targets[np.asarray(indices, dtype=np.int64)])
        bad = tuple(self._bad[index] for index, _ in looks if index in self._bad)
        return Batch(self._extract.spec.features(rows), labels, labels, indices, bad)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All images of the split in its order, each in its only look."""
        count = len(self._split)
        for start in range(0, count, batch_size):
            yield self.batch([(index, 0) for index in range(start, min(start + batch_size, count))])

    def _look(self, draw: Draw) -> Draw:
        return (draw[0], 0) if self._plain else draw

    def _identity(self, digest: bytes, key: int) -> bytes:
        if self._plain:
            return hashlib.sha256(digest).digest()
        return hashlib.sha256(digest + key.to_bytes(8, "little")).digest()

    @staticmethod
    def _bad_places(batch: Batch, missing: Sequence[Draw], done: int) -> list[int]:
        """Which of the images of ``batch`` are the bad ones: those that are not among its indices."""
        asked = [index for index, _ in missing[done : done + len(batch.indices) + len(batch.bad)]]
        left = list(batch.indices)
        bad = []
        for index in asked:
            if left and left[0] == index:
                left.pop(0)
            else:
                bad.append(index)
        return bad
