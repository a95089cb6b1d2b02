"""The kinds of findings, and a finding."""

from dataclasses import dataclass
from typing import Any

# Each kind and its meaning. The report has this order: the most harmful first.
KINDS = {
    "unusable": "training refuses the data",
    "missing-file": "a table row whose image does not exist",
    "faulty-row": "a table row with missing or contradictory values",
    "empty-file": "a file of 0 bytes",
    "truncated": "an image file that ends too early",
    "unreadable": "a file that cannot be read as an image",
    "leakage": "the same image in two of train, val and test",
    "contradiction": "the same image in two classes",
    "class-names": "class names that differ only in case, spaces or Unicode form",
    "missing-class": "a class without images in a split",
    "too-few": "too few images to train on, or to evaluate on",
    "duplicate": "byte-identical files",
    "near-duplicate": "a copy of an image: resized, recompressed, cropped, brighter or mirrored",
    "doubtful-label": "an image that looks like another class than its label (--labels)",
    "lookalike-classes": "class names that are nearly the same: a plural, a misspelling",
    "imbalance": "a class many times larger than another",
    "mislabelled": "a file whose content does not match its extension",
    "partly-read": "a file with more bands, bits or frames than training reads",
    "stray-folder": "a folder that is hidden or left behind by a tool, and is not a class",
    "stray-file": "a file among the images that does not belong to the data set",
    "empty-folder": "a folder without files",
    "exif-rotated": "an image that is stored rotated, with an EXIF orientation",
    "upright": "an image that is stored upright, among rotated ones",
    "grey": "grey images among colour ones",
    "colour": "colour images among grey ones",
    "alpha": "images with transparency among opaque ones",
    "opaque": "opaque images among images with transparency",
    "small": "images with few pixels",
    "elongated": "images with an extreme aspect ratio",
}


@dataclass(frozen=True)
class Doubt:
    """A label that may be wrong, by the names of the classes.

    Attributes:
        label: the class that the image has.
        suggested: the class that it looks like.
        probability: of ``label``, 0 to 1, by a classifier that did not see the image.
        suggested_probability: of ``suggested``.
        is_sure: whether the image looks confidently like ``suggested``.
    """

    label: str
    suggested: str
    probability: float
    suggested_probability: float
    is_sure: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "label": self.label,
            "suggested": self.suggested,
            "probability": self.probability,
            "suggested_probability": self.suggested_probability,
            "sure": self.is_sure,
        }


@dataclass(frozen=True)
class Finding:
    """A problem or remark: its kind (from ``KINDS``), the files concerned, and a message about them.

    ``files`` is empty if the finding is about classes, or about a large share of the images. A doubtful label
    has its numbers in ``doubt``.
    """

    kind: str
    files: tuple[str, ...]
    message: str
    doubt: Doubt | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of finding: {self.kind}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = {"kind": self.kind, "files": list(self.files), "message": self.message}
        return found if self.doubt is None else found | self.doubt.to_dict()


def sort_findings(findings: list[Finding]) -> list[Finding]:
    """Sort by harm, the most harmful first; findings of one kind stay in order."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: rank[finding.kind])
