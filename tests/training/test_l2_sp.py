"""L2-SP against closed forms and against torch's weight decay."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from finetune.errors import RecipeError, RunDirError
from finetune.model.build import build
from finetune.recipe.load import parse_recipe
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from finetune.training.session import Session
from finetune.training.steps.l2_sp import StartPenalty
from finetune.training.steps.optimizer import build_optimizer

CPU = torch.device("cpu")
START = torch.tensor([1.0, -2.0, 0.5])
AIM = torch.tensor([3.0, 1.0, -1.0])


def trained(
    kind: str, loss: Any, *, alpha: float, steps: int, start: Tensor = START, momentum: float = 0.0,
    begin: Tensor | None = None, name: str = "body/decay", weight_decay: float = 0.0, lr: float = 0.1,
) -> Tensor:  # fmt: skip
    weight = nn.Parameter((start if begin is None else begin).clone())
    group = {"name": name, "params": [weight], "param_names": ["w"], "lr": lr, "weight_decay": weight_decay}
    optimizer = build_optimizer(kind, [group], momentum=momentum, device=CPU)
    hold = StartPenalty({"w": start}, alpha)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(weight).backward()
        hold.pull(optimizer)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_without_a_loss_the_distance_shrinks_by_its_closed_form(kind: str) -> None:
    found = trained(kind, lambda w: (0 * w).sum(), alpha=0.3, steps=20, begin=AIM)
    torch.testing.assert_close(found, START + (1 - 0.1 * 0.3) ** 20 * (AIM - START))


def test_it_ends_between_start_and_aim() -> None:
    """The minimum of |w - a|^2 / 2 + alpha |w - w0|^2 / 2 is (a + alpha w0) / (1 + alpha)."""
    found = trained("sgd", lambda w: (w - AIM).square().sum() / 2, alpha=0.5, steps=400, momentum=0.5)
    torch.testing.assert_close(found, (AIM + 0.5 * START) / 1.5)


def test_with_sgd_it_is_the_papers_penalty() -> None:
    def loss(w: Tensor) -> Tensor:
        return (w - AIM).square().square().sum() / 100

    def penalised(w: Tensor) -> Tensor:
        return loss(w) + 0.2 / 2 * (w - START).square().sum()

    held = trained("sgd", loss, alpha=0.2, steps=15, momentum=0.9)
    torch.testing.assert_close(held, trained("sgd", penalised, alpha=0.0, steps=15, momentum=0.9))
    assert not torch.allclose(held, trained("sgd", loss, alpha=0.0, steps=15, momentum=0.9))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_from_a_start_of_zero_it_is_torchs_own_weight_decay(kind: str) -> None:
    def loss(w: Tensor) -> Tensor:
        return (w - AIM).square().sum()

    zero = torch.zeros(3)
    held = trained(kind, loss, alpha=0.2, steps=10, start=zero, begin=START, momentum=0.9)
    decayed = trained(kind, loss, alpha=0.0, steps=10, begin=START, momentum=0.9, weight_decay=0.2)
    torch.testing.assert_close(held, decayed)


@pytest.mark.parametrize("name", ["head/decay", "body/no_decay", "body.3/no_decay"])
def test_heads_biases_and_norms_are_not_penalized(name: str) -> None:
    assert torch.equal(trained("sgd", lambda w: (0 * w).sum(), alpha=1.0, steps=3, begin=AIM, name=name), AIM)


@pytest.mark.parametrize("name", ["body/decay", "body.3/decay"])
def test_weights_of_the_body_are_penalized(name: str) -> None:
    assert not torch.equal(
        trained("sgd", lambda w: (0 * w).sum(), alpha=1.0, steps=3, begin=AIM, name=name), AIM
    )


RECIPE = """
seed: 5
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{backbone: resnet18, weights: none, batchnorm_recalibrate: 20}}
train:
  batch_size: 8
  optimizer: {optimizer}
  schedule: constant
  ema: 0.5
  checkpoint_every_steps: 3
  l2_sp: {{alpha: {alpha}, beta: 0.3}}
  phases:
    - {{freeze: layer1.1, epochs: 2, lr: 1e-2, head_lr_mult: 1, layer_decay: 0.9}}
