"""A run restores the settings of its process, and does not depend on them."""

import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from finetune.errors import FinetuneError
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe, TrainSection
from finetune.strategy.experiments.crossval import train_folds
from finetune.strategy.experiments.lr_range import range_test
from finetune.strategy.experiments.repeat import RunOptions, train_in_place, train_seeds
from finetune.strategy.probing import probe as strategy
from finetune.training.compute import allocator
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import choose_compute
from finetune.training.fit import fit
from finetune.training.progress import Progress
from finetune.training.run.directory import RunDir

CPU = torch.device("cpu")
TRAIN = "batch_size: 6, phases: [{freeze: none, epochs: 1}], "


def settings() -> dict[str, Any]:
    """All that training sets, or that would change what it computes."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cuDNN is deterministic": torch.backends.cudnn.deterministic,
        "cuDNN tries out": torch.backends.cudnn.benchmark,
        "cuDNN's TF32": torch.backends.cudnn.allow_tf32,
        "products": torch.get_float32_matmul_precision(),
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "generator": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "allocator": allocator.less_retained,
        "SIGINT": signal.getsignal(signal.SIGINT),
        "SIGTERM": signal.getsignal(signal.SIGTERM),
        "SIGHUP": signal.getsignal(signal.SIGHUP),
        "working directory": Path.cwd(),
    }


@contextlib.contextmanager
def another(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose setting ``name`` is another than usual."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.benchmark
    with contextlib.ExitStack() as stack:
        if name == "threads":
            torch.set_num_threads(3)
        elif name == "deterministic":
            torch.use_deterministic_algorithms(True, warn_only=True)
        elif name == "cuDNN tries out":
            torch.backends.cudnn.benchmark = True
        elif name == "products":
            torch.set_float32_matmul_precision("medium")
        elif name == "workspace":
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        elif name == "type":
            torch.set_default_dtype(torch.float64)
        elif name == "device":
            stack.enter_context(torch.device("meta"))
        elif name == "gradients":
            stack.enter_context(torch.no_grad())
        elif name == "inference":
            stack.enter_context(torch.inference_mode())
        elif name == "generator":
            torch.manual_seed(99)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.benchmark = cudnn
            torch.set_float32_matmul_precision("highest")
            torch.set_default_dtype(torch.float32)


OTHERS = ["threads", "deterministic", "cuDNN tries out", "products", "workspace", "type", "device"]
OTHERS += ["gradients", "inference", "generator"]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Recipe]:
    """``read("threads: 2")``: a recipe with that in its train section."""
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(tmp_path / "images", {"train": (8, 6), "val": (3, 3), "test": (3, 3)})

    def parse(train: str = "", phases: str = TRAIN) -> Recipe:
        return parse_recipe(
            f"data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}\n"
            f"model: {{backbone: {tiny.STANDS_FOR}, weights: none}}\ntrain: {{{phases}{train}}}\n",
            "recipe.yaml",
        )

    return parse


def weights(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints" / "last" / "model.safetensors").read_bytes()).hexdigest()


def train(recipe: Recipe, run: Path) -> str:
    with RunDir.open(run) as opened:
        fit(recipe, opened, device="cpu")
    return weights(run)


# What a first run may ask for that a second one must not get.
FIRST = {
    "threads": "threads: 2",
    "deterministic": "deterministic: true",
    "precision": "precision: bf16",
    "all": "threads: 3, deterministic: true, precision: bf16, memory_format: contiguous",
}


@pytest.mark.parametrize("first", FIRST)
def test_a_second_run_is_bit_identical_to_one_alone(first: str, read: Any, tmp_path: Path) -> None:
    second = read("precision: fp32")
    alone = train(second, tmp_path / "alone")
    before = settings()
    train(read(FIRST[first]), tmp_path / "first")
    assert settings() == before
    assert train(second, tmp_path / "second") == alone
    environment = (tmp_path / "second" / "environment.json").read_text()
    assert environment.count('"threads": 1,') == 1


def test_threads_are_those_of_the_recipe_while_it_trains(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watching(Progress):
        def step(self, epoch: int, done: int, steps: int) -> None:
            seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))

    for place, (words, expected) in enumerate(
        [("threads: 3, deterministic: true", (3, True)), ("", (1, False))]
    ):
        seen.clear()
        train_in_place(read(words), tmp_path / str(place), RunOptions("cpu"), Watching())
        assert set(seen) == {expected}


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_does_not_depend_on_the_settings_and_restores_them(
    other: str, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read("threads: 1, precision: fp32")
    alone = train(recipe, tmp_path / "alone")
    usual = settings()
    with another(other, monkeypatch):
        before = settings()
        assert before != usual or other == "inference"
        assert train(recipe, tmp_path / "run") == alone
        assert settings() == before


def test_settings_are_restored_after_a_failed_run(read: Any, tmp_path: Path) -> None:
    before = settings()
    with pytest.raises(FinetuneError):
        train(
            read("threads: 2, deterministic: true", "batch_size: 1, phases: [{freeze: 99, epochs: 1}], "),
            tmp_path / "r",
        )
    assert settings() == before


def test_every_function_that_trains_or_measures_restores_settings(read: Any, tmp_path: Path) -> None:
    recipe = read("threads: 2, deterministic: true")
    before = settings()
    options, telling = RunOptions("cpu"), lambda _place: Progress()
    for results in (
        train_seeds(recipe, tmp_path / "seeds", 2, options, telling),
        train_folds(recipe, tmp_path / "folds", 2, options, telling),
    ):
        for _ in results:
            assert settings() == before
    (depth,) = strategy.probe(recipe, device="cpu")
    assert settings() == before
    with RunDir.open(tmp_path / "probe") as run:
        strategy.save(depth, run, "finetune probe")
    assert settings() == before
    with contextlib.suppress(FinetuneError):
        range_test(recipe, steps=10, device="cpu")
    assert settings() == before


def test_choosing_settings_changes_none() -> None:
    before = settings()
    compute = choose_compute(CPU, TrainSection(threads=5, deterministic=True, precision="bf16"))
    assert (compute.threads, compute.deterministic) == (5, True)
    assert settings() == before


def test_freed_memory_is_retained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def settle(parameter: int, value: int) -> bool:
        calls.append((parameter, value))
        return True

    monkeypatch.setattr(allocator, "_set", settle)
    monkeypatch.setattr(allocator, "retained", True)
    monkeypatch.setattr(allocator, "less_retained", False)
    with in_force(choose_compute(CPU, TrainSection(precision="fp32"))):
        allocator.return_large_blocks()
    assert calls == [
        (allocator.M_MMAP_THRESHOLD, allocator.RETURNED_FROM_IN_FP32),
        (allocator.M_MMAP_THRESHOLD, allocator.RETURNED_FROM),
    ]
    calls.clear()
    with in_force(choose_compute(CPU, TrainSection(precision="bf16"))):
        pass
    assert calls == []


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_compare_trains_each_recipe_with_its_own_threads(
    order: tuple[str, str], read: Any, chdir_tmp: Path, cli: Any
) -> None:
    from finetune.recipe.load import dump_recipe

    alone = {}
    for name, words in (("a", "threads: 2, deterministic: true, precision: bf16"), ("b", "precision: fp32")):
        Path(f"{name}.yaml").write_text(dump_recipe(read(words)))
        alone[name] = train(read(words), chdir_tmp / f"alone-{name}")
    before = {name: value for name, value in settings().items() if name != "allocator"}
    ended = cli("compare", *(f"{name}.yaml" for name in order), "--device", "cpu")
    assert ended.code == 0, ended.err
    assert {name: weights(Path("runs") / name) for name in order} == alone
    after = settings()
    assert {name: after[name] for name in before} == before
