"""`scripts/benchmark` on a small scale: its runs, ratios and files. No test checks a duration."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from finetune.model.build import build
from finetune.model.freeze import Freeze
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import ModelSection

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Sizes at which the whole script takes seconds.
SMALL = [
    "--backbone", "resnet18", "--image-size", "32", "--batch-size", "8", "--rounds", "1", "--steps", "2",
    "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The modules beside the script: ``bench("report")``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        patch.setattr(sys, "dont_write_bytecode", True)
        yield lambda name: import_module(f"bench.{name}")
        for name in [each for each in sys.modules if each.partition(".")[0] == "bench"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def script(bench: Any, load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmark")


@pytest.fixture
def job(bench: Any, shapes: Path, tmp_path: Path) -> Any:
    made = bench("job").Job(
        folder=str(shapes), start=str(tmp_path / "start.pt"), backbone="resnet18", weights="none",
        work="everything", classes=2, images=32, image_size=32, batch_size=8, epochs=6, workers=0, seed=0,
        judge=True,
    )  # fmt: skip
    bench("network").write_start(made)
    return made


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def outcome(bench: Any, *speeds: float, tops: tuple[float, ...] = (), every: float = 1.0) -> Any:
    """Epochs of one second of training each, reported ``every`` second."""
    epoch, made = bench("job").Epoch, bench("contest").Outcome
    judged = tops or (None,) * len(speeds)
    epochs = tuple(
        epoch(1.0, images, 0.5, top1, at=every * (number + 1))
        for number, (images, top1) in enumerate(zip(speeds, judged, strict=True))
    )
    facts = {"precision": "fp32", "threads": 1}
    return made(epochs=epochs, seconds=9.0, peak_bytes=2_000_000, facts=facts)


def test_the_whole_benchmark(script: Any, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    names = ["plain-w0", "finetune"]
    words = [
        str(shapes),
        *SMALL,
        "--parts",
        "speed",
        "--only",
        ",".join(names),
        "--out",
        str(tmp_path / "out"),
    ]
    assert script.main(words) == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "benchmark.json",
        "benchmark.md",
        "benchmark.png",
    ]
    found = json.loads((out / "benchmark.json").read_text())
    assert found["machine"].keys() >= {"cpu", "cores", "threads", "versions"}
    assert found["settings"]["command"] == ["scripts/benchmark", *words]
    assert sorted(found["speed"]) == sorted(names)
    for name in names:
        (only,) = found["speed"][name]
        assert only["error"] is None
        assert [epoch["images"] for epoch in only["epochs"]] == [16, 16], name
        assert only["facts"]["threads"] == 1
        assert only["seconds"] >= only["epochs"][-1]["at"] > only["epochs"][0]["seconds"] > 0
        assert only["peak_bytes"] > 50e6
    assert found["speed"]["plain-w0"][0]["facts"]["parameters"] == found["settings"]["parameters"]
    text = capsys.readouterr().out
    assert text.rstrip() == (out / "benchmark.md").read_text().rstrip()
    rows = [line for line in text.splitlines() if line.startswith("| everything")]
    assert [row.split("|")[2].strip() for row in rows] == [
        "plain loop, no workers",
        "finetune",
    ]


def test_ratios_compare_within_each_round(bench: Any) -> None:
    # In the second round, both the machine and the contestant are half as fast.
    ours, theirs = [40.0, 20.0, 60.0], [10.0, 5.0, 20.0]
    found = bench("spread").ratio(ours, theirs)
    assert (found.median, found.low, found.high) == (4.0, 3.0, 4.0)
    assert found.text(2) == "4.00 (3.00 to 4.00)"
    assert bench("spread").Spread.of([3.0]).text() == "3.0"
    # The first epoch is left out, unless it is the only one.
    assert outcome(bench, 1, 30, 50).images_per_second == 40
    assert outcome(bench, 7).images_per_second == 7


def test_the_speed_table_divides_by_the_faster_plain_loop(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = {
        "plain-w0": (10, 20),
        "plain-w2": (5, 8),
        "timm-w0": (20, 40),
        "finetune": (30, 40),
        "ceiling": (40, 50),
    }
    outcomes = {name: [outcome(bench, 1, each) for each in speeds] for name, speeds in rounds.items()}
    failed = bench("contest").Outcome(error="it broke")
    outcomes["plain-head-w0"] = [failed]
    lines = bench("report").speed_table(outcomes).splitlines()
    cells = {tuple(map(str.strip, line.split("|")[1:3])): line.split("|")[3:] for line in lines[2:]}
    ours = [cell.strip() for cell in cells["everything", "finetune"]]
    assert ours[:4] == [
        "35.0 (30.0 to 40.0)",
        "2.50 (2.00 to 3.00)",
        "1.25 (1.00 to 1.50)",
        "0.78 (0.75 to 0.80)",
    ]
    assert ours[5:7] == ["0.0", "2"]  # start: reported after one second, which the epoch took
    assert cells["head", "plain loop, no workers"][0].strip() == "failed"
    contestant, packages = bench("contestants").Contestant, bench("contestants").PACKAGES
    away = property(lambda each: each.tool if each.tool in packages else None)
    monkeypatch.setattr(contestant, "missing", away)
    asked = [each for each in bench("contestants").SPEED if each.tool in packages]
    lines = bench("report").speed_table(bench("contest").rounds(asked, 1, None, None)).splitlines()
    absent = [line.split("|")[2:4] for line in lines if "not installed" in line]
    ways = [f"{package}, {workers}" for package in packages for workers in ("no workers", "2 workers")]
    assert [title.strip() for title, _ in absent] == [*ways, "timm, no workers, fp32"]


def test_time_to_the_plain_loops_accuracy(bench: Any) -> None:
    # It ends with 0.8, which it first reached after its second epoch.
    plain = outcome(bench, 1, 1, 1, tops=(0.5, 0.8, 0.8), every=10)
    ours = outcome(bench, 1, 1, tops=(0.7, 0.9), every=2)
    never = outcome(bench, 1, tops=(0.7,))
    outcomes = {"plain": [plain, plain], "finetune-head": [ours, ours], "finetune-solved": [ours, never]}
    report = bench("report")
    assert report.times_to(outcomes, "plain", [0.8, 0.8]) == ("20.0", "")
    assert report.times_to(outcomes, "finetune-head", [0.8, 0.8]) == ("4.0", "5.00")
    assert report.times_to(outcomes, "finetune-solved", [0.8, 0.8])[0] == "not reached in 1 of 2 rounds"
    lines = report.accuracy_table(outcomes).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [
        "plain loop, everything",
        "finetune, head",
        "finetune, head solved",
    ]


def test_every_benchmark_recipe_is_valid(bench: Any, job: Any) -> None:
    contest, contestants = bench("contest"), bench("contestants")
    scene = contest.Scene(job, {"everything": 0, "first k": 4, "head": 9}, 1)
    for rows, phase in ((contestants.SPEED, bench("parts").SGD), (contestants.ACCURACY, {})):
        for each in rows:
            if each.tool == "finetune":
                recipe = parse_recipe(yaml.safe_dump(scene.recipe_of(each, 3, phase)), each.name)
                (section,) = recipe.train.phases
                assert (recipe.seed, recipe.train.batch_size, recipe.data.image_size) == (3, 8, 32)
                assert section.freeze == {"everything": 0, "first k": 4, "head": "backbone"}[each.work]
                assert recipe.train.augment.flip == bool(each.train.get("augment"))


def test_the_advised_contestant_gets_the_images(
    bench: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest, contestants = bench("contest"), bench("contestants")
    given: list[list[str]] = []

    def run(words: list[str], threads: int, cache: Path) -> Any:
        given.append(words)
        return bench("process").Ended(1, ((0.1, "no"),), 0.1, 1)

    monkeypatch.setattr(contest, "run", run)
    (advised,) = (each for each in contestants.ACCURACY if each.advised)
    with pytest.raises(contest.ContestantError, match="no"):
        contest.take_turn(contest.Scene(job, {"everything": 0}, 1), advised, 0, {})
    ((*words, _, _),) = given
    settings = ["model.backbone=resnet18", "model.weights=none", "data.image_size=32"]
    pairs = [word for setting in settings for word in ("--set", setting)]
    assert words == ["-m", "finetune", "train", job.folder, *pairs]


def test_growth_per_image(bench: Any, tmp_path: Path, job: Any) -> None:
    scene = bench("contest").Scene(job, {}, 1)
    points = bench("growth").points(scene, fewest=8, layers=9)
    axes = {axis: [p.value for p in points if p.axis == axis] for axis in {p.axis for p in points}}
    assert axes == {"images": [8, 32, 128], "classes": [4, 16, 64], "frozen layers": [0, 2, 4, 7, 9]}
    by_name = {point.name: point for point in points}
    assert by_name["classes-64"].scene.job.images == by_name["frozen layers-7"].scene.job.images == 32
    recipe = by_name["frozen layers-7"].scene.recipe_of(by_name["frozen layers-7"].contestant, 0, {})
    assert recipe["train"]["phases"][0]["freeze"] == 7
    # Sixteen times the images in thirty-two times the time: twice the cost per image.
    fake = {"images-8": 8.0, "images-128": 4.0}
    outcomes = {name: [outcome(bench, 1, speed)] for name, speed in fake.items()}
    cells = [line.split("|") for line in bench("report").growth_table(outcomes, points).splitlines()[2:]]
    assert [cell[4].strip() for cell in cells] == ["1.00", "2.00"]


def test_copies_of_an_image_differ_as_files(bench: Any, shapes: Path, tmp_path: Path) -> None:
    images = bench("images")
    split = images.read_splits(str(shapes), seed=0).splits["train"]
    images.lay_out_copies(split, tmp_path, images=80, classes=4)
    files = sorted((tmp_path / "train").rglob("*.jpg"))
    assert len(files) == 80 > len(split)
    assert len({path.read_bytes() for path in files}) == 80
    again = images.read_splits(str(tmp_path), seed=0)
    assert again.splits["train"].class_counts(4).tolist() == [20] * 4
    assert again.splits["val"].class_counts(4).tolist() == [2] * 4


@pytest.mark.parametrize("origin", ["shapes", "digits"])
def test_images_are_linked_or_written(bench: Any, shapes: Path, tmp_path: Path, origin: str) -> None:
    """Files are linked, other images are written, and no class is empty."""
    images = bench("images")
    source = images.read_splits(str(shapes) if origin == "shapes" else "digits", seed=0)
    counts = images.lay_out(source, tmp_path, train=20, val=1, seed=0)
    classes = len(source.classes)
    assert counts == {"train": 20, "val": classes}
    laid = images.read_splits(str(tmp_path), seed=0)
    assert {name: len(split) for name, split in laid.splits.items()} == counts
    assert laid.splits["train"].class_counts(classes).min() > 0
    links = [path.is_symlink() for path in tmp_path.rglob("*.png")]
    assert len(links) == 20 + classes
    assert all(links) is (origin == "shapes")


def test_the_plain_loop_trains(
    bench: Any, job: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two colours are easy to learn, in any crop."""
    for split in ("train", "val"):
        for name, colour in (("blue", (20, 40, 220)), ("red", (220, 40, 20))):
            (tmp_path / "colours" / split / name).mkdir(parents=True)
            for index in range(8):
                image = Image.new("RGB", (40, 40), tuple(part + index for part in colour))
                image.save(tmp_path / "colours" / split / name / f"{index}.png")
    bench("plain_loop").run(replace(job, folder=str(tmp_path / "colours"), images=16))
    facts, *epochs = printed(capsys)
    assert facts["trained"] == facts["parameters"]
    assert [epoch["images"] for epoch in epochs] == [16] * job.epochs
    assert epochs[-1]["loss"] < 0.5 * epochs[0]["loss"]
    assert all(epoch["val_top1"] in [correct / 16 for correct in range(17)] for epoch in epochs)


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # timm leaves files open
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("work", ["first k", "head"])
def test_all_contestants_train_the_same_part(
    bench: Any, job: Any, work: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layers that finetune's `freeze` leaves trainable."""
    network = build(ModelSection(backbone="resnet18", weights="none"), 2, seed=0)
    k = {"first k": 4, "head": 9}[work]
    Freeze(network.module, network.table, k).apply()
    sizes = [(each.numel(), each.requires_grad) for each in network.module.parameters()]
    expected = (sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains))
    loops = ["plain_loop", "ceiling", *(["timm_loop"] if find_spec("timm") else [])]
    for loop in loops:
        bench(loop).run(replace(job, work=work, epochs=1, images=8, judge=False))
        facts, epoch = printed(capsys)
        assert (facts["parameters"], facts["trained"]) == expected, loop
        assert epoch["images"] == (8 if loop == "ceiling" else 32), loop


