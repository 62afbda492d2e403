"""What a dictionary does on new text: how often features fire, how large the error is, and of what kind."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.sae import SAE

DENSITIES = (36, -7.0, 0.0)  # bins of log10 density, from there to there
_TOKENS = 4096


@torch.no_grad()
def behaviour(sae: SAE, x: Float[Tensor, "n d_in"]) -> dict[str, object]:
    """Densities, L0 per token, error, shrinkage and dark matter. Does a score of 1 cost the SAE anything?

    Args:
        sae: for raw activations.
        x: raw activations that it was not trained on. Dark matter is fitted on the first half and scored on the second.

    Returns:
        density: histogram, as shares of all features, of log10 of the share of tokens that a feature fires on, in 36
            bins from 1e-7 to 1. Features that never fire are in none; their share is `dead`.
        dense: the share of features that fire on more than a tenth of the tokens.
        l0_p05, l0_p50, l0_p95: quantiles over tokens of the number of active features.
        error: the mean over tokens of |x - x_hat| / |x - mean x|.
        shrinkage: the factor c for which c (x_hat - mean x_hat) is nearest to x - mean x, minus 1: how much larger the
            reconstruction should have been (arXiv 2404.16014).
        dark_matter: the share of the error's variance that a linear map of x predicts (arXiv 2410.14670). That part was
            there to be read off and was not.

    Raises:
        ValueError: activations of another width than the SAE's, or fewer than 4 d_in of them.
    """
    if x.shape[1] != sae.d_in:
        raise ValueError(f"these activations have width {x.shape[1]}, and the SAE reads {sae.d_in}")
    if len(x) < 4 * sae.d_in:
        raise ValueError(f"a linear map of width {sae.d_in} needs {4 * sae.d_in} activations, and there are {len(x)}")
    fired = torch.zeros(sae.d_sae)
    l0, errors, reconstructions = [], [], []
    for part in x.split(_TOKENS):
        f = sae.encode(part.float())
        fired += (f > 0).sum(0)
        l0.append((f > 0).sum(1))
        reconstructions.append(sae.decode(f))
        errors.append(part.float() - reconstructions[-1])
    error, x_hat = torch.cat(errors), torch.cat(reconstructions)
    centred = x.float() - x.float().mean(0)
    centred_hat = x_hat - x_hat.mean(0)
    quantiles = torch.cat(l0).float().quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    density = fired / len(x)
    bins, low, high = DENSITIES
    alive = density[density > 0].log10().clamp(low, high)
    return {
        "density": (torch.histc(alive, bins, low, high) / sae.d_sae).tolist(),
        "dead": (density == 0).float().mean().item(),
        "dense": (density > 0.1).float().mean().item(),
        **dict(zip(("l0_p05", "l0_p50", "l0_p95"), quantiles)),
        "error": (error.norm(dim=1) / centred.norm(dim=1)).mean().item(),
        "shrinkage": ((centred * centred_hat).sum() / centred_hat.square().sum()).item() - 1,
        "dark_matter": _explained(x.float(), error),
    }


def _explained(x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_in"]) -> float:
    """The share of y's variance, over the second half, that the best linear map of x on the first half predicts."""
    half = len(x) // 2
    one = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    solution = torch.linalg.lstsq(one[:half], y[:half].double()).solution
    rest = y[half:].double()
    missed = (rest - one[half:] @ solution).square().sum()
    return 1 - (missed / (rest - rest.mean(0)).square().sum()).item()
