"""Which files are images: by their names where those say it, else by their first bytes.

Cameras, phones and downloads leave images without an extension (``IMG_0001``) or with one that nobody else
knows (``photo.jpg_large``). A name that says what a file is costs nothing, so only the others are opened.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from finetune.disk.regular import open_regular

# Looked at by folder scans only: a file that is named outright is read whatever its name ends in.
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".webp", ".avif", ".heic", ".heif"}
    | {".tif", ".tiff", ".bmp", ".dib", ".pbm", ".pgm", ".pnm", ".ppm", ".jp2", ".j2k", ".jpx"}
    | {".pcx", ".qoi", ".tga"}
)
# What is no image, or none of its own: notes, tables and labels beside images, videos, archives,
# programs; backups and halves of images, which would be copies; a camera's raw data, which begins like a
# TIFF file and mostly lies beside its JPEG; slides and layered files. These files are never opened.
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
# How programs call the file that they changed: exiftool, editors.
BACKUPS = ("~", "_original")
HEAD_BYTES = 32
BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"qoif"),
    # TIFF and BigTIFF; JPEG 2000 in its box and bare.
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
SKIPPED_FILES = "files that are no images were passed over"
LOOSE_IMAGES = "images outside of the class folders were left out"
KINDS_SHOWN = 5


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image, as far as its name and, where that says nothing, its first bytes tell."""
    name = os.path.basename(path)  # noqa: PTH119  (a Path takes longer than all the rest)
    if is_image_name(name):
        return True
    _, dot, extension = name.rpartition(".")
    if (dot and dot + extension.lower() in OTHER_EXTENSIONS) or name.lower().endswith(BACKUPS):
        return False
    return has_image_signature(_head(path))


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image's."""
    _, dot, extension = name.rpartition(".")
    return dot + extension.lower() in IMAGE_EXTENSIONS


def is_array_name(name: str) -> bool:
    """Whether a file name ends like a NumPy array's: an image where there are no others, and only there."""
    return name.lower().endswith(".npy")


def has_image_signature(head: bytes) -> bool:
    """Whether the first :data:`HEAD_BYTES` of a file are those of a format that images are kept in."""
    if head.startswith(BEGINNINGS):
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in BRANDS
    if head.startswith(b"BM"):
        return int.from_bytes(head[14:18], "little") in BMP_HEADERS and head[6:10] == bytes(4)
    # Netpbm: P1 to P6, white space, and a size or a comment. Text may begin with P and a digit too.
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() and head[3:4] in b"#0123456789"


def skipped_files_note(name: str, kinds: Mapping[str, int]) -> str:
    """Of files that are no images, anywhere in the folder called ``name``.

    Args:
        kinds: extension -> files; the most frequent ones are named.
    """
    most = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    said = [f"{kind} {kinds[kind]}" for kind in most[:KINDS_SHOWN]]
    if rest := sum(kinds[kind] for kind in most[KINDS_SHOWN:]):
        said.append(f"others {rest}")
    return f"{name}: {SKIPPED_FILES} ({', '.join(said)})"


def loose_images_note(name: str, count: int) -> str:
    """Of images that lie directly in the folder called ``name``, which holds class folders."""
    return f"{name}: {LOOSE_IMAGES} ({count})"


def file_kind(name: str) -> str:
    """Which kind of file a name tells: its extension."""
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if stem and dot and extension else "no extension"


def _head(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a regular file, without waiting for anything; nothing of what cannot be read."""
    try:
        with open_regular(Path(path)) as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""
