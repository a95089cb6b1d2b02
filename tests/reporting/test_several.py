"""The report of several runs, of seeds, and of a cross-validation."""

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import finetune
import tiny
from browser import opened, screenshot
from finetune.errors import DataError, RunDirError, UserError
from finetune.recipe.load import load_recipe, parse_recipe
from finetune.reporting.several.answers import Answers, short_names
from finetune.reporting.several.compare_page import distinct_names
from finetune.reporting.several.recipes import Difference, differences
from finetune.strategy.experiments.spread import of_repeats
from reporting.conftest import CLASSES, COUNTS, draw_table, tiny_network, train, unfinish

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTED = COUNTS["test"] * len(CLASSES)
Runs = tuple[Path, ...]


class Numbers(HTMLParser):
    """The numbers that a page marks: by (kind and place of their row, name)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[tuple[str, str], float] = {}
        self.confusion: dict[tuple[int, int], int] = {}
        self.right: list[str] = []
        self._row = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        if tag == "tr":
            kinds = ("run", "pair", "class")
            self._row = next((f"{kind} {own[f'data-{kind}']}" for kind in kinds if f"data-{kind}" in own), "")
        if "data-right" in own:
            self.right.append(own["data-right"])
        if own.get("data-metric") == "confusion":
            true, predicted = map(int, own["data-cell"].split(","))
            self.confusion[true, predicted] = int(own["data-value"])
        elif "data-metric" in own:
            self.found[self._row, own["data-metric"]] = float(own["data-value"])

    def handle_endtag(self, tag: str) -> None:
        self._row = "" if tag == "tr" else self._row


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three read-only runs on hostile names, two of which have the same name."""
    folder = tmp_path_factory.mktemp("several")
    table = draw_table(folder / "images", CLASSES, COUNTS)
    with tiny_network():
        return (
            train(folder / "one" / "run <i>'\"", table),
            train(folder / "two" / "run <i>'\"", table, "seed=1", "train.phases=[{epochs: 3, lr: 1e-1}]"),
            train(folder / "three", table, "seed=2"),
        )


