"""Help and usage errors import nothing heavy, so they answer at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.testing

import finetune
from finetune.cli.commands import COMMANDS
from finetune.cli.main import command_line

HEAVY = (
    "torch", "torchvision", "numpy", "sklearn", "scipy", "matplotlib", "PIL", "onnxruntime",
    "yaml", "finetune.recipe.schema",
)  # fmt: skip

PROBE = """
import sys
sys.argv = ["finetune", *sys.argv[1:]]
from finetune.cli.main import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
heavy = [name for name in {heavy!r} if name in sys.modules]
print("HEAVY", ",".join(heavy), "CODE", code)
"""


def run(*words: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--help",), ("--version",), ("train", "--help"), ("eval", "--help"), ("predict", "--help"),
        ("export", "--help"), ("layers", "--help"), ("recipe", "--help"), ("recipe", "show", "--help"),
        ("doctor", "--help"), ("compare", "--help"), ("cv", "--help"), ("lr", "--help"), ("probe", "--help"),
        ("rank", "--help"),
        ("cache", "--help"), ("cache", "info"), ("cache", "clear"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert run(*words)[0] == "HEAVY  CODE 0"


@pytest.mark.parametrize(
    "words",
    [
        ("layers", "resnt18"), ("trian", "x.yaml"), ("train",), ("backbones", "--sort", "colour"),
        ("train", "a.yaml", "--resume", "--overwrite"), ("eval", "runs/x", "--split", "tset"),
        ("export", "runs/x", "--format", "onx"), ("rank", "photos", "--backbones", "resnt18"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors_import_nothing_heavy_and_exit_2(words: tuple[str, ...]) -> None:
    last, errors = run(*words)
    assert last == "HEAVY  CODE 2"
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "words", [("--out", "x.foo"), ("--format", "onx"), ("--opset", "17"), ("--opset", "20", "--out", "m.pt2")]
)
def test_a_wrong_export_of_a_run_is_refused_before_torch_is_loaded(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "resolved.yaml").touch()
    last, errors = run("export", str(tmp_path), *words)
    assert last == "HEAVY  CODE 2"
    assert words[0].removeprefix("--") in errors or "must end in one of .onnx" in errors


def test_help_loads_no_subcommand_and_a_subcommand_loads_no_other() -> None:
    script = (
        "import sys; sys.argv = ['finetune', *sys.argv[1:]]\n"
        "from finetune.cli.commands import COMMANDS; from finetune.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "loaded = {f'finetune.cli.{word}' for word in COMMANDS} & set(sys.modules)\n"
        "print('LOADED', *loaded)\n"
    )
    for words, loaded in {("--help",): "", ("--version",): "", ("rank", "-h"): " finetune.cli.rank"}.items():
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == f"LOADED{loaded}"


def test_the_command_list_has_each_subcommands_own_help_line() -> None:
    unloaded, loaded = (
        typer.testing.CliRunner().invoke(command_line(names), ["--help"], terminal_width=200).output
        for names in ((), COMMANDS)
    )
    assert unloaded == loaded
    assert all(word in loaded for word in COMMANDS)


@pytest.mark.parametrize(
    ("line", "found"), [("finetune tr", "train"), ("finetune train x.yaml --resu", "--resume")]
)
def test_shell_completion_completes_words(line: str, found: str) -> None:
    asked = {"_FINETUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("finetune"))],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
    )
    assert done.stdout.split() == [found]


def test_the_probe_sees_a_heavy_import() -> None:
    script = PROBE.format(heavy=HEAVY).replace("code = 0\n", "code = 0\nimport yaml\n", 1)
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    assert "HEAVY yaml" in done.stdout


def test_listing_backbones_needs_no_torch() -> None:
    assert run("backbones", "--json")[0] == "HEAVY  CODE 0"


def test_a_refused_start_imports_almost_nothing(tmp_path: Path) -> None:
    """A refused start imports only modules that the interpreter has loaded anyway."""
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "runs" / "recipe").mkdir(parents=True)
    (tmp_path / "runs" / "recipe" / "resolved.yaml").touch()
    script = """
import sys
before = set(sys.modules)
from finetune.cli.start import main
sys.argv = ["finetune", "train", "recipe.yaml"]
try:
    main()
except SystemExit as end:
    print(end.code, *sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import os\n" + script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(finetune.__file__).parent.parent)},
    )
    assert "holds a run already" in done.stderr
    assert done.stdout.split() == ["2", "errno", "fcntl", "finetune"]


@pytest.mark.parametrize("module", ["finetune.training.fit", "finetune.training.trained"])
def test_training_and_evaluation_do_not_import_scipy_and_scikit_learn(module: str) -> None:
    """scipy and scikit-learn take longer to import than the first steps of a small run."""
    script = f"import sys, {module}; print(*{{'scipy', 'sklearn', 'matplotlib'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
