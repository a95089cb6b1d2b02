"""Known sets: digits, hotdog (downloaded from a local server) and drawn images."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from finetune.data.cache.contents import cache_folder
from finetune.data.sources.named.drawn import draw_source
from finetune.data.sources.named.known import HOTDOG_SHA1, HOTDOG_URL, read_hotdog
from finetune.data.sources.read import read_source
from finetune.errors import DataError
from finetune.recipe.catalog import KNOWN_SETS


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hotdog_zip() -> bytes:
    """An archive with the layout of the published one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for split in ("train", "test"):
            for name in ("hotdog", "not-hotdog"):
                for number in range(2):
                    image = io.BytesIO()
                    Image.new("RGB", (6, 5), (number, 90, 0)).save(image, "PNG")
                    archive.writestr(f"hotdog/{split}/{name}/{number}.png", image.getvalue())
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path: Path, hotdog_zip: bytes) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "hotdog.zip").write_bytes(hotdog_zip)
    made = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}/hotdog.zip"
    made.shutdown()
    made.server_close()
    thread.join()


def test_digits_are_those_of_scikit_learn() -> None:
    source = read_source("digits")
    split = source.splits["all"]
    bunch = load_digits()
    assert source.classes == tuple("0123456789")
    assert len(split) == 1797
    np.testing.assert_array_equal(split.targets, bunch.target)
    for index in (0, 1796):
        pixels = np.asarray(split.open(index))
        assert pixels.shape == (8, 8, 3)
        np.testing.assert_array_equal(pixels[..., 1], np.rint(bunch.images[index] * 255 / 16))


def test_hotdog_is_downloaded_once(server: str, hotdog_zip: bytes) -> None:
    sha1 = hashlib.sha1(hotdog_zip).hexdigest()
    for _ in range(2):
        source = read_hotdog(url=server, sha1=sha1, schemes=("http",))
        assert (source.name, source.classes) == ("hotdog", ("hotdog", "not-hotdog"))
        assert {name: len(split) for name, split in source.splits.items()} == {"train": 4, "test": 4}
        server = "http://127.0.0.1:9/gone"
    assert sorted(path.name for path in cache_folder().iterdir()) == [
        "hotdog",
        "hotdog.zip",
        "hotdog.zip.lock",
    ]


def test_an_archive_that_the_user_provides_is_unpacked(hotdog_zip: bytes) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "hotdog.zip").write_bytes(hotdog_zip)
    source = read_hotdog(url="http://127.0.0.1:9/gone", sha1=hashlib.sha1(hotdog_zip).hexdigest())
    assert len(source.splits["train"]) == 4


def test_a_wrong_archive_that_the_user_provides_is_an_error(hotdog_zip: bytes) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "hotdog.zip").write_bytes(hotdog_zip)
    with pytest.raises(DataError, match=HOTDOG_SHA1):
        read_source("hotdog")
    assert (cache_folder() / "hotdog.zip").read_bytes() == hotdog_zip


def test_the_offline_error_says_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.data.sources.named.download.time.sleep", lambda _: None)
    with pytest.raises(DataError) as caught:
        read_source("hotdog")
    message = str(caught.value)
    assert HOTDOG_URL in message
    assert HOTDOG_SHA1 in message
    assert str(cache_folder() / "hotdog.zip") in message
    assert "FINETUNE_CACHE" in message


def test_the_address_is_https_and_has_a_checksum() -> None:
    assert HOTDOG_URL.startswith("https://")
    assert len(HOTDOG_SHA1) == 40


def test_the_location_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("FINETUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared/cache")
    assert cache_folder() == Path("/shared/cache/finetune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "finetune"


@pytest.mark.parametrize("name", [name for name in KNOWN_SETS if name != "hotdog"])
def test_all_known_names_are_read(name: str) -> None:
    assert len(read_source(name).classes) >= 2


def test_drawn_images() -> None:
    source = draw_source(num_classes=5, per_class=6, size=32)
    assert {name: split.class_counts(5).tolist() for name, split in source.splits.items()} == {
        "train": [6] * 5,
        "val": [3] * 5,
        "test": [3] * 5,
    }
    image = source.splits["train"].open(7)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    again = draw_source(num_classes=5, per_class=6, size=32).splits["train"]
    assert again.open(7).tobytes() == image.tobytes()
    assert draw_source(5, 6, 32, seed=1).splits["train"].open(7).tobytes() != image.tobytes()
    all_pixels = {split.open(i).tobytes() for split in source.splits.values() for i in range(len(split))}
    assert len(all_pixels) == 60
