"""The images of a split as points in the plane, by their features, before and after fine-tuning."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.batches.batch import Batch
from finetune.data.holdout.sample import sample
from finetune.data.same_content import same_content
from finetune.errors import RunDirError
from finetune.explain.features.nearest import nearest
from finetune.explain.features.split_features import Features, SplitFeatures, at_start, features_of_images
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.trained import Trained

log = logging.getLogger("finetune")

# Points on a map; of a larger split, a sample is drawn.
MOST_POINTS = 2_000
# Principal components that t-SNE starts from, as in van der Maaten and Hinton 2008, who take 30.
COMPONENTS = 50
PERPLEXITY = 30.0
# Fewer different images have no neighbourhoods to keep.
FEWEST = 8

Points = NDArray[np.float64]
Watch = Callable[[Iterable[Batch]], Iterable[Batch]]


@dataclass(frozen=True)
class Plane:
    """The images in the plane by the features of one network.

    Attributes:
        title: "before fine-tuning" or "after fine-tuning".
        pca: (N, 2), the first two principal components, scaled to 0..1.
        tsne: (N, 2), t-SNE, scaled to 0..1.
        variance: the shares of the variance along the two principal components.
        agreement: the share of the images whose most similar other image has the same label.
    """

    title: str
    pca: Points
    tsne: Points
    variance: tuple[float, float]
    agreement: float


@dataclass(frozen=True)
class FeatureMap:
    """The images of a split, as points.

    Attributes:
        split: its name.
        classes: class names.
        features: of the trained network: names, labels and predictions of the N images.
        planes: before (where the start can be rebuilt) and after fine-tuning.
        total: images of the split, of which these may be a sample.
        bands: as images are read; see :meth:`Split.image`.
        missing: why there is no plane before fine-tuning; else None.
    """

    split: str
    classes: tuple[str, ...]
    features: SplitFeatures
    planes: tuple[Plane, ...]
    total: int
    bands: int | None = None
    missing: str | None = None

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(N,), whether the prediction is not the label."""
        wrong: NDArray[np.bool_] = self.features.predicted != self.features.targets
        return wrong

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: per image its path, label, prediction, and places before and after."""
        names, targets, predicted = self.features.names, self.features.targets, self.features.predicted
        return {
            "split": self.split,
            "n": len(names),
            "total": self.total,
            "same_label": {plane.title.split()[0]: plane.agreement for plane in self.planes},
            "images": [
                {"path": name, "label": self.classes[targets[row]], "class": self.classes[predicted[row]]}
                | {
                    plane.title.split()[0]: {"tsne": plane.tsne[row].tolist(), "pca": plane.pca[row].tolist()}
                    for plane in self.planes
                }
                for row, name in enumerate(names)
            ],
        }


def map_of_run(trained: Trained, split: str | None = None, watch: Watch = iter) -> FeatureMap:
    """Lay out the images of a split of a run by the features before the last layer.

    Of a split with more than 2,000 images, a sample of that size is taken: stratified by class, and drawn
    with the run's seed.

    Args:
        split: train, val or test; None: test, or val if there is no test split.
        watch: wraps the batches of both passes, for example to show progress.

    Raises:
        DataError: there is no such split, or its images are not found.
    """
    own = images_to_evaluate(trained, split)
    for warning in own.warnings:
        log.warning("%s", warning)
    images = own.images.subset(sample(own.images.targets, MOST_POINTS, trained.recipe.seed))
    after = features_of_images(trained, images, watch=watch)
    same = same_content(images, after.indices)
    states, missing = [("after fine-tuning", after)], None
    try:
        states.insert(0, ("before fine-tuning", features_of_images(at_start(trained), images, watch=watch)))
    except RunDirError as error:
        missing = str(error)
    planes = tuple(lay_out(title, each.features, after.targets, same) for title, each in states)
    bands = trained.card.preprocessing.bands
    return FeatureMap(own.name, trained.card.classes, after, planes, len(own.images), bands, missing)


def lay_out(title: str, features: Features, targets: NDArray[np.int64], same: NDArray[np.int64]) -> Plane:
    """Lay out images by their features.

    Args:
        features: (N, D).
        targets: (N,), the labels.
        same: (N,), from :func:`~finetune.data.same_content.same_content`. One number is one point.
    """
    first, back = np.unique(same, return_inverse=True)
    rows = features[first].astype(np.float64)
    # On several threads, sums have another order each time.
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        components, shares = _principal(rows)
        embedded = _tsne(components)
    variance = (float(shares[0]), float(shares[1]))
    return Plane(
        title,
        _scaled(components[:, :2])[back],
        _scaled(embedded)[back],
        variance,
        _agreement(features, targets, same),
    )


def _principal(rows: Points) -> tuple[Points, Points]:
    """The first principal components of rows, at least two, and their shares of the variance."""
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, *rows.shape)
    if not np.ptp(rows, axis=0).any():
        return np.zeros((len(rows), 2)), np.zeros(2)
    model = PCA(count, svd_solver="full")
    found, shares = model.fit_transform(rows), model.explained_variance_ratio_
    if count < 2:
        return np.pad(found, ((0, 0), (0, 1))), np.pad(shares, (0, 1))
    return found, shares


def _tsne(components: Points) -> Points:
    """Embed by t-SNE (van der Maaten and Hinton 2008), which keeps neighbours together."""
    from sklearn.manifold import TSNE

    if len(components) < FEWEST or not np.ptp(components, axis=0).any():
        return components[:, :2]
    perplexity = min(PERPLEXITY, (len(components) - 1) / 3)
    # It starts from the principal components, so that the seed hardly matters.
    found: Any = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(components)
    return np.asarray(found, dtype=np.float64)


def _scaled(points: Points) -> Points:
    """Scale points to 0..1 with one scale for both axes, rounded to four digits."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = float((high - low).max()) or 1.0
    scaled: Points = np.round((points - (low + high) / 2) / side + 0.5, 4)
    return scaled


def _agreement(features: Features, targets: NDArray[np.int64], same: NDArray[np.int64]) -> float:
    """The share of different images whose most similar other one has the same label."""
    first = np.unique(same)
    if len(first) < 2:
        return 1.0
    rows, labels = features[first], targets[first]
    places, _ = nearest(rows, rows, 2)
    own = np.arange(len(first))
    other = np.where(places[:, 0] == own, places[:, 1], places[:, 0])
    return float((labels[other] == labels).mean())
