"""Auxiliary classifiers: replaced with the head, weighted in the loss, unused in eval mode."""

import pytest
import torch
from torch import nn
from torchvision.models.googlenet import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from finetune.model.auxiliary import has_room, loss_and_logits
from finetune.model.build import build, rebuild
from finetune.model.freeze import Freeze
from finetune.model.param_groups import GroupRules, param_groups
from finetune.recipe.schema import ModelSection


def test_the_losses_are_weighted() -> None:
    main, first, second = torch.randn(3, 4, 5).unbind(0)
    targets = torch.tensor([0, 1, 4, 2])
    loss = nn.CrossEntropyLoss()
    plain, logits = loss_and_logits(loss, main, targets)
    assert logits is main
    assert plain == loss(main, targets)
    total, logits = loss_and_logits(loss, GoogLeNetOutputs(main, second, first), targets)
    assert logits is main
    torch.testing.assert_close(total, plain + 0.3 * loss(first, targets) + 0.3 * loss(second, targets))
    total, _ = loss_and_logits(loss, InceptionOutputs(main, first), targets)
    torch.testing.assert_close(total, plain + 0.4 * loss(first, targets))


def test_small_images_leave_no_room_for_a_classifier() -> None:
    assert has_room("googlenet", 32)
    assert has_room("inception_v3", 299)
    assert not has_room("inception_v3", 128)
    assert not has_room("resnet18", 224)


def test_too_small_images_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    section = ModelSection(backbone="inception_v3", weights="none")
    network = build(section, 3, seed=0, image_size=80)
    assert "80 px are too small for its auxiliary classifiers" in caplog.text
    assert network.architecture["auxiliary"] is False
    assert isinstance(network.module.train()(torch.rand(2, 3, 80, 80)), torch.Tensor)


def test_googlenet_trains_freezes_and_is_rebuilt() -> None:
    """Auxiliary classifiers are replaced, train at the head's rate, never freeze, and are rebuilt."""
    network = build(ModelSection(backbone="googlenet", weights="none"), 3, seed=0, image_size=64)
    module, body = network.module, len(network.table.body)
    freeze = Freeze(module, network.table, body)
    freeze.apply()
    freeze.train_mode()
    rules = GroupRules(lr=1.0, head_lr_mult=10.0, weight_decay=0.1)
    groups = param_groups(module, network.table, rules)
    assert {group["name"] for group in groups} == {"head/decay", "head/no_decay"}
    assert {n.split(".")[0] for group in groups for n in group["param_names"]} == {"aux1", "aux2", "fc"}
    optimizer = torch.optim.SGD([{**group, "lr": 0.01} for group in groups])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    output = module(torch.rand(4, 3, 64, 64))
    assert isinstance(output, GoogLeNetOutputs)
    assert [each.shape for each in output] == [(4, 3)] * 3
    loss_and_logits(nn.CrossEntropyLoss(), output, torch.tensor([0, 1, 2, 0]))[0].backward()
    optimizer.step()
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    steered = {n for n, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved <= steered == set(network.table.head.parameters)
    assert {"aux1.fc2.weight", "aux2.fc2.weight", "fc.weight"} <= moved
    again = rebuild(network.architecture, 3)
    again.load_state_dict(module.state_dict())
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again.eval()(image), module.eval()(image))
