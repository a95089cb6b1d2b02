"""Archives are unpacked whole or refused, and nothing is written outside the folder."""

import contextlib
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.sources.named.archives import unpack
from finetune.errors import DataError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("set/", "")
        opened.writestr("set/a/1.txt", "one")
        opened.writestr("set/b/2.txt", "two" * 1000, zipfile.ZIP_DEFLATED)
        opened.writestr("readme.txt", "beside")
    return path


def add(archive: Path, name: str, data: bytes = b"x", kind: int = stat.S_IFREG) -> None:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(info, data)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path) -> str:
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        unpack(archive, archive.parent / "set", member="set")
    assert sorted(archive.parent.rglob("*")) == before
    return str(caught.value)


def test_the_folder_appears_whole(archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "out", member="set")
    assert contents(tmp_path / "out") == {"a/1.txt": "one", "b/2.txt": "two" * 1000}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set.zip"]


def test_an_existing_folder_stays(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    unpack(archive, tmp_path / "set", member="set")
    assert contents(tmp_path / "set") == {}


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("/etc/evil", stat.S_IFREG, "points outside"),
        ("set/../../evil", stat.S_IFREG, "points outside"),
        ("..", stat.S_IFREG, "points outside"),
        ("..\\evil", stat.S_IFREG, "points outside"),
        ("C:/evil", stat.S_IFREG, "points outside"),
        ("set/link", stat.S_IFLNK, "link"),
        ("set/pipe", stat.S_IFIFO, "special"),
        ("set/device", stat.S_IFCHR, "special"),
    ],
)
def test_members_outside_the_folder_and_special_files_are_refused(
    name: str, kind: int, said: str, archive: Path
) -> None:
    add(archive, name, b"/etc/passwd", kind)
    assert said in refused(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(archive: Path) -> None:
    add(archive, "set/a/1.txt", b"other")
    assert "two members" in refused(archive)


def test_an_archive_beyond_the_size_limit_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("set/bomb", b"\0" * 30_000_000)
    assert archive.stat().st_size < 100_000
    with pytest.raises(DataError, match="the limit is 1000000"):
        unpack(archive, archive.parent / "set", member="set", max_bytes=1_000_000)
    assert not (archive.parent / "set").exists()


def test_a_member_with_a_wrong_size_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    # The sizes in both headers of the compressed member: 3000 becomes 30.
    assert data.count((3000).to_bytes(4, "little")) == 2
    archive.write_bytes(data.replace((3000).to_bytes(4, "little"), (30).to_bytes(4, "little")))
    assert refused(archive)


def test_a_damaged_archive_is_refused(archive: Path) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    assert "not a valid zip file" in refused(archive)
    archive.write_bytes(data.replace(b"one", b"eno"))
    assert "not a valid zip file" in refused(archive)
    archive.write_bytes(b"<html>404</html>")
    assert "not a valid zip file" in refused(archive)


def test_an_archive_without_the_folder_is_refused(archive: Path) -> None:
    with pytest.raises(DataError, match="no folder 'other'"):
        unpack(archive, archive.parent / "out", member="other")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@settings(max_examples=60, deadline=None)
@given(draw=st.data())
def test_any_damage_gives_complete_files_or_an_error(draw: st.DataObject, method: int) -> None:
    """Damaged archives give complete files or a DataError, whatever bytes are changed or cut off."""
    whole = {f"{name}/{name}é.txt": name * 50 for name in "ab"}
    with tempfile.TemporaryDirectory() as home:
        archive, folder = Path(home, "set.zip"), Path(home, "out")
        with zipfile.ZipFile(archive, "w", method) as opened:
            for name, text in whole.items():
                opened.writestr(f"set/{name}", text)
        data = bytearray(archive.read_bytes())
        for _ in range(draw.draw(st.integers(0, 4))):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
        archive.write_bytes(data[: draw.draw(st.integers(0, len(data)) | st.just(len(data)))])
        with contextlib.suppress(DataError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unpack(archive, folder, member="set")
        assert {path.name for path in Path(home).iterdir()} <= {"set.zip", "out"}
        if folder.exists():
            assert set(contents(folder).values()) <= set(whole.values())
