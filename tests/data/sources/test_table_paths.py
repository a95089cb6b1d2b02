"""Paths in a table: Windows paths, paths of another machine, and helpful error messages."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.dataset import Source
from finetune.data.holdout.groups import assign_groups
from finetune.data.sources.read import read_source
from finetune.data.sources.tables.paths import find_paths
from finetune.errors import DataError

Put = Callable[..., Path]
FILES = ["photos/cat/1.jpg", "photos/cat/2.jpg", "photos/dog/1.jpg", "photos/dog/2.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def table(root: Path, paths: list[str], more: str = "") -> str:
    lines = ["path,label,patient", *(f"{path},{'ab'[n % 2]},{n % 3}" for n, path in enumerate(paths))]
    (root / "t.csv").write_text("\n".join(lines) + more, encoding="utf-8")
    return str(root / "t.csv")


def files(source: Source, root: Path) -> list[str]:
    split = source.splits["all"]
    return sorted(os.path.relpath(split.name(i), root) for i in range(len(split)))


def refused(source: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_source(source)
    return str(caught.value).splitlines()


WRITTEN = {
    "as they are": lambda name, root: name,
    "from the root": lambda name, root: f"{root}/{name}",
    "backslashes": lambda name, root: name.replace("/", "\\"),
    "dot and backslashes": lambda name, root: ".\\" + name.replace("/", "\\"),
    "mixed": lambda name, root: name.replace("/", "\\", 1),
    "a drive": lambda name, root: "C:\\Users\\Anna\\" + name.replace("/", "\\"),
    "a drive with slashes": lambda name, root: "d:/data/" + name,
    "a drive, less deep": lambda name, root: "C:\\" + name.removeprefix("photos/").replace("/", "\\"),
    "a share": lambda name, root: "\\\\server\\share\\x\\" + name.replace("/", "\\"),
    "a share with slashes": lambda name, root: "//server/share/" + name,
    "a root": lambda name, root: "\\data\\" + name.replace("/", "\\"),
    "another home": lambda name, root: "/home/anna/sets/" + name,
    "another mac": lambda name, root: "/Users/anna/" + name,
    "colab": lambda name, root: "/content/drive/My Drive/" + name,
    "outer spaces": lambda name, root: " " + name + " ",
    "an address of a file": lambda name, root: f"file://{root}/{name}",
    "an address of another's file": lambda name, root: f"file:///home/anna/{name}",
}


@pytest.mark.parametrize("how", WRITTEN)
def test_existing_files_are_found_however_written(how: str, root: Path) -> None:
    given_paths = [WRITTEN[how](name, root) for name in FILES]
    target = root / "photos" if how == "a drive, less deep" else root
    source = table(target, given_paths)
    read = read_source(source)
    base = "photos/" if how == "a drive, less deep" else ""
    assert files(read, root) == sorted(FILES), base
    assert read.classes == ("a", "b")
    told = [note for note in read.notes if "does not exist here" in note or "backslashes" in note]
    assert len(told) == (how not in ("as they are", "from the root", "outer spaces", "an address of a file"))
    # Columns that are looked up by image path match too.
    assert assign_groups(read, source, "patient").splits["all"].groups is not None


@pytest.mark.parametrize("how", ["a drive", "a share", "another home", "a root"])
def test_only_missing_files_are_reported(how: str, root: Path) -> None:
    names = [*FILES, "photos/dog/3.jpg"]
    said = refused(table(root, [WRITTEN[how](name, root) for name in names]))
    assert len(said) == 1
    assert "3.jpg: no such file, and not below the table's folder either" in said[0]
    assert ":6: " in said[0]


@pytest.mark.parametrize(
    ("prefix", "shown"),
    [("C:\\p\\", "C:\\p\\"), ("/home/anna/p/", "/home/anna/p/"), ("\\\\srv\\x\\", "\\\\srv\\x\\")],
)
def test_paths_of_another_machine_are_reported_once(prefix: str, shown: str, root: Path) -> None:
    said = refused(table(root, [f"{prefix}{n}.png" for n in range(1000)]))
    assert len(said) == 1
    assert f"1,000 paths start with {shown}, which does not exist here" in said[0]
    assert f"without {shown}" in said[0]
    # The suggested change works.
    for n in range(1000):
        (root / f"{n}.png").touch()
    assert len(read_source(table(root, [f"{n}.png" for n in range(1000)])).splits["all"]) == 1000


def test_a_missing_file_of_this_machine_is_not_relocated(root: Path) -> None:
    """A deleted image is not replaced by another image of the same name."""
    (root / "1.jpg").touch()
    (root / FILES[0]).unlink()
    (only,) = refused(table(root, [f"{root}/{name}" for name in FILES]))
    assert only.endswith(f"{root}/{FILES[0]}: no such file")
    shutil.rmtree(root / "photos" / "cat")
    said = refused(table(root, [f"{root}/{name}" for name in FILES]))
    assert [line.rpartition("/")[2] for line in said] == ["1.jpg: no such file", "2.jpg: no such file"]
    (root / "photos" / "cat").mkdir()
    assert len(refused(table(root, [f"{root}/{name}" for name in FILES[:2]]))) == 2


def test_paths_of_two_machines(root: Path) -> None:
    paths = ["C:\\a\\" + FILES[0].replace("/", "\\"), "/home/x/" + FILES[1], FILES[2], FILES[3]]
    assert files(read_source(table(root, paths)), root) == sorted(FILES)


def test_two_spellings_of_a_path_are_one_image(root: Path) -> None:
    paths = [*FILES, FILES[0].replace("/", "\\"), "./" + FILES[0]]
    said = refused(table(root, paths))
    assert any("here, but 'a' in line 2" in line for line in said)  # the sixth is a "b"


def test_paths_relative_to_another_folder_get_a_hint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "lists").mkdir()
    (said,) = refused(table(root / "photos", FILES))
    assert "Remove photos/ from each path" in said
    (said,) = refused(table(root / "lists", FILES))
    assert f"All files exist relative to {root}. Move the table to that folder" in said


def test_another_case_and_a_missing_extension_get_a_hint(root: Path) -> None:
    said = refused(table(root, ["Photos/Cat/1.JPG", "photos/cat/2", FILES[2], "photos/cat/9.jpg"]))
    assert "Did you mean 'photos/cat/1.jpg'?" in said[0]
    assert "Did you mean 'photos/cat/2.jpg'?" in said[1]
    assert said[2].endswith("photos/cat/9.jpg: no such file")


def test_web_addresses_are_refused(root: Path) -> None:
    said = refused(table(root, ["https://example.org/1.jpg", "s3://bucket/2.jpg", *FILES]))
    assert all("a web address" in line for line in said)
    assert len(said) == 2


PART = st.text("abcAB .-_é", min_size=1, max_size=5).filter(lambda part: part.strip(" .") == part != "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(st.lists(PART, min_size=1, max_size=3).map(tuple), min_size=1, max_size=5, unique=True),
    st.lists(PART, max_size=3),
    st.sampled_from(["C:\\", "\\\\host\\share\\", "/", "e:/"]),
)
def test_every_path_is_found_or_missing(
    tmp_path_factory: pytest.TempPathFactory, paths: list[tuple[str, ...]], above: list[str], anchor: str
) -> None:
    """Paths with another machine's prefix find the same files as paths without it."""
    root = tmp_path_factory.mktemp("paths")
    here = [str(PurePosixPath(*parts)) + ".jpg" for parts in paths]
    for name in here:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    pure = PureWindowsPath if "\\" in anchor else PurePosixPath
    there = [str(pure(anchor, "nowhere", *above, *PurePosixPath(name).parts)) for name in here]
    plain, foreign = find_paths(here, root), find_paths(there, root)
    assert plain.missing == {}
    assert foreign.missing == {}
    assert foreign.paths == plain.paths == [str(root / name) for name in here]
