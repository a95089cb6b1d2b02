"""A package that cannot be imported gives one message and exit code 2 in every command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli.main import _expected
from finetune.errors import BrokenPackageError

# Ways in which an import fails: absent, built for another system, a missing library, a missing operator.
KINDS = {
    "absent": ('raise ModuleNotFoundError("No module named \'torch\'", name="torch")', "is not installed"),
    "import": ('raise ImportError("libcudart.so.12: not found")', "libcudart.so.12: not found"),
    "library": ('import ctypes\nctypes.CDLL("libtorch_gone.so")', "libtorch_gone.so"),
    "operator": ('raise RuntimeError("operator torchvision::nms does not exist")', "nms does not exist"),
    "needs another": ("import no_such_package_at_all", "'no_such_package_at_all' is not installed"),
}
ALL = """
import contextlib, io, json, sys
from finetune.cli.main import main
for line in sys.stdin:
    words = json.loads(line)
    sys.argv = ["finetune", *words]
    err, code = io.StringIO(), 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([words[0], code, err.getvalue()]))
"""


def commands(run: Path, shapes: Path) -> list[list[str]]:
    image = str(shapes / "test/disc/disc_00.png")
    recipe, other = "r.yaml", "s.yaml"
    for name in (recipe, other):
        Path(name).write_text(f"data: {{source: {shapes}}}\nmodel: {{backbone: resnet18, weights: none}}\n")
    return [
        ["predict", str(run), image], ["predict", "--quiet", str(run), image], ["eval", str(run)],
        ["export", str(run), "--format", "pt2"], ["train", recipe], ["train", recipe, "--seeds", "2"],
        ["train", recipe, "--smoke"], ["train", str(shapes)], ["advise", str(shapes)], ["probe", recipe],
        ["rank", str(shapes), "--backbones", "resnet18"], ["lr", recipe], ["cv", recipe],
        ["compare", recipe, other], ["layers", "resnet18"], ["layers", str(run)],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_torch_that_cannot_be_imported(
    kind: str, run: Path, shapes: Path, onnx_model: Path, chdir_tmp: Path
) -> None:
    code, said = KINDS[kind]
    (chdir_tmp / "stub/torch").mkdir(parents=True)
    (chdir_tmp / "stub/torch/__init__.py").write_text(code + "\n")
    wanted = commands(run, shapes)[: None if kind == "absent" else 3]
    image = str(shapes / "test/disc/disc_00.png")
    works = [["predict", str(onnx_model), image], ["backbones"]]
    path = os.pathsep.join([str(chdir_tmp / "stub"), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", ALL],
        input="".join(json.dumps(words) + "\n" for words in [*wanted, *works]),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(answers) == len(wanted) + len(works)
    for words, code, err in answers[: len(wanted)]:
        assert code == 2, (words, err)
        assert "Traceback" not in err
        (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert said in error
        assert "pip install" in error
        assert ("MODEL.onnx" in error) is (kind != "needs another")
    for words, code, err in answers[len(wanted) :]:
        assert code == 0, (words, err)
    assert not list(chdir_tmp.glob("runs/*"))


def test_an_error_in_finetune_itself_is_not_a_broken_package() -> None:
    assert _expected(ImportError("cannot import name 'x' from 'finetune.errors'")) is None
    assert _expected(ModuleNotFoundError("No module named 'finetune.gone'", name="finetune.gone")) is None
    assert _expected(OSError("disk")) is None
    found = _expected(ModuleNotFoundError("No module named 'yaml'", name="yaml"))
    assert isinstance(found, BrokenPackageError)
    assert str(found).endswith("Install it with: pip install yaml")
