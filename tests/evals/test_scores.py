"""The shape of score distributions, and what a dictionary does on new text, where both are known."""

from __future__ import annotations

import math

import pytest
import torch

from aligned.evals.activity import behaviour
from aligned.evals.scores import histogram, modes
from aligned.sae import SAE


def normal(n: int, mean: float, spread: float, seed: int) -> torch.Tensor:
    return mean + spread * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_two_peaks_are_told_from_one() -> None:
    two = modes(torch.cat([normal(1500, 0.95, 0.05, 0), normal(500, 0.15, 0.05, 1)]))
    assert two["dip_p"] < 0.001
    assert 0.05 < two["dip"] <= 0.125  # half of the smaller group's share, were each group a point
    variance = 0.8**2 * 0.25 * 0.75 + 0.05**2
    assert two["spread"] == pytest.approx(variance**0.5, abs=0.01)
    apart = -2 * (
        0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    )  # what it costs to say of each score which group's it is
    gain = math.log(variance / 0.05**2) - apart - 3 * math.log(2000) / 2000  # three parameters more
    assert two["bic_gain"] == pytest.approx(gain, abs=0.1)
    assert two["low_share"] == pytest.approx(0.25, abs=0.001)
    assert two["below_half"] == pytest.approx(0.25, abs=0.001)
    assert two["low_mean"] == pytest.approx(0.15, abs=0.01)
    assert two["high_mean"] == pytest.approx(0.95, abs=0.01)
    one = modes(normal(2000, 0.9, 0.05, 2))
    assert one["dip_p"] > 0.1
    assert one["dip"] < 0.01
    assert one["bic_gain"] < 0.01


def test_a_tail_is_not_a_second_peak() -> None:
    skewed = 1 - torch.distributions.Exponential(torch.tensor(10.0)).sample((2000,))
    found = modes(skewed)
    assert found["dip_p"] > 0.1  # one peak
    assert found["bic_gain"] > 0  # though two normal distributions describe it better


def test_scores_that_are_all_one_have_no_modes() -> None:
    found = modes(torch.ones(100) + 1e-6 * torch.arange(100))
    assert found["dip_p"] == 1
    assert found["low_share"] == found["bic_gain"] == 0
    assert found["high_mean"] == pytest.approx(1, abs=1e-3)


def test_scores_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 3 scores"):
        modes(torch.ones(3))
    with pytest.raises(ValueError, match="1 of the 10 scores are not finite"):
        modes(torch.tensor([1.0] * 9 + [torch.nan]))


def test_the_histogram_counts_every_score() -> None:
    shares = histogram(torch.tensor([-3.0, 0.1, 0.9, 0.95, 5.0]), 2, 0.0, 1.0)
    assert shares.tolist() == pytest.approx([0.4, 0.6])


def half_dictionary() -> SAE:
    """Writes down the first four of eight axes, at 0.8 of their length; feature 4 fires always, feature 5 never."""
    sae = SAE(8, 6, "relu", 0.0, "none")
    with torch.no_grad():
        sae.W_dec.zero_(), sae.free.zero_()
        for i in range(4):
            sae.free[i, i], sae.W_dec[i, i] = 1.0, 0.8
        sae.b_enc[4], sae.b_enc[5] = 1.0, -1.0
    return sae


def test_behaviour_where_it_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    often = torch.tensor([0.05, 0.05, 0.05, 0.2, 0.05, 0.05, 0.05, 0.05])
    fires = torch.rand(8000, 8, generator=generator) < often
    x = torch.rand(8000, 8, generator=generator) * fires
    found = behaviour(half_dictionary(), x)
    assert found["dead"] == pytest.approx(1 / 6)
    assert found["dense"] == pytest.approx(2 / 6)
    bins = {int((7 + math.log10(share)) / 7 * 36): count for share, count in ((0.05, 3), (0.2, 1))} | {35: 1}
    assert found["density"] == pytest.approx([bins.get(i, 0) / 6 for i in range(36)])
    assert found["shrinkage"] == pytest.approx(0.25, abs=1e-4)  # 1 / 0.8
    assert found["dark_matter"] == pytest.approx(1, abs=1e-5)  # the error is a linear map of x
    assert (found["l0_p05"], found["l0_p50"], found["l0_p95"]) == (1, 1, 2)  # 0.69, 0.28 and 0.03 of 1, 2 and more


def test_only_an_error_that_can_be_read_off_linearly_is_dark_matter() -> None:
    x = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    sae = SAE(8, 4000, "topk", 1, "tied")
    assert behaviour(sae, x)["dark_matter"] > 0.1  # one feature a token reads too little of x
    even = SAE(1, 2, "relu", 0.0, "none").requires_grad_(False)  # x_hat = x + |x| / 2: what is off is no line in x
    even.free.copy_(torch.tensor([[1.0], [-1.0]])), even.W_dec.copy_(torch.tensor([[1.5], [-0.5]]))
    found = behaviour(even, x[:, :1])
    assert found["error"] > 0.4
    assert found["dark_matter"] == pytest.approx(0, abs=0.01)
    exact = SAE(8, 16, "relu", 0.0, "none")
    with torch.no_grad():
        rows = torch.cat([torch.eye(8), -torch.eye(8)])
        exact.W_dec.copy_(rows), exact.free.copy_(rows)
    found = behaviour(exact, x)
    assert found["error"] == pytest.approx(0, abs=1e-5)
    assert found["dark_matter"] == 0


def test_sums_over_chunks_are_the_direct_computation() -> None:
    generator = torch.Generator().manual_seed(3)
    x = 5 + torch.randn(9001, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    sae = SAE(8, 40, "topk", 2, "none", seed=1).requires_grad_(False)
    found, x_hat = behaviour(sae, x), sae(x)
    error, half = (x - x_hat).double(), 4500
    one = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    missed = error[half:] - one[half:] @ torch.linalg.lstsq(one[:half], error[:half]).solution
    share = 1 - missed.square().sum() / (error[half:] - error[half:].mean(0)).square().sum()
    assert found["dark_matter"] == pytest.approx(share.item(), abs=1e-6)
    centred, centred_hat = x - x.mean(0), x_hat - x_hat.mean(0)
    factor = torch.linalg.lstsq(centred_hat.reshape(-1, 1), centred.reshape(-1, 1)).solution.item()
    assert found["shrinkage"] == pytest.approx(factor - 1, abs=1e-4)
    assert found["error"] == pytest.approx((error.norm(dim=1) / centred.norm(dim=1)).mean().item(), rel=1e-4)


def test_too_few_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 32 activations, and there are 31"):
        behaviour(half_dictionary(), torch.zeros(31, 8))
    with pytest.raises(ValueError, match="width 7, and the SAE reads 8"):
        behaviour(half_dictionary(), torch.zeros(100, 7))


def test_a_token_that_is_the_mean_is_refused() -> None:
    axes = torch.eye(8)
    with pytest.raises(ValueError, match=r"^error of these activations is not finite; a token equals their mean"):
        behaviour(half_dictionary(), torch.cat([axes, -axes, axes, -axes, torch.zeros(1, 8)]))
