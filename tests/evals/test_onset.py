"""The activations' mean, and the death that it foretells, where both are known."""

from __future__ import annotations

import pytest
import torch

from aligned.evals.onset import expected_dead, gamma, mean_share


def drawn(ratio: float, n: int = 2000, d_in: int = 400) -> torch.Tensor:
    """Normal activations whose mean is `ratio` times as long as their spread."""
    random = torch.Generator().manual_seed(0)
    mean = torch.randn(d_in, generator=random)
    return torch.randn(n, d_in, generator=random) + ratio * d_in**0.5 * mean / mean.norm()


def test_a_mean_is_found() -> None:
    x = drawn(2.0)
    assert mean_share(x) == pytest.approx(4 / 5, abs=0.01)
    assert gamma(x) == pytest.approx(2, rel=0.03)
    lengths = 0.1 + torch.rand(len(x), 1, generator=torch.Generator().manual_seed(2))
    assert gamma(lengths * x) == pytest.approx(gamma(x), rel=1e-4)  # each token is normalised for itself
    assert mean_share(x - x.mean(0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("ratio", [0.0, 3.0, 10.0])
def test_so_many_random_directions_are_dead(ratio: float) -> None:
    x = drawn(ratio)
    e = torch.randn(x.shape[1], 8000, generator=torch.Generator().manual_seed(1))
    f = x @ e
    of = gamma(x) if ratio else 0.0
    dead = (f <= 0).all(0).float().mean().item()
    assert expected_dead(of, 8000, n=len(x)) == pytest.approx(dead, abs=0.02)
    kept = torch.zeros_like(f, dtype=torch.bool).scatter_(1, f.topk(80, dim=1).indices, True)
    dead = (~kept).all(0).float().mean().item()
    if ratio:  # with a small mean a feature has many rivals, and the formula, which has one threshold, says too little
        assert expected_dead(of, 8000, 80, len(x)) == pytest.approx(dead, abs=0.1)


def test_what_can_not_be() -> None:
    with pytest.raises(ValueError, match="gamma is -1"):
        expected_dead(-1, 100)
    with pytest.raises(ValueError, match="and k 100"):
        expected_dead(1, 100, 100)
