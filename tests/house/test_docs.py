"""The documentation: links lead somewhere, files that it names exist, and its examples run."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import finetune
from finetune.cli.commands import COMMANDS
from finetune.training.run import files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "configs").glob("*.md")])
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
# What a page calls by its path within the repository.
OWN_FILE = re.compile(r"(?<![\w/])((?:tests|finetune|scripts|docs|configs)/[\w./-]*\w)")
WRITTEN_BY_SCRIPTS = "measured"


def without_code(text: str) -> str:
    """The text without fenced blocks and code spans, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", each.replace("`", "").lower()).replace(" ", "-") for each in headings}


def broken_links(page: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(without_code(text)):
        if re.match(r"(https?|mailto):", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            yield f"{page.name}: {target}"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
            yield f"{page.name}: {target} (no such heading)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


def test_a_broken_link_would_be_found() -> None:
    page = DOCS / "README.md"
    text = "[a](no-such-page.md) [b](design.md#no-such-heading) [c](design.md#words) `[d](code.md)`"
    assert len(list(broken_links(page, text))) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {name for span in re.findall(r"`([^`\n]*)`", text) for name in OWN_FILE.findall(span)}
    # A placeholder such as NAME stands for many files.
    named = {name for name in named if not re.search(r"[A-Z]{4}", name)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}
    # The lessons have an index of their own (tests/end_to_end/test_lessons.py).
    pages -= {name for name in pages if name.startswith("lessons/") and name != "lessons/README.md"}
    assert pages == {link.partition("#")[0] for link in LINK.findall(index) if not link.startswith("..")}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_room_is_in_the_design() -> None:
    rooms = {path.parent.name for path in Path(finetune.__file__).parent.glob("*/__init__.py")}
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    assert {room for room in rooms if f"`finetune/{room}/`" not in text} == set()


def test_every_command_is_described() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert {name for name in COMMANDS if f"finetune {name}" not in text} == set()


def test_every_file_of_a_run_is_described() -> None:
    text = (DOCS / "run-directory.md").read_text(encoding="utf-8")
    names = (*files.OWN_FILES, *files.OWN_FOLDERS, files.LOCK)
    assert [name for name in names if f"`{name}" not in text] == []


# The examples of docs/run-directory.md.


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains a step of a backbone with random weights on six drawn classes: ``runs/a`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(backbone: str) -> Path:
        random = np.random.default_rng(0)
        for name in "abcdef":
            for number in range(6):
                path = tmp_path / "photos" / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (40, 52, 3), np.uint8)).save(path)
        recipe = {
            "data": {"source": "photos", "image_size": 32, "workers": 0},
            "model": {"backbone": backbone, "weights": "none"},
            "train": {
                "max_steps": 1,
                "batch_size": 8,
                "phases": [{"freeze": "none", "epochs": 1, "lr": 1e-3}],
            },
        }
        finetune.train(recipe, run_dir="runs/a")
        return tmp_path / "runs" / "a"

    return make


@pytest.mark.parametrize(("backbone", "which"), [("resnet18", 0), ("timm:resnet18", 1)])
def test_the_weights_load_into_the_plain_library(
    backbone: str, which: int, make_run: Callable[..., Path]
) -> None:
    import safetensors.torch
    import torchvision

    timm = pytest.importorskip("timm") if backbone.startswith("timm") else None
    make_run(backbone)
    lines = [block for block in blocks("run-directory.md", "") if "load_state_dict" in block]
    names: dict[str, Any] = {"torchvision": torchvision, "timm": timm, "safetensors": safetensors}
    exec(lines[which], names)
    images = torch.randn(2, 3, 32, 32)
    own = finetune.load("runs/a").module.cpu()
    with torch.no_grad():
        # Another memory format rounds otherwise.
        assert torch.allclose(names["model"].eval()(images), own(images), atol=1e-5)


def test_preprocessing_without_this_package(
    make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    run = make_run("resnet18")
    finetune.load(run).export("model.onnx")
    (code,) = blocks("run-directory.md", "python")
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (97, 61, 3), np.uint8))
    photo.save("photo.jpg")
    names: dict[str, Any] = {}
    exec(code, names)
    (expected,) = finetune.load("model.onnx").predict(["photo.jpg"])
    found = dict(zip(names["card"]["classes"], names["probabilities"], strict=True))
    assert found == pytest.approx(dict(expected.ranking()), abs=1e-6)
    assert capsys.readouterr().out.split()[0] == expected.label
