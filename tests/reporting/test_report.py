"""The report of a run: its numbers, its bytes, its limits, and runs of every kind."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import finetune
import tiny
from finetune.errors import DataError, UserError
from finetune.evaluation.working_point import ThresholdResult
from finetune.page.thumbnails import MOST_BYTES
from finetune.recipe.catalog import DRAWN
from finetune.reporting import limits
from reporting.conftest import CLASSES, COUNTS, draw_table, train, unfinish

MakeReport = Callable[..., str]
SIX_MB = 6_000_000
SOLVED = "{batch_size: 8, phases: [{freeze: backbone, optimizer: lbfgs, weight_decay: 1e-2}]}"


class Numbers(HTMLParser):
    """The numbers that a page marks: by name, by (class, name), and by (true, predicted)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.plain: dict[str, set[float]] = {}
        self.of_class: dict[tuple[int, str], float] = {}
        self.confusion: dict[tuple[int, int], int] = {}
        self._class: int | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "tr":
            self._class = int(found["data-class"]) if "data-class" in found else None
        if "data-metric" not in found:
            return
        name, value = found["data-metric"], found["data-value"]
        if name == "confusion":
            true, predicted = map(int, found["data-cell"].split(","))
            self.confusion[true, predicted] = int(value)
        elif self._class is not None:
            self.of_class[self._class, name] = float(value)
        else:
            self.plain.setdefault(name, set()).add(float(value))


def test_every_number_is_that_of_eval(hostile_run: Path, page: Path, cli: Any) -> None:
    said = cli("eval", hostile_run, "--json", "--device", "cpu")
    expected = json.loads(said.out)
    found = Numbers(page.read_text(encoding="utf-8"))
    names = ("top1", "top1_low", "top1_high", "n", "balanced_accuracy", "macro_f1", "loss", "ece")
    assert {name: {expected[name]} for name in names} == {name: found.plain[name] for name in names}
    for place, entry in enumerate(expected["per_class"]):
        for name in ("precision", "recall", "f1", "support"):
            assert found.of_class[place, name] == entry[name]
    counts = np.zeros((len(CLASSES),) * 2, int)
    for cell, count in found.confusion.items():
        counts[cell] = count
    assert counts.tolist() == expected["confusion"]
    assert expected["n"] == len(CLASSES) * COUNTS["test"]
    assert 0 < expected["top1"] < 1  # else there is little to compare


def test_another_split_has_other_numbers(
    hostile_run: Path, make_report: MakeReport, cli: Any, page: Path
) -> None:
    text = make_report(hostile_run, split="val")
    expected = json.loads(cli("eval", hostile_run, "--json", "--split", "val", "--device", "cpu").out)
    assert Numbers(text).plain["n"] == {expected["n"]} == {len(CLASSES) * COUNTS["val"]}
    assert "The network was chosen by them" in text
    assert "The network was chosen by them" not in page.read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_bytes_and_only_the_page_is_written(
    hostile_run: Path, page: Path, make_report: MakeReport
) -> None:
    before = {path: path.read_bytes() for path in hostile_run.rglob("*") if path.is_file()}
    assert make_report(hostile_run).encode() == page.read_bytes()
    assert {path: path.read_bytes() for path in hostile_run.rglob("*") if path.is_file()} == before


def test_hostile_names_are_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<b>&" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "\u202e" not in text
    assert "abc \\u202egnp.txet" in text
    # The page's script and its data.
    assert text.count("<script") == text.count("</script") == 2


@pytest.mark.parametrize("pictures", [0, 7, 60])
def test_a_page_has_at_most_so_many_images(hostile_run: Path, pictures: int, make_report: MakeReport) -> None:
    text = make_report(hostile_run, images=pictures)
    assert text.count("data:image") <= pictures
    assert (text.count("data:image") > pictures * 0.8) == (pictures > 0)


