"""Many kinds of image files: train, eval, predict and the exported model agree on each."""

import csv
import functools
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.dataset import Split
from finetune.data.images import FileImages
from finetune.image.decode import open_rgb
from finetune.image.preprocessing import Preprocessing

Made = Callable[[], bytes]


def smooth(width: int = 48, height: int = 32) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(smooth(), "JPEG", exif=exif)


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def sixteen_bits() -> bytes:
    values = np.linspace(0, 65535, 32 * 48).reshape(32, 48).astype(np.uint16)
    return encoded(Image.fromarray(values), "PNG")


def palette_with_alpha() -> bytes:
    image = smooth().quantize(64)
    return encoded(image, "PNG", transparency=bytes(range(64)))


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def damaged_png() -> bytes:
    data = bytearray(encoded(smooth(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


GOOD: dict[str, Made] = {
    "rgb.jpg": lambda: encoded(smooth(), "JPEG"),
    "progressive.jpg": lambda: encoded(smooth(), "JPEG", progressive=True),
    "cmyk.jpg": lambda: encoded(smooth().convert("CMYK"), "JPEG"),
    "grey.jpg": lambda: encoded(smooth().convert("L"), "JPEG"),
    "one bit.png": lambda: encoded(smooth().convert("1"), "PNG"),
    "sixteen bits.png": sixteen_bits,
    "palette.png": lambda: encoded(smooth().quantize(32), "PNG"),
    "palette with alpha.png": palette_with_alpha,
    "rgba.png": lambda: encoded(smooth().convert("RGBA"), "PNG"),
    "grey with alpha.png": lambda: encoded(smooth().convert("LA"), "PNG"),
    "cmyk.tif": lambda: encoded(smooth().convert("CMYK"), "TIFF"),
    "lab.tif": lambda: encoded(Image.new("LAB", (30, 20), (120, 140, 90)), "TIFF"),
    "float.tif": lambda: encoded(Image.new("F", (30, 20), 0.5), "TIFF"),
    "plain.bmp": lambda: encoded(smooth(), "BMP"),
    "plain.webp": lambda: encoded(smooth(), "WEBP"),
    "plain.ppm": lambda: encoded(smooth(), "PPM"),
    "animated.gif": lambda: animated("GIF"),
    "animated.webp": lambda: animated("WEBP"),
    "animated.png": lambda: animated("PNG"),
    "a png.jpg": lambda: encoded(smooth(), "PNG"),
    "a jpeg.png": lambda: encoded(smooth(), "JPEG"),
    "LOUD.JPG": lambda: encoded(smooth(), "JPEG"),
    "one pixel.png": lambda: encoded(smooth(1, 1), "PNG"),
    "1 x 10000.png": lambda: encoded(smooth(1, 10_000), "PNG"),
    "10000 x 1.png": lambda: encoded(smooth(10_000, 1), "PNG"),
    "huge.png": lambda: encoded(Image.new("L", (6_000, 4_000), 99), "PNG"),
    "two\nlines.png": lambda: encoded(smooth(), "PNG"),
    "ünïcödé ☃.png": lambda: encoded(smooth(), "PNG"),
    "-rf.png": lambda: encoded(smooth(), "PNG"),
    "n" * 251 + ".png": lambda: encoded(smooth(), "PNG"),
    **{f"turned {n}.jpg": functools.partial(turned, n) for n in range(1, 9)},
}
BAD: dict[str, tuple[Made, str]] = {
    "empty.jpg": (lambda: b"", "empty file"),
    "text.jpg": (lambda: b"a note about cats\n" * 9, "a text file"),
    "page.png": (lambda: b"<!DOCTYPE html><html>404</html>", "a text file"),
    "cut.jpg": (lambda: encoded(smooth(), "JPEG")[:-200], "truncated"),
    "cut.png": (lambda: encoded(smooth(), "PNG")[:-40], "truncated"),
    "cut.gif": (lambda: animated("GIF")[:60], ""),
    "damaged.png": (damaged_png, "damaged"),
    "zeros.jpg": (lambda: b"\0" * 4000, "not an image"),
    "bomb.png": (lambda: bomb(60_000), "pixels"),
    "larger bomb.png": (lambda: bomb(2_000_000_000), "pixels"),
    "strip.png": (lambda: encoded(Image.new("1", (200_000, 1)), "PNG"), "too elongated"),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "drawing.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%EndComments\nshowpage\n", "PostScript"),
    "loop.jpg": (lambda: b"", "link to itself"),
    "broken link.jpg": (lambda: b"", "no such file"),
    "pipe.jpg": (lambda: b"", "not a regular file"),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo") / "zoo"
    for split in ("train", "val", "test"):
        for name in ("odd", "plain"):
            (root / split / name).mkdir(parents=True)
            for index in range(4):
                colour = (60 * index, 90, 20 + 200 * (name == "odd"))
                Image.new("RGB", (40, 40), colour).save(root / split / name / f"{index}.png")
        if split == "val":
            continue
        odd = root / split / "odd"
        for name, made in GOOD.items():
            (odd / name).write_bytes(made())
        for name, (made, _) in BAD.items():
            (odd / name).write_bytes(made())
        for name in ("loop.jpg", "broken link.jpg", "pipe.jpg"):
            (odd / name).unlink()
        (odd / "loop.jpg").symlink_to("loop.jpg")
        (odd / "broken link.jpg").symlink_to("nowhere.jpg")
        os.mkfifo(odd / "pipe.jpg")
        (odd / "round").symlink_to("..")
    return root


def untouched(root: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.lstat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def recipe(zoo: Path, policy: str) -> str:
    return f"""\
data: {{source: {zoo}, image_size: 32, resize: 36, workers: 0, on_bad_image: {policy}}}
model: {{backbone: shufflenet_v2_x0_5, weights: none}}
train: {{batch_size: 16, phases: [{{freeze: none, epochs: 2, lr: 1e-3}}]}}
"""


def test_the_zoo_is_large_enough() -> None:
    assert len(GOOD) + len(BAD) >= 40


def test_train_eval_predict_and_the_exported_model_agree(zoo: Path, cli: Any, chdir_tmp: Path) -> None:
    pytest.importorskip("onnxruntime")
    before = untouched(zoo)
    Path("strict.yaml").write_text(recipe(zoo, "error"))
    ended = cli("train", "strict.yaml", "--device", "cpu")
    assert ended.code == 2
    assert any(f"odd/{name}: " in ended.err for name in BAD)
    Path("zoo.yaml").write_text(recipe(zoo, "skip"))
    ended = cli("train", "zoo.yaml", "--device", "cpu")
    assert ended.code == 0, ended.err
    for split in ("train", "test"):
        for name, (_, reason) in BAD.items():
            lines = [line for line in ended.err.splitlines() if f"/{split}/odd/{name}: " in line]
            assert len(lines) == 1, name
            assert reason in lines[0]
    ended = cli("eval", "runs/zoo", "--json", "--predictions", "eval.csv")
    assert ended.code == 0, ended.err
    skipped = {Path(each["path"]).name: each["reason"] for each in json.loads(ended.out)["skipped"]}
    assert skipped.keys() == BAD.keys()
    with Path("eval.csv").open(newline="") as file:
        evaluated = {row["path"]: row for row in csv.DictReader(file)}
    assert len(evaluated) == len(GOOD) + 8
    assert cli("export", "runs/zoo", "--format", "onnx").code == 0
    # Exactly the same pixels, too, in the transform that eval and val go through.
    preprocessing = Preprocessing.from_dict(
        json.loads(Path("runs/zoo/checkpoints/best/card.json").read_text())["preprocessing"]
    )
    for model in ("runs/zoo", "runs/zoo/export/model.onnx"):
        ended = cli("predict", model, zoo / "test", "--jsonl")
        assert ended.code == 1
        lines = [json.loads(line) for line in ended.out.splitlines()]
        predicted = {line["path"]: line for line in lines if "class" in line}
        refused = {Path(line["path"]).name: line["error"] for line in lines if "error" in line}
        assert refused == skipped
        assert predicted.keys() == evaluated.keys()
        for path, line in predicted.items():
            row = evaluated[path]
            assert line["class"] == row["predicted"]
            assert line["probability"] == pytest.approx(float(row["probability"]), abs=1e-4)
    paths = [zoo / "test" / "odd" / name for name in GOOD]
    odd = Split(FileImages(paths), np.zeros(len(paths), dtype=np.int64))
    batches = eval_batches(odd, preprocessing, ReadOptions(8))
    for path, image in zip(paths, (image for batch in batches for image in batch.images), strict=True):
        np.testing.assert_array_equal(image.numpy(), preprocessing(open_rgb(path)))
    assert untouched(zoo) == before
