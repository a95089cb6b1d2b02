"""Recognise image files by their extension or else by their first bytes, and report the files skipped.

Some cameras, phones and download tools write images without an extension (``IMG_0001``) or with an unusual
one (``photo.jpg_large``). Only files whose name is not conclusive are opened.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from finetune.disk.regular import open_regular

# Only folder scans use these: a file that the user names is read whatever its extension.
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".webp", ".avif", ".heic", ".heif"}
    | {".tif", ".tiff", ".bmp", ".dib", ".pbm", ".pgm", ".pnm", ".ppm", ".jp2", ".j2k", ".jpx"}
    | {".pcx", ".qoi", ".tga"}
)
# Extensions of files that are skipped without opening them: documents, tables, labels, videos, archives,
# programs; backups and partial downloads, which would be duplicates; camera raw files, which begin like TIFF
# files and usually accompany a JPEG; slides and layered files.
OTHER_EXTENSIONS = frozenset(
    {".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".odt", ".tex", ".html", ".htm", ".url", ".log"}
    | {".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini"}
    | {".cfg", ".db", ".sqlite", ".parquet", ".feather", ".arrow", ".h5", ".hdf5", ".mat", ".pkl", ".pickle"}
    | {".npy", ".npz", ".pt", ".pth", ".onnx", ".safetensors", ".tfrecord", ".lmdb", ".mdb", ".xmp", ".aae"}
    | {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts"}
    | {".mp3", ".m4a", ".wav", ".ogg", ".flac", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
    | {".py", ".ipynb", ".js", ".css", ".sh", ".bat", ".exe", ".dll", ".so", ".c", ".h", ".cpp", ".java"}
    | {".bak", ".old", ".orig", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp"}
    | {".lnk", ".sha1", ".sha256", ".md5", ".eps", ".ps", ".svg", ".ai", ".psd", ".xcf", ".ico", ".icns"}
    | {".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".raf"}
    | {".pef", ".srw", ".x3f", ".3fr", ".iiq", ".rwl", ".svs", ".ndpi", ".scn", ".vms"}
)
# Suffixes of backups that exiftool and editors write.
BACKUPS = ("~", "_original")
HEAD_BYTES = 32
SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"qoif"),
    # TIFF and BigTIFF; JPEG 2000 in its box and bare.
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
SKIPPED_FILES = "skipped files that are not images"
LOOSE_IMAGES = "skipped images outside the class folders"
KINDS_SHOWN = 5


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image by its name or, if that is not conclusive, by its first bytes."""
    name = os.path.basename(path)  # noqa: PTH119  (a Path is slow for a million files)
    if is_image_name(name):
        return True
    _, dot, extension = name.rpartition(".")
    if (dot and dot + extension.lower() in OTHER_EXTENSIONS) or name.lower().endswith(BACKUPS):
        return False
    return has_image_signature(_first_bytes(path))


def is_image_name(name: str) -> bool:
    """Whether a file name has an image extension."""
    _, dot, extension = name.rpartition(".")
    return dot + extension.lower() in IMAGE_EXTENSIONS


def is_array_name(name: str) -> bool:
    """Whether a file name is that of a NumPy array. Arrays count as images only if there are no others."""
    return name.lower().endswith(".npy")


def has_image_signature(head: bytes) -> bool:
    """Whether the first :data:`HEAD_BYTES` of a file begin with the signature of an image format."""
    if head.startswith(SIGNATURES):
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in BRANDS
    if head.startswith(b"BM"):
        return int.from_bytes(head[14:18], "little") in BMP_HEADERS and head[6:10] == bytes(4)
    # Netpbm: P1 to P6, white space, then a size or a comment. Plain text can begin with P and a digit too.
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() and head[3:4] in b"#0123456789"


def skipped_files_note(name: str, kinds: Mapping[str, int]) -> str:
    """A note on the files below the folder ``name`` that are not images.

    Args:
        kinds: file kind -> number of files. The note lists the most frequent kinds.
    """
    most = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    parts = [f"{kind} {kinds[kind]}" for kind in most[:KINDS_SHOWN]]
    if rest := sum(kinds[kind] for kind in most[KINDS_SHOWN:]):
        parts.append(f"others {rest}")
    return f"{name}: {SKIPPED_FILES} ({', '.join(parts)})"


def loose_images_note(name: str, count: int) -> str:
    """A note on images directly in the folder ``name``, beside its class folders."""
    return f"{name}: {LOOSE_IMAGES} ({count})"


def file_kind(name: str) -> str:
    """The extension of a file name in lower case, or ``no extension``."""
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if stem and dot and extension else "no extension"


def _first_bytes(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a regular file; empty if it cannot be read."""
    try:
        with open_regular(Path(path)) as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""
