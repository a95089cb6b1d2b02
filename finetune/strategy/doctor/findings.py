"""What the doctor can find."""

from dataclasses import dataclass
from typing import Any

# Each kind of finding, and what it means. The order is that of the report: what harms most comes first.
KINDS = {
    "unusable": "training refuses the data as it is",
    "missing-file": "a row of a table whose image is not there",
    "faulty-row": "a row of a table that says too little, or what cannot be",
    "empty-file": "a file of 0 bytes",
    "truncated": "an image whose end is missing",
    "unreadable": "a file that cannot be read as an image",
    "leakage": "the same image in train and in val or test, or in val and test",
    "contradiction": "the same image in two classes",
    "class-names": "classes whose names differ in case, spaces or Unicode form only",
    "missing-class": "a class that has no images in one of the splits",
    "too-few": "too few images to train on, or to judge by",
    "duplicate": "files that are byte for byte the same",
    "near-duplicate": "an image that is there again: resized, recompressed, cropped, brighter or mirrored",
    "lookalike-classes": "classes whose names are nearly the same: a plural, a misspelling",
    "imbalance": "a class many times as large as another",
    "mislabelled": "a file that is not what its name ends in",
    "partly-read": "a file with more bands, bits or frames than are read",
    "stray-folder": "a hidden folder, or one that tools leave behind, that no class is made of",
    "stray-file": "a file among the images that is no part of the data set",
    "empty-folder": "a folder without a file",
    "exif-rotated": "an image that is stored turned, with an EXIF entry that says how",
    "upright": "an image that is stored upright, among ones that are stored turned",
    "grey": "grey images among colour ones",
    "colour": "colour images among grey ones",
    "alpha": "images with transparency among opaque ones",
    "opaque": "opaque images among ones with transparency",
    "small": "images of few pixels",
    "elongated": "images many times as long as wide",
}


@dataclass(frozen=True)
class Finding:
    """One fault or remark: its kind (of ``KINDS``), the files that it is about, and what it says of them.

    ``files`` is empty where the finding is about classes, or so many images that it is the set's nature.
    A share is always that of the fewer: where nearly all images are grey, those in colour are found.
    """

    kind: str
    files: tuple[str, ...]
    message: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of finding: {self.kind}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": self.kind, "files": list(self.files), "message": self.message}


def in_order(findings: list[Finding]) -> list[Finding]:
    """What harms most first; within a kind, as found."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: rank[finding.kind])
