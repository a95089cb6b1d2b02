"""Digests depend on names, values, types and shapes, and on nothing else."""

import torch
from torch import nn

from finetune.model.digests import named_digest, tensor_digest, weights_digest


def test_a_digest_does_not_depend_on_the_memory_format() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert tensor_digest(images) == tensor_digest(images.to(memory_format=torch.channels_last))
    assert tensor_digest(images) != tensor_digest(images + 1)


def test_names_types_and_shapes_count() -> None:
    zeros = torch.zeros(4)
    digests = [
        named_digest([("a", zeros)]),
        named_digest([("b", zeros)]),
        named_digest([("a", zeros.int())]),
        named_digest([("a", zeros.reshape(2, 2))]),
        named_digest([("a", zeros)], "preamble"),
    ]
    assert len(set(digests)) == len(digests)


def test_a_network_and_its_copy_have_one_digest() -> None:
    network, copy = nn.Linear(2, 3), nn.Linear(2, 3)
    assert weights_digest(network) != weights_digest(copy)
    copy.load_state_dict(network.state_dict())
    assert weights_digest(network) == weights_digest(copy)
