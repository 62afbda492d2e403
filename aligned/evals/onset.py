"""Where features are to be expected to die: how large the activations' mean is beside their spread (arXiv 2605.31518).

A feature reads a direction e. If e points at random, its pre-activation has the mean <e, mean x> and a spread that is
about |sigma| / sqrt(d_in) for every e, while <e, mean x> differs from feature to feature with the spread
|mean x| / sqrt(d_in). In units of the spread of its pre-activation, the mean of a feature's pre-activation is thus
gamma z, with gamma = |mean x| / |sigma| and z from a normal distribution. The largest pre-activation among n tokens
lies C spreads above that mean (for C see `expected_dead`).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

_NORMAL = NormalDist()


def mean_share(x: Float[Tensor, "n d_in"]) -> float:
    """|mean x|^2 / E|x|^2: the share of the activations' square that is their mean's, between 0 and 1.

    Raises:
        ValueError: as `gamma`.
    """
    x = _checked(x)
    return float(x.mean(0).square().sum() / x.square().sum(1).mean())


def gamma(x: Float[Tensor, "n d_in"]) -> float:
    """|mean x| / |sigma| of activations that are normalised, each token for itself, to mean 0 and variance 1 (as a
    layer norm does), sigma being the standard deviation of each of the d_in coordinates.

    Raises:
        ValueError: activations that are not `[n, d_in]` with n of 2 or more, not finite, or all 0.
    """
    x = _checked(x)
    x = torch.nn.functional.layer_norm(x, x.shape[1:])
    return float(x.mean(0).norm() / x.std(0).norm())


def expected_dead(gamma: float, d_sae: int, k: int | None = None, n: int = 100_000) -> float:
    """The share of features at random directions that none of n tokens activates.

    With a ReLU this share is Phi(-C / gamma), the probability that gamma z + C lies below 0. With TopK a feature must
    exceed the k-th largest of d_sae features, whose z is t_k, and the share is Phi(t_k - C / gamma). C = Phi^-1(1 - 1 /
    n), t_k = Phi^-1(1 - k / d_sae), by arXiv 2605.31518.

    Args:
        gamma: of the activations; 0, where they are centred.
        d_sae: number of features.
        k: of TopK; None for a ReLU.
        n: tokens.

    Raises:
        ValueError: a gamma that is not 0 or more, a k that is not below d_sae, or fewer than 2 tokens.
    """
    if not 0 <= gamma < math.inf or (k is not None and not 0 < k < d_sae):
        raise ValueError(f"gamma is {gamma} and k {k}; gamma is 0 or more, and k lies between 0 and d_sae, {d_sae}")
    if not 2 <= n < math.inf:
        raise ValueError(f"n is {n}; the strongest of n tokens is at least one of 2")
    if gamma == 0:
        return 0.0
    least = 0.0 if k is None else _NORMAL.inv_cdf(1 - k / d_sae)
    reach = _NORMAL.inv_cdf(1 - 1 / n) / gamma
    return _NORMAL.cdf(least - reach) if math.isfinite(reach) else 0.0


def _checked(x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
    """Activations in float64, of which there is a mean and a spread."""
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) < 2 or not x.isfinite().all() or not x.any():
        raise ValueError(
            f"activations, [n, d_in], of 2 tokens or more are needed, finite and not all 0; this is of type "
            f"{type(x).__name__} {tuple(getattr(x, 'shape', ()))}"
        )
    return x.double()
