"""Images are sorted into one folder per class: no file is overwritten, incomplete or lost."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from finetune.deploy.predict import Prediction
from finetune.deploy.sorted_table import HEADER, TABLE
from finetune.deploy.sorting import SortCounts, sorting
from finetune.errors import SaveError, UserError

By = Literal["copy", "link", "move"]
WAYS: tuple[By, ...] = ("copy", "link", "move")
CLASSES = ("cat", "dog")
every_way = pytest.mark.parametrize("by", WAYS)


def image(path: Path | str, content: str) -> str:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def run(
    target: Path, pairs: Sequence[tuple[str, str]], by: By, classes: Sequence[str] = CLASSES
) -> SortCounts:
    """Sort paths, each with the class that is predicted for it; ``!`` marks one that cannot be read."""
    chosen = dict(pairs)
    with sorting(target, classes, by) as sorter:
        for path in sorter.unsorted(iter([path for path, _ in pairs])):
            name = chosen[path]
            found = (
                Prediction(path, error="bad") if name == "!" else Prediction(path, (name,), (0.123456789,))
            )
            sorter.write([found])
    return sorter.counts


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != TABLE
    }


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not rows or list(rows[0]) == HEADER
    return rows


@pytest.fixture
def photos(chdir_tmp: Path) -> list[tuple[str, str]]:
    """Two folders with a name in common, and a file that is no image."""
    return [
        (image("a/1.jpg", "a1"), "cat"),
        (image("a/2.jpg", "a2"), "dog"),
        (image("b/1.jpg", "b1"), "cat"),
        (image("b/bad.jpg", "bad"), "!"),
    ]


SORTED = {"cat/1-2.jpg": "b1", "cat/1.jpg": "a1", "dog/2.jpg": "a2"}


@every_way
def test_one_folder_per_class_and_a_table_of_all_images(photos: list[tuple[str, str]], by: By) -> None:
    before = {path: Path(path).read_bytes() for path, _ in photos}
    counts = run(Path("out"), photos, by)
    assert contents(Path("out")) == SORTED
    assert (counts.placed, counts.already_there, counts.unreadable) == (3, 0, 1)
    here = os.path.realpath(".")
    rows = table(Path("out"))
    assert [(row["path"], row["placed"]) for row in rows] == [
        (f"{here}/a/1.jpg", "cat/1.jpg"),
        (f"{here}/a/2.jpg", "dog/2.jpg"),
        (f"{here}/b/1.jpg", "cat/1-2.jpg"),
        (f"{here}/b/bad.jpg", ""),
    ]
    assert [row["class"] for row in rows] == ["cat", "dog", "cat", ""]
    assert rows[0]["probability"] == "0.123457"
    assert rows[3]["error"] == "bad"
    left = {path for path, _ in photos if os.path.lexists(path)}
    assert left == ({"b/bad.jpg"} if by == "move" else set(before))
    assert all(Path(path).read_bytes() == before[path] for path in left)
    assert Path("out/cat/1.jpg").is_symlink() is (by == "link")
    assert sorted(path.name for path in Path("out").iterdir()) == ["cat", "dog", TABLE]


@every_way
def test_sorting_twice_changes_nothing(photos: list[tuple[str, str]], by: By) -> None:
    run(Path("out"), photos, by)
    first = (Path("out") / TABLE).read_text()
    again = [(f"./{path}", name) for path, name in photos if os.path.lexists(path)]
    counts = run(Path("out"), again, by)
    assert contents(Path("out")) == SORTED
    assert counts.placed == 0
    assert counts.already_there == (0 if by == "move" else 3)
    assert (Path("out") / TABLE).read_text() == first


@pytest.mark.parametrize("lost", [True, False], ids=["without the table", "with it"])
def test_a_stopped_sorting_continues(photos: list[tuple[str, str]], lost: bool) -> None:
    run(Path("out"), photos[:2], "copy")
    if lost:
        (Path("out") / TABLE).unlink()
    counts = run(Path("out"), photos, "copy")
    assert contents(Path("out")) == SORTED
    assert (counts.placed, counts.already_there) == (1, 2)
    assert len(table(Path("out"))) == 4


@every_way
@pytest.mark.parametrize(
    "names", [("1.jpg", "1.jpg"), ("noext", "noext"), (".jpg", ".jpg"), ("a.b.c", "a.b.c")]
)
def test_files_in_the_target_are_never_overwritten(chdir_tmp: Path, by: By, names: tuple[str, str]) -> None:
    image(f"out/cat/{names[0]}", "somebody's own")
    run(Path("out"), [(image(f"a/{names[1]}", "new"), "cat")], by)
    found = contents(Path("out"))
    assert found.pop(f"cat/{names[0]}") == "somebody's own"
    assert list(found.values()) == ["new"]


@every_way
def test_a_broken_link_in_the_target_takes_its_name(chdir_tmp: Path, by: By) -> None:
    source = image("a/1.jpg", "new")
    Path("out/cat").mkdir(parents=True)
    Path("out/cat/1.jpg").symlink_to("nowhere")
    run(Path("out"), [(source, "cat")], by)
    assert Path("out/cat/1.jpg").readlink() == Path("nowhere")
    assert Path("out/cat/1-2.jpg").read_text() == "new"


def test_moving_after_linking_loses_nothing(photos: list[tuple[str, str]]) -> None:
    run(Path("out"), photos, "link")
    run(Path("out"), photos, "move")
    kept = [
        path.read_text() for path in Path("out").rglob("*.jpg") if path.is_file() and not path.is_symlink()
    ]
    assert sorted(kept) == ["a1", "a2", "b1"]


def test_a_move_keeps_two_files_with_equal_bytes_and_completes_a_stopped_move(chdir_tmp: Path) -> None:
    twins = [(image("a/1.jpg", "same"), "cat"), (image("b/1.jpg", "same"), "cat")]
    Path("out/cat").mkdir(parents=True)
    os.link("a/1.jpg", "out/cat/1.jpg")  # the state between the two halves of a move
    run(Path("out"), twins, "move")
    assert contents(Path("out")) == {"cat/1.jpg": "same", "cat/1-2.jpg": "same"}
    assert not contents(Path("a"))
    assert not contents(Path("b"))


@every_way
def test_without_hard_links_the_result_is_the_same(
    photos: list[tuple[str, str]], by: By, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    run(Path("out"), photos, by)
    assert contents(Path("out")) == SORTED
    assert [path for path, _ in photos if Path(path).exists()] == (
        ["b/bad.jpg"] if by == "move" else [path for path, _ in photos]
    )


@every_way
@pytest.mark.parametrize("target", [".", "a", "a/out", "a/../a/out", "link"])
def test_sorting_into_the_source_folder_does_not_sort_its_own_results(
    photos: list[tuple[str, str]], by: By, target: str
) -> None:
    Path("link").symlink_to("a")
    run(Path(target), photos, by)
    seen = [(str(path), "dog") for path in Path().rglob("*.jpg") if "link" not in path.parts]
    counts = run(Path(target), seen, by)
    assert counts.skipped == 3  # the three in its class folders, whatever is predicted for them now
    assert all(path.is_file() for path in (Path(target) / "cat").iterdir())


def test_an_image_given_twice_is_sorted_once(chdir_tmp: Path) -> None:
    path = image("a/1.jpg", "x")
    here = str(chdir_tmp / path)
    for by in WAYS[:2]:
        assert run(Path(by), [(path, "cat"), (f"./{path}", "cat"), (here, "cat")], by).placed == 1
        assert list(contents(Path(by))) == ["cat/1.jpg"]


def test_an_image_that_an_earlier_run_placed_in_another_class_is_counted(
    photos: list[tuple[str, str]],
) -> None:
    run(Path("out"), photos, "copy")
    counts = run(Path("out"), [(path, "dog") for path, _ in photos[:2]], "copy")
    assert (counts.placed, counts.already_there, counts.in_other_class) == (1, 1, 1)
    assert contents(Path("out")) == SORTED | {"dog/1.jpg": "a1"}
    assert [row["placed"] for row in table(Path("out"))][:2] == ["dog/1.jpg", "dog/2.jpg"]


class StopError(BaseException):
    """Stands for a signal."""


@every_way
@pytest.mark.parametrize("stopped_in", ["copyfile", "link", "unlink", "symlink_to", "replace"])
def test_a_stop_at_any_point_leaves_no_incomplete_file_and_loses_none(
    photos: list[tuple[str, str]], by: By, stopped_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: Any) -> None:
        raise StopError

    def half(source: Path, target: Path) -> None:
        Path(target).write_text(Path(source).read_text()[:1])
        raise StopError

    run(Path("out"), photos[:1], by)
    with monkeypatch.context() as patch:
        if stopped_in == "copyfile":
            patch.setattr(shutil, "copyfile", half)
        elif stopped_in == "link":
            patch.setattr(os, "link", stop)
        elif stopped_in == "symlink_to":
            patch.setattr(Path, "symlink_to", stop)
        elif by == "move" and stopped_in == "unlink":
            patch.setattr(Path, "unlink", stop)
        try:
            run(Path("out"), photos[1:], by)
        except StopError:
            assert table(Path("out"))[0]["placed"] == "cat/1.jpg"
    whole = {"a1", "a2", "b1", "bad"}
    assert set(contents(Path("out")).values()) <= whole
    everywhere = {**contents(Path("a")), **contents(Path("b"))}
    assert {*contents(Path("out")).values(), *everywhere.values()} == whole
    run(Path("out"), [pair for pair in photos if os.path.lexists(pair[0])], by)
    assert contents(Path("out")) == SORTED
    assert sorted(path.name for path in Path("out").iterdir()) == ["cat", "dog", TABLE]


def test_a_full_disk_is_reported_and_leaves_no_incomplete_image(
    photos: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).write_text("h")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SaveError, match=r"a/1.jpg: cannot be copied into out/cat \(No space left"):
        run(Path("out"), photos, "copy")
    assert contents(Path("out")) == {}


@pytest.mark.parametrize("place", ["out", "out/sorted.csv"])
def test_an_impossible_target_is_refused(photos: list[tuple[str, str]], place: str) -> None:
    image(place, "path,label\n")
    with pytest.raises(UserError):
        run(Path("out"), photos, "move")
    assert Path(place).read_text() == "path,label\n"
    assert all(Path(path).exists() for path, _ in photos)


def test_nothing_to_sort_leaves_nothing(chdir_tmp: Path) -> None:
    run(Path("out/deep"), [], "copy")
    assert not Path("out/deep").exists()


def test_names_that_are_not_unicode(chdir_tmp: Path) -> None:
    path = image("a/odd\udcff.jpg", "x")
    for _ in range(2):
        run(Path("out"), [(path, "cat")], "copy")
    assert list(contents(Path("out"))) == ["cat/odd\udcff.jpg"]
    assert table(Path("out"))[0]["path"].endswith("odd\\udcff.jpg")


def test_odd_class_names_stay_inside_the_target(chdir_tmp: Path) -> None:
    odd = ["..", "../up", "a/b", "/etc/passwd", "Cat", "cat", TABLE, ".hidden", "x" * 300, ""]
    pairs = [(image(f"a/{number}.jpg", str(number)), name) for number, name in enumerate(odd)]
    run(Path("out"), pairs, "copy", odd)
    assert sorted(contents(Path("out")).values()) == sorted(map(str, range(len(odd))))
    assert sorted(path.name for path in chdir_tmp.iterdir()) == ["a", "out"]
    assert len(list(Path("out").iterdir())) == len(odd) + 1


@pytest.mark.parametrize("model", ["run", "onnx_model"])
def test_the_command(
    cli: Callable[..., Any], request: pytest.FixtureRequest, shapes: Path, chdir_tmp: Path, model: str
) -> None:
    where = request.getfixturevalue(model)
    broken = image("broken.png", "text")
    ended = cli("predict", where, shapes / "test", broken, "--move-into", "out", "--jsonl")
    assert ended.code == 1
    assert "out: 12 copied into 2 folders, 1 not readable" in ended.err
    said = [json.loads(line) for line in ended.out.splitlines()]
    rows = table(Path("out"))
    assert [row["class"] for row in rows] == [line.get("class", "") for line in said]
    assert [row["probability"] for row in rows[:-1]] == [f"{line['probability']:.6g}" for line in said[:-1]]
    for row in rows[:-1]:
        assert (Path("out") / row["placed"]).read_bytes() == Path(row["path"]).read_bytes()
        assert Path(row["placed"]).parent.name == row["class"]
    again = cli("predict", where, shapes / "test", "--move-into", "out")
    assert again.code == 0
    assert "out: 0 copied, 12 there already" in again.err
    assert cli("predict", where, "out", "--move-into", "out").err.count("12 in its class folders") == 1


def test_by_goes_with_a_target(cli: Callable[..., Any], run: Path, shapes: Path) -> None:
    ended = cli("predict", run, shapes / "test", "--by", "move")
    assert ended.code == 2
    assert "--move-into" in ended.err