@pytest.fixture(scope="session")
def page(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with tiny_network():
        return finetune.report(runs[:2], tmp_path_factory.mktemp("two") / "two.html", device="cpu")


@pytest.fixture(scope="session")
def recipe(runs: Runs) -> Path:
    path = runs[0].parents[1] / "recipe.yaml"
    source = path.parent / "images" / "table.csv"
    path.write_text(
        f"data: {{source: '{source}', image_size: 16, resize: 16, workers: 0}}\n"
        f"model: {{backbone: {tiny.STANDS_FOR}, weights: none}}\n"
        "train: {batch_size: 16, phases: [{epochs: 2, lr: 1e-2}]}\n"
    )
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    """``make(runs)``: the text of their report."""

    def report(given: Any, **options: Any) -> str:
        page = finetune.report(given, tmp_path / "made.html", device="cpu", **options)
        return page.read_text(encoding="utf-8")

    return report


@pytest.fixture
def predictions(cli: Any, tmp_path: Path) -> Callable[[Path], dict[str, dict[str, str]]]:
    """``predictions(run)``: what ``eval --predictions`` says of each test image, by the name of its file."""

    def of(run: Path) -> dict[str, dict[str, str]]:
        table = tmp_path / "predictions.csv"
        table.unlink(missing_ok=True)
        said = cli("eval", run, "--predictions", table, "--device", "cpu")
        assert said.code == 0, said.err
        with table.open(encoding="utf-8", newline="") as file:
            return {Path(row["path"]).name: row for row in csv.DictReader(file)}

    return of


def section(text: str, name: str) -> str:
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_every_number_is_that_of_compare(
    runs: Runs, page: Path, make: Callable[..., str], cli: Any, chdir_tmp: Path
) -> None:
    for count, text in ((2, page.read_text(encoding="utf-8")), (3, make(runs))):
        expected = json.loads(cli("compare", *runs[:count], "--json", "--device", "cpu").out)
        found = Numbers(text).found
        for place, each in enumerate(expected["runs"]):
            for name in ("top1", "top1_low", "top1_high", "n", "loss", "seconds", "epochs", "images"):
                assert found[f"run {place}", name] == each[name]
        names = [each["run"] for each in expected["runs"]]
        assert len(expected["pairs"]) == count * (count - 1) / 2
        for each in expected["pairs"]:
            pair = f"pair {names.index(each['first'])},{names.index(each['second'])}"
            for name in ("difference", "low", "high", "only_first", "only_second", "p"):
                assert found[pair, name] == each[name]
            kinds = ("both", "only_first", "only_second", "neither")
            assert sum(found[pair, name] for name in kinds) == TESTED
        measured = json.loads(cli("eval", runs[1], "--json", "--device", "cpu").out)
        for place, entry in enumerate(measured["per_class"]):
            assert found[f"class {place}", "recall 1"] == entry["recall"]
        assert expected["pairs"][0]["difference"]  # else there is little to compare


def test_the_verdict_follows_from_the_test(runs: Runs, page: Path, make: Callable[..., str]) -> None:
    for text, number in ((page.read_text(encoding="utf-8"), 1), (make(runs), 3)):
        found = Numbers(text).found
        pairs = {row for row, _ in found if row.startswith("pair")}
        better = [
            row
            for row in pairs
            if found[row, "p"] < 0.05 / number and found[row, "low"] * found[row, "high"] > 0
        ]
        assert len(pairs) == number
        table = text.split('<table id="pairs"')[1].split("</table>")[0]
        assert table.count("is better than") == len(better)
        assert table.count("not shown") == number - len(better)
    assert "0.05 / 3" in text


def test_the_images_on_which_two_runs_disagree(
    runs: Runs, page: Path, predictions: Callable[[Path], dict[str, dict[str, str]]]
) -> None:
    first, second = (predictions(run) for run in runs[:2])
    groups: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, one in first.items():
        other = second[name]
        if one["predicted"] != other["predicted"]:
            right = "A" * int(one["correct"]) + "B" * int(other["correct"])
            groups[right].append((-min(float(one["probability"]), float(other["probability"])), name))
    text = section(page.read_text(encoding="utf-8"), "images")
    cards = [part.split("</article>")[0] for part in text.split("<article")[1:]]
    assert {"A", "B"} & set(groups)
    assert len(cards) == sum(map(len, groups.values()))
    for right, expected in groups.items():
        own = [card for card in cards if f'data-right="{right}"' in card]
        files = [card.split('class="file"><bdi>')[1].split(" ")[0] for card in own]
        assert files == [name.split(" ")[0] for _, name in sorted(expected)]
        assert all(card.count("data:image") == 1 for card in own)
    surest, name = min(min(group) for group in groups.values())
    card = next(each for each in cards if f"<bdi>{name.split(' ')[0]} " in each)
    assert f"{-100 * surest:.1f}\N{NO-BREAK SPACE}%" in card


def test_the_same_runs_give_the_same_bytes_and_stay_as_they_are(
    runs: Runs, page: Path, make: Callable[..., str]
) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for run in runs for path in run.rglob("*") if path.is_file()}

    before = files()
    assert make(runs[:2]).encode() == page.read_bytes()
    assert files() == before


def test_hostile_names_are_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<i>" not in text
    assert "<b>&" not in text
    assert "\u202e" not in text
    assert "one/run &lt;i&gt;" in text
    assert "two/run &lt;i&gt;" in text
    assert text.count("<script") == text.count("</script") == 1


@pytest.mark.parametrize("pictures", [0, 3])
def test_a_page_has_at_most_so_many_images(runs: Runs, pictures: int, make: Callable[..., str]) -> None:
    text = make(runs, images=pictures)
    assert text.count("data:image") == pictures
    assert text.count("<article") > 3