def test_an_image_that_is_shown_twice_is_stored_once(page: Path) -> None:
    addresses = re.findall(r'src="(data:image/[^"]+)"', page.read_text(encoding="utf-8"))
    assert len(addresses) == len(set(addresses)) > 50
    assert "data-copy=" in page.read_text(encoding="utf-8")


def test_mistakes_come_with_heat_map_and_nearest_training_images(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    mistakes = text.split('id="mistakes"')[1].split("</section>")[0]
    cards = mistakes.count('class="card"')
    numbers = Numbers(text)
    wrong = sum(count for (true, predicted), count in numbers.confusion.items() if true != predicted)
    assert cards == min(wrong, limits.MISTAKES, 200 // (2 * limits.IMAGES_OF_CARD)) > 3
    assert mistakes.count('alt="heat-map') == cards
    assert mistakes.count('<li title="train-') == limits.NEAREST * cards


def test_the_sections_are_in_the_order_of_the_questions(page: Path) -> None:
    places = re.findall(r'<section id="([\w-]+)"', page.read_text(encoding="utf-8"))
    assert places == [
        "result", "trust", "training", "curves", "per-class", "confusions", "mistakes", "uncertain", "labels",
        "reliability", "layers", "repeat",
    ]  # fmt: skip


def test_a_thousand_classes_and_five_hundred_images_stay_small(
    tmp_path: Path, make_report: MakeReport
) -> None:
    """More than 3,000 images: the rules for large runs apply, too."""
    classes = tuple(f"class {number:03}" for number in range(1000))
    folder = draw_table(tmp_path / "few", classes[:1], {"train": 1}).parent
    drawn = next(folder.glob("*.png"))
    lines = ["path,label,split"]
    for split in ("train", "val", "test"):
        for number, each in enumerate((*classes, *classes[:10])):
            (folder / f"{split}{number}.png").hardlink_to(drawn)
            lines.append(f"{split}{number}.png,{each},{split}")
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    section = "{batch_size: 64, max_steps: 2, phases: [{epochs: 1, lr: 1e-3}]}"
    run = train(tmp_path / "run", folder / "table.csv", section=section)
    text = make_report(run, images=0)
    assert Numbers(text).plain["n"] == {1010}
    assert len(Numbers(text).of_class) == 4 * 1000
    assert "fits no page" in text
    assert f"more than {limits.MOST_IMAGES:,} images" in text
    assert "data-cell=" in text
    # Each of 500 thumbnails has at most so many bytes, in base64.
    assert len(text.encode()) + 500 * (MOST_BYTES * 4 / 3 + 100) < SIX_MB


def test_images_that_are_no_files(tmp_path: Path, make_report: MakeReport) -> None:
    text = make_report(train(tmp_path / "run", DRAWN, "train.max_steps=3"), images=40)
    assert 10 < text.count("data:image") <= 40


def test_a_solved_head_has_no_curves(tmp_path: Path, make_report: MakeReport) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (9, 9), "val": (5, 5)})
    text = make_report(train(tmp_path / "run", source, section=SOLVED))
    assert "There are no curves" in text
    assert "the head is computed exactly" in text
    assert "The freeze held" in text


def test_a_run_without_test_images_reports_on_val(tmp_path: Path, make_report: MakeReport) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (9, 9), "val": (5, 5)})
    run = train(tmp_path / "run", source)
    assert "Report on the val images" in make_report(run)
    with pytest.raises(DataError, match="no 'test' split"):
        finetune.report(run, tmp_path / "no.html", split="test", device="cpu")
    assert not (tmp_path / "no.html").exists()


def test_images_that_cannot_be_read_are_named(tmp_path: Path, make_report: MakeReport) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (9, 9), "val": (5, 5), "test": (5, 5)})
    for name in ("train/a/00.png", "test/b/01.png"):
        (source / name).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    text = make_report(train(tmp_path / "run", source, "data.on_bad_image=skip"))
    assert Numbers(text).plain["n"] == {9}
    assert "1 image could not be read" in text
    assert "test/b/01.png" in text
    assert "train/a/00.png" in text.split('id="training"')[1].split('id="curves"')[0]


