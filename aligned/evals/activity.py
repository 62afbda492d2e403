"""What a dictionary does on new text: how often features fire, how large the error is, and of what kind."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.evals.fits import check_activations
from aligned.sae import SAE

DENSITIES = (36, -7.0, 0.0)  # bins of log10 density, from there to there
PER_DIMENSION = 4  # activations that dark matter is fitted and scored on, at least
_TOKENS = 4096


@torch.no_grad()
def behaviour(sae: SAE, x: Float[Tensor, "n d_in"]) -> dict[str, object]:
    """Densities, L0 per token, error, shrinkage and dark matter. Does a score of 1 cost the SAE anything?

    Args:
        sae: for raw activations.
        x: raw activations that it was not trained on. Dark matter is fitted on the first half and scored on the second.

    Returns:
        density: a histogram of log10 of each feature's density (the share of tokens that it fires on), in 36 bins from
            1e-7 to 1. Each value is a share of all features. Features that never fire are in no bin; their share is
            `dead`.
        dense: the share of features that fire on more than a tenth of the tokens.
        l0_p05, l0_p50, l0_p95: quantiles over tokens of the number of active features.
        error: the mean over tokens of |x - x_hat| / |x - mean x|.
        shrinkage: the factor c for which c (x_hat - mean x_hat) is nearest to x - mean x, minus 1: how much larger the
            reconstruction should have been (arXiv 2404.16014).
        dark_matter: the share of the error's variance that a linear map of x predicts (arXiv 2410.14670). This part
            could have been read from x linearly, and the SAE missed it.

    Raises:
        ValueError: activations that are not `[n, d_in]` or not finite, or fewer than 4 d_in of them;
            activations that do not vary, or so large that a measure of them is not finite.
    """
    check_activations(sae, x)
    if len(x) < (least := PER_DIMENSION * sae.d_in):
        raise ValueError(f"a linear map of width {sae.d_in} needs {least} activations, and there are {len(x)}")
    middle, mean = len(x) // 2, x.mean(0, dtype=torch.float32)
    fired, l0, ratio = torch.zeros(sae.d_sae), [], 0.0
    fit, rest = _Moments(sae.d_in), _Moments(sae.d_in)
    for moments, half in ((fit, x[:middle]), (rest, x[middle:])):
        for part in half.split(_TOKENS):
            part = part.float()
            f = sae.encode(part)
            error = part - sae.decode(f)
            fired += (f > 0).sum(0)
            l0.append((f > 0).sum(1))
            ratio += (error.norm(dim=1) / (part - mean).norm(dim=1)).double().sum().item()
            moments.add(part, error)
    quantiles = torch.cat(l0).float().quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    density = fired / len(x)
    bins, low, high = DENSITIES
    alive = density[density > 0].log10().clamp(low, high)
    found = {"error": ratio / len(x), "shrinkage": _shrinkage(fit + rest), "dark_matter": _dark_matter(fit, rest)}
    if lost := [name for name, value in found.items() if not math.isfinite(value)]:
        raise ValueError(
            f"{', '.join(lost)} of these activations is not finite; a token equals their mean, or they overflow float32"
        )
    return {
        "density": (torch.histc(alive, bins, low, high) / sae.d_sae).tolist(),
        "dead": (density == 0).float().mean().item(),
        "dense": (density > 0.1).float().mean().item(),
        **dict(zip(("l0_p05", "l0_p50", "l0_p95"), quantiles)),
        **found,
    }


class _Moments:
    """Sums over tokens of z and z z^T, for z = (x, error), in float64: what any linear map is fitted and scored by."""

    def __init__(self, d_in: int) -> None:
        self.n, self.sum = 0, torch.zeros(2 * d_in, dtype=torch.float64)
        self.square = torch.zeros(2 * d_in, 2 * d_in, dtype=torch.float64)

    def add(self, x: Float[Tensor, "n d_in"], error: Float[Tensor, "n d_in"]) -> None:
        z = torch.cat([x, error], dim=1).double()
        self.n += len(z)
        self.sum += z.sum(0)
        self.square += z.T @ z

    def __add__(self, other: _Moments) -> _Moments:
        total = _Moments(len(self.sum) // 2)
        total.n, total.sum, total.square = self.n + other.n, self.sum + other.sum, self.square + other.square
        return total

    def centred(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Means of x and error; sums of their products about the means: x x^T, x e^T, e e^T."""
        mean = self.sum / self.n
        s = self.square - self.n * mean[:, None] * mean
        d = len(mean) // 2
        return mean[:d], mean[d:], s[:d, :d], s[:d, d:], s[d:, d:]


def _shrinkage(all_of_it: _Moments) -> float:
    _, _, xx, xe, ee = all_of_it.centred()  # x_hat = x - e
    return ((xx - xe).trace() / (xx - 2 * xe + ee).trace()).item() - 1


def _dark_matter(fit: _Moments, rest: _Moments) -> float:
    """The share of the error's variance in the second half that is predicted by an affine map of x, the one that
    predicts the error best in the first half."""
    x1, e1, xx, xe, _ = fit.centred()
    W = torch.linalg.lstsq(xx, xe, driver="gelsd").solution
    x2, e2, xx, xe, ee = rest.centred()
    if ee.trace() <= 1e-12 * xx.trace():
        return 0.0  # no error, and nothing to predict
    off = (e2 - e1) - (x2 - x1) @ W
    missed = ee.trace() - 2 * (W * xe).sum() + (W * (xx @ W)).sum() + rest.n * off.square().sum()
    return 1 - (missed / ee.trace()).item()