def test_the_recipes_and_what_differs(runs: Runs, page: Path) -> None:
    recipes = [load_recipe(run / "resolved.yaml") for run in runs[:2]]
    assert differences(recipes) == [
        Difference("seed", ("0", "1")),
        Difference("data.split_seed", ("0", "1")),
        Difference("train.phases.0.epochs", ("2", "3")),
        Difference("train.phases.0.lr", ("0.01", "0.1")),
    ]
    assert (
        differences(recipes, ["seed", "data.split_seed", "train.phases.0.epochs", "train.phases.0.lr"]) == []
    )
    text = section(page.read_text(encoding="utf-8"), "recipes")
    assert text.count('<tr><th scope="row">') == 4
    longer = parse_recipe(
        f"data: {{source: {runs[0].parent}}}\nmodel: {{backbone: resnet18}}\n"
        "train: {phases: [{epochs: 1}, {epochs: 2, freeze: 3}]}\n",
        "longer.yaml",
    )
    found = {each.key: each.values for each in differences([recipes[0], longer])}
    assert found["train.phases.1.freeze"] == ("\N{EN DASH}", "3")


def test_seeds(
    recipe: Path,
    tmp_path: Path,
    cli: Any,
    predictions: Callable[[Path], dict[str, dict[str, str]]],
    make: Callable[..., str],
) -> None:
    place = tmp_path / "seeds"
    words = ("train", recipe, "--seeds", "3", "--run-dir", place, "--device", "cpu")
    assert cli(*words).code == 0
    said = cli("report", place, "--device", "cpu")
    assert (said.code, said.out) == (0, f"report       {place / 'report.html'}\n")
    text = (place / "report.html").read_text(encoding="utf-8")
    numbers = Numbers(text).found
    seeds = [place / f"seed-{seed}" for seed in range(3)]
    for number, run in enumerate(seeds):
        measured = json.loads(cli("eval", run, "--json", "--device", "cpu").out)
        for name in ("top1", "top1_low", "top1_high", "n", "loss"):
            assert numbers[f"run {number}", name] == measured[name]
    spread = of_repeats([numbers[f"run {number}", "top1"] for number in range(3)]).to_dict()
    assert spread["low"] != spread["high"]
    for name in ("mean", "low", "high", "deviation", "mean_low", "mean_high"):
        assert numbers["", name] == spread[name]
    line = next(line for line in cli(*words, "--resume").out.splitlines() if line.startswith("test top-1"))
    assert f"{100 * numbers['', 'mean']:.1f}" in line
    assert f"range {100 * numbers['', 'low']:.1f} to {100 * numbers['', 'high']:.1f}" in line
    # The images, counted from the tables of `eval`.
    found = [predictions(run) for run in seeds]
    right = {name: sum(int(each[name]["correct"]) for each in found) for name in found[0]}
    for name, counts in (("steady", (3,)), ("hard", (0,)), ("unsteady", (1, 2))):
        assert numbers["", name] == sum(value in counts for value in right.values()) > 0
    hard = section(text, "hard")
    assert hard.count("<article") == min(24, sum(value == 0 for value in right.values()))
    assert all(right[name] == 0 for name in right if f"<bdi>{name.split(' ')[0]} " in hard)

    # An unfinished seed is named, and the others are reported; one alone is refused.
    unfinish(seeds[1])
    text = make(place)
    assert "seed-1" in section(text, "result").split("not finished")[1].split("</p>")[0]
    assert Numbers(text).found["", "seeds"] == 2
    assert "Two seeds are too few" in text
    shutil.rmtree(seeds[2])
    with pytest.raises(RunDirError, match="of 2 seeds, 1 finished"):
        make(place)