def test_images_that_are_gone_are_a_clear_error(tmp_path: Path) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (9, 9), "val": (5, 5)})
    run = train(tmp_path / "run", source)
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not there any more"):
        finetune.report(run, device="cpu")


def test_swapped_labels_are_listed(tmp_path: Path, make_report: MakeReport) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (30, 30), "val": (8, 8), "test": (8, 8)})
    for number in range(2):
        swapped = source / "train" / "a" / f"swapped{number}.png"
        pixels = np.random.default_rng(number).integers(60, 220, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(swapped)
    text = make_report(train(tmp_path / "run", source, section=SOLVED))
    labels = text.split('id="labels"')[1].split("</section>")[0]
    first = re.findall(r'class="file"><bdi>([^<]+)</bdi>', labels)[:4]
    assert {"train/a/swapped0.png", "train/a/swapped1.png"} <= set(first)


@pytest.mark.parametrize("images", [-1, 10_001])
def test_an_impossible_number_of_images_is_refused(hostile_run: Path, images: int) -> None:
    with pytest.raises(UserError, match="0 to 10,000"):
        finetune.report(hostile_run, images=images)


def test_a_working_point_that_the_run_keeps_is_said_with_its_numbers(
    hostile_run: Path, tmp_path: Path, make_report: MakeReport
) -> None:
    run = Path(shutil.copytree(hostile_run, tmp_path / "kept"))
    model = finetune.load(run, device="cpu")
    model.keep_working_point(CLASSES[0], recall=0.5)
    found = model.evaluate("test").working_point()
    assert isinstance(found, ThresholdResult)
    assert found.rates is not None
    recall = found.rates.recall
    assert recall is not None
    text = make_report(run, images=0)
    assert "The run keeps a threshold:" in text
    assert "chosen on val for a recall of at least 50 %" in text
    share = f"{100 * recall.value:.1f}\N{NO-BREAK SPACE}% ({recall.hits} of {recall.n}; 95 % interval"
    assert share in text
    assert CLASSES[0] not in text
    model.keep_working_point(costs={CLASSES[0]: {CLASSES[1]: 5}})
    assert "The run keeps costs of mistakes" in make_report(run, images=0)


def test_the_command(tmp_path: Path, cli: Any) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (9, 9), "val": (5, 5), "test": (6, 6)})
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}\n"
        f"model: {{backbone: {tiny.STANDS_FOR}, weights: none}}\n"
        "train: {batch_size: 8, phases: [{epochs: 1, lr: 1e-2}]}\n"
    )
    run = tmp_path / "run"
    trained = cli("train", recipe, "--run-dir", run, "--device", "cpu", "--report")
    assert trained.code == 0, trained.err
    assert f"report       {run / 'report.html'}" in trained.out
    first = (run / "report.html").read_bytes()
    said = cli("report", run, "--device", "cpu", "--pictures", "10", "--out", tmp_path / "ten.html")
    assert (said.code, said.out) == (0, f"report       {tmp_path / 'ten.html'}\n")
    assert len((tmp_path / "ten.html").read_bytes()) < len(first)
    again = cli("train", recipe, "--run-dir", run, "--device", "cpu", "--overwrite")
    assert again.code == 0
    assert not (run / "report.html").exists()


def test_wrong_words_of_the_command(tmp_path: Path, cli: Any) -> None:
    for words, message in (
        (("report", tmp_path / "none"), "no such folder"),
        (("report", tmp_path), "not a run directory"),
        (("report", "a", "b"), "no such folder"),
        (("train", "digits", "--seeds", "2", "--report"), "--seeds"),
    ):
        said = cli(*words)
        assert said.code == 2
        assert message in said.err


def test_a_run_that_was_stopped_says_so(hostile_run: Path, tmp_path: Path, make_report: MakeReport) -> None:
    run = tmp_path / "run"
    shutil.copytree(hostile_run, run)
    assert "is not finished" not in make_report(run, images=0)
    unfinish(run)
    assert "is not finished" in make_report(run, images=0)
