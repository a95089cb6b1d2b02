"""mixup and cutmix: images and targets are mixed alike, and the key decides."""

import pytest
import torch
from scipy import stats

from finetune.data.batches.mixing import BatchMixer


def test_mixup_mixes_images_and_targets_alike() -> None:
    images, targets = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed, soft = BatchMixer(0.8, 0.0, 3)(images, targets, key=4)
    share = soft[1, 1].item()
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0))
    one_hot = torch.eye(3)[targets]
    torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot.roll(1, 0))
    assert soft.dtype == torch.float32


def test_cutmix_weighs_targets_by_the_pasted_area() -> None:
    images, targets = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    mixed, soft = BatchMixer(0.0, 1.0, 4)(images, targets, key=0)
    from_other = (mixed == images.roll(1, 0)).all(1)
    from_own = (mixed == images).all(1)
    assert (from_other ^ from_own).all()
    torch.testing.assert_close(soft[2, 2].item(), from_own[2].float().mean().item())


def test_mixup_draws_from_its_beta_distribution() -> None:
    images, targets = torch.zeros(2, 3, 2, 2), torch.tensor([0, 1])
    mixer = BatchMixer(0.4, 0.0, 2)
    shares = [mixer(images, targets, key)[1][0, 0].item() for key in range(400)]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_with_both_alphas_each_batch_uses_one_method() -> None:
    images, targets = torch.rand(4, 3, 16, 16), torch.arange(4)
    mixer = BatchMixer(1.0, 1.0, 4)
    cut = [
        bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
        for mixed, _ in (mixer(images, targets, key) for key in range(60))
    ]
    assert 15 < sum(cut) < 45


def test_the_key_decides_the_mix() -> None:
    images, targets = torch.rand(4, 3, 8, 8), torch.arange(4)
    mixer = BatchMixer(1.0, 1.0, 4)
    before = torch.get_rng_state()
    first, second, third = (mixer(images, targets, key)[0] for key in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_fewer_than_two_images_stays_as_it_is(count: int) -> None:
    images, targets = torch.rand(count, 3, 8, 8), torch.full((count,), 2)
    mixed, soft = BatchMixer(1.0, 1.0, 3)(images, targets, 1)
    assert torch.equal(mixed, images)
    assert soft.tolist() == [[0.0, 0.0, 1.0]] * count