"""


def far(run: Path) -> float:
    """How far the body's convolutions are from their start."""
    recipe = parse_recipe((run / "resolved.yaml").read_text(), "resolved.yaml")
    start = build(recipe.model, 2, seed=recipe.seed, image_size=32).module.state_dict()
    now = safetensors.torch.load_file(run / "checkpoints" / "last" / "raw.safetensors")
    return sum(float((now[n] - start[n]).norm()) for n in now if "layer" in n and "conv" in n)


def train(path: Path, text: str, **options: Any) -> Path:
    with RunDir.open(path, resume=bool(options.get("resume"))) as directory:
        fit(parse_recipe(text, "recipe.yaml"), directory, device="cpu", continuation=Continuation(**options))
    return path


def test_a_strong_penalty_stays_near_the_start(shapes: Path, tmp_path: Path) -> None:
    free, tight = (
        train(tmp_path / f"{alpha}", RECIPE.format(source=shapes, optimizer="sgd", alpha=alpha))
        for alpha in (0.0, 20.0)
    )
    assert far(tight) < far(free) / 2


@pytest.mark.slow  # test_every_stop.py stops a run with L2-SP in the everyday run
def test_a_resumed_run_is_bit_identical(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starting weights are not in the checkpoint: they are built again."""
    text = RECIPE.format(source=shapes, optimizer="adamw", alpha=0.1)
    whole = train(tmp_path / "whole", text)
    snapshots: list[Path] = []
    save = Session.save_last

    def snapping(session: Session) -> None:
        save(session)
        if session.run.path.name == "cut":
            snapshots.append(tmp_path / f"cut{len(snapshots)}")
            shutil.copytree(session.run.path, snapshots[-1])

    with monkeypatch.context() as patched:
        patched.setattr(Session, "save_last", snapping)
        train(tmp_path / "cut", text)
    assert len(snapshots) == 5  # after steps 3 and 6, after each epoch, and at the end
    # After an epoch, and within one.
    for snapshot in snapshots[1:3]:
        train(snapshot, text, resume=True)
        for which in ("best", "last"):
            for file in (whole / "checkpoints" / which).iterdir():
                assert file.read_bytes() == (snapshot / "checkpoints" / which / file.name).read_bytes(), file
        assert (snapshot / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    environment = snapshots[3] / "environment.json"
    environment.write_text(
        environment.read_text().replace('"start_fingerprint": "', '"start_fingerprint": "0')
    )
    with pytest.raises(RunDirError, match="not the weights that the run began with"):
        train(snapshots[3], text, resume=True)


@pytest.mark.parametrize(
    ("train_keys", "where"),
    [
        ("weight_decay: 0.1", r"train\.weight_decay"),
        ("phases: [{weight_decay: 0.1}]", r"train\.phases\[0\]\.weight_decay"),
    ],
)
def test_weight_decay_with_l2_sp_is_an_error(train_keys: str, where: str) -> None:
    text = f"data: {{source: digits}}\nmodel: {{backbone: resnet18}}\ntrain:\n  l2_sp: {{}}\n  {train_keys}\n"
    with pytest.raises(RecipeError, match=rf"{where}: l2_sp replaces weight decay"):
        parse_recipe(text, "recipe.yaml")


def test_l2_sp_turns_weight_decay_off() -> None:
    text = "data: {source: digits}\nmodel: {backbone: resnet18}\ntrain: {l2_sp: {alpha: 1.0}}"
    recipe = parse_recipe(text, "recipe.yaml")
    assert recipe.train.weight_decay == recipe.train.phases[0].weight_decay == 0.0
    assert recipe.train.l2_sp is not None
    assert recipe.train.l2_sp.beta == 0.01