def test_all_contestants_begin_with_finetunes_weights(bench: Any, job: Any) -> None:
    seeded = replace(job, seed=3)
    facts = bench("network").write_start(seeded)
    module, _ = bench("network").begin(seeded)
    network = build(ModelSection(backbone="resnet18", weights="none"), 2, seed=3)
    ours = network.module.state_dict()
    assert module.state_dict().keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in module.state_dict().items())
    assert facts["frozen"] == {"everything": 0, "first k": 4, "head": 9}


def test_a_failed_contestant_is_reported_and_left_out(bench: Any) -> None:
    contest, contestants = bench("contest"), bench("contestants")
    entered = [contestants.Contestant(name, name, "plain", "everything") for name in ("good", "bad")]
    turns = []

    def turn(each: Any, number: int) -> Any:
        turns.append((each.name, number))
        if each.name == "bad":
            raise contest.ContestantError("out of luck")
        return outcome(bench, 1, 2)

    said: list[str] = []
    outcomes = contest.rounds(entered, 2, turn, said.append)
    # In turns; the failed one does not run again.
    assert turns == [("good", 0), ("bad", 0), ("good", 1)]
    assert "out of luck" in said[1]
    results = bench("report").Results({}, {}, speed=outcomes)
    assert results.failed
    assert bench("report").succeeded(outcomes, "bad") == ()


def test_lines_and_memory_of_a_process_are_measured(bench: Any, tmp_path: Path) -> None:
    words = "import sys, time; print('one', flush=True); time.sleep(0.3); sys.exit('two')"
    ended = bench("process").run(["-c", words], 3, tmp_path)
    assert ended.code == 1
    assert ended.last_words == "one\ntwo"
    (first, _), (last, _) = ended.lines
    assert 0 < first <= last - 0.3 <= ended.seconds
    assert ended.peak_bytes > 1e6
    words = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['FINETUNE_CACHE'])"
    assert bench("process").run(["-c", words], 3, tmp_path).last_words == f"3 {tmp_path}"


def test_an_unknown_option_is_refused(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        script.main(["photos", "--only", "keras"])
    assert end.value.code == 2
    assert "no such thing: keras" in capsys.readouterr().err
    assert script.main(["/nowhere/at/all"]) == 2
    # A given option overrides --quick.
    wanted = script.parse(["photos", "--quick", "--image-size", "64"])
    assert (wanted.image_size, wanted.rounds) == (64, 1)