def test_seeds_with_other_splits(tmp_path: Path, cli: Any, make: Callable[..., str]) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (14, 14)}) / "train"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"data: {{source: {source}, image_size: 16, resize: 16, workers: 0, test_fraction: 0.4}}\n"
        f"model: {{backbone: {tiny.STANDS_FOR}, weights: none}}\n"
        "train: {batch_size: 8, phases: [{epochs: 1, lr: 1e-2}]}\n"
    )
    place = tmp_path / "seeds"
    words = ("--seeds", "2", "--vary-split", "--run-dir", place, "--device", "cpu")
    assert cli("train", path, *words).code == 0
    text = make(place)
    assert "The seeds have different test images" in text
    assert "recipes differ in more than the seed" not in text
    assert "--vary-split" in section(text, "repeat")
    with pytest.raises(DataError, match="same images"):
        make([place / "seed-0", place / "seed-1"])


@pytest.fixture(scope="session")
def folds(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation in three folds. Read-only."""
    from finetune.strategy.experiments.crossval import train_folds
    from finetune.strategy.experiments.repeat import RunOptions
    from finetune.training.progress import Progress

    place = tmp_path_factory.mktemp("cv") / "folds"
    with tiny_network():
        list(train_folds(load_recipe(recipe), place, 3, RunOptions("cpu"), lambda _: Progress()))
    return place


def test_a_cross_validation(recipe: Path, folds: Path, cli: Any, make: Callable[..., str]) -> None:
    text = make(folds)
    words = ("cv", recipe, "--folds", "3", "--run-dir", folds, "--resume", "--json", "--device", "cpu")
    expected = json.loads(cli(*words).out)
    page = Numbers(text)
    for name in ("top1", "top1_low", "top1_high", "n", "loss", "ece", "macro_f1"):
        assert page.found["", name] == expected[name]
    spread = expected["top1_spread"]
    for name in ("mean", "low", "high", "deviation", "mean_low", "mean_high"):
        assert page.found["", name] == spread[name]
    for place, fold in enumerate(expected["folds"]):
        for name in ("top1", "n", "loss"):
            assert page.found[f"run {place}", name] == fold[name]
    for place, entry in enumerate(expected["per_class"]):
        for name in ("precision", "recall", "f1", "support"):
            assert page.found[f"class {place}", name] == entry[name]
    counts = np.zeros((len(CLASSES),) * 2, int)
    for cell, count in page.confusion.items():
        counts[cell] = count
    assert counts.tolist() == expected["confusion"]
    assert 0 < expected["top1"] < 1
    wrong = counts.sum() - np.trace(counts)
    assert section(text, "mistakes").count("<article") == min(24, wrong)
    assert make(folds) == text
    with pytest.raises(UserError, match=r"^split: a report of a cross-validation"):
        make(folds, split="val")


def test_folds_that_are_not_whole_are_refused(folds: Path, tmp_path: Path, make: Callable[..., str]) -> None:
    place = tmp_path / "copy"
    shutil.copytree(folds, place)
    unfinish(place / "fold-1")
    with pytest.raises(RunDirError, match=r"1 of 3 folds not finished \(fold-1\)"):
        make(place)
    shutil.rmtree(place / "fold-1")
    with pytest.raises(RunDirError, match=r"1 of 3 folds not finished \(fold-1\)"):
        make(place)
    (place / "fold-2").rename(place / "fold-1")
    with pytest.raises(RunDirError, match="not those of one cross-validation"):
        make(place)


def test_what_cannot_be_reported_is_refused(runs: Runs, folds: Path, tmp_path: Path, cli: Any) -> None:
    both = tmp_path / "both"
    (both / "seed-0").mkdir(parents=True)
    (both / "fold-0").mkdir()
    for words, message in (
        ((runs[0].parents[1],), "not a run directory"),
        ((folds.parent,), "not a run directory"),
        ((runs[0], runs[0].parent / "." / runs[0].name, runs[2]), "given twice"),
        ((runs[0], folds), "report on it alone"),
        ((runs[0], tmp_path / "none"), "no such folder"),
        ((runs[0], tmp_path), "not a run directory"),
        ((both,), "holds runs of --seeds and of `finetune cv`"),
        (tuple(tmp_path for _ in range(21)), "room for 20"),
    ):
        said = cli("report", *words, "--device", "cpu")
        assert (said.code, message in said.err) == (2, True), said.err
    together = tmp_path / "together"
    for name in ("a", "b"):
        shutil.copytree(runs[2], together / name)
    said = cli("report", together)
    assert said.code == 2
    assert f"finetune report {together / 'a'} {together / 'b'}" in said.err


def test_runs_on_other_classes_are_refused(runs: Runs, tmp_path: Path, make: Callable[..., str]) -> None:
    source = tiny.draw_images(tmp_path / "images", {"train": (9, 9), "val": (5, 5)})
    with pytest.raises(DataError, match="different classes"):
        make([runs[0], train(tmp_path / "other", source)])


def test_answers_are_matched_image_by_image() -> None:
    """Three networks, four images; the third was not tested on the first image."""
    rows = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [-1, 0, 1, 2]])
    predicted = np.array([[0, 1, 1, 2], [1, 1, 0, 2], [-1, 1, 2, 2]])
    confidence = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.9, 0.6, 0.9], [0.0, 0.9, 0.8, 0.9]])
    targets = np.array([1, 1, 2, 0])
    found = Answers((), ("a", "b", "c"), tuple("0123"), targets, rows, predicted, confidence, confidence)
    assert found.asked.tolist() == [2, 3, 3, 3]
    assert found.right.sum(axis=0).tolist() == [1, 3, 1, 0]
    assert found.disputed.tolist() == [True, False, True, False]
    # Of the third image, the surest pair that disagrees is (1, 3): 0.7 and 0.8.
    assert found.sureness().tolist() == [0.5, 0.0, 0.7, 0.0]


def test_short_names_tell_apart() -> None:
    assert short_names(["/a/b/x/1.png", "/a/b/y/1.png"]) == ("x/1.png", "y/1.png")
    assert short_names(["digits 1", "digits 2"]) == ("digits 1", "digits 2")
    assert distinct_names([Path("/r/a/run"), Path("/r/b/run")]) == ("a/run", "b/run")
    assert distinct_names([Path("/r/a/run"), Path("/r/a/two")]) == ("run", "two")


def test_the_default_file(runs: Runs, chdir_tmp: Path, cli: Any) -> None:
    said = cli("report", runs[1], runs[2], "--device", "cpu", "--pictures", "0")
    assert said.code == 0
    assert [path.name for path in (chdir_tmp / "runs").iterdir()] == [f"report-{runs[1].name}-three.html"]


def test_the_page_of_two_runs_opens(page: Path, browser: "Browser", tmp_path: Path) -> None:
    for size, dark in (("wide", False), ("phone", True)):
        with opened(browser, page, size=size, dark=dark) as found:
            assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            broken = "[...document.images].filter((each) => !each.complete || !each.naturalWidth).length"
            assert found.page.evaluate(broken) == 0
            found.page.locator("#runs th button").get_by_text("Accuracy", exact=True).click()
            values = found.page.locator("#runs td[data-metric=top1]").evaluate_all(
                "(cells) => cells.map((each) => Number(each.dataset.value))"
            )
            assert values == sorted(values, reverse=True)
            ids = found.page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
            assert len(ids) == len(set(ids))
            links = "[...document.querySelectorAll('nav a')].map((each) => each.getAttribute('href'))"
            assert all(found.page.locator(each).count() == 1 for each in found.page.evaluate(links))
            assert screenshot(found, f"two-runs-{size}", tmp_path).stat().st_size > 10_000
            assert found.problems == []


def test_the_page_of_a_cross_validation_opens(folds: Path, browser: "Browser", tmp_path: Path) -> None:
    page = finetune.report(folds, tmp_path / "cv.html", device="cpu")
    with opened(browser, page) as found:
        button = found.page.locator("#matrix button").first
        button.click()
        assert found.page.locator("#cell-images img").count() == min(24, int(button.inner_text()))
        found.page.keyboard.press("Escape")
        assert screenshot(found, "cv", tmp_path).stat().st_size > 10_000
        assert found.problems == []
