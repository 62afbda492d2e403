"""Are a dictionary's alignment scores of one kind or of two?"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aligned.checks import number, said, whole

FEWEST = 8  # scores that a shape can be told from


def modes(scores: Float[Tensor, " n"], seed: int = 0) -> dict[str, float]:
    """The shape of a distribution of alignment scores (arXiv 2605.18629, Figure 10).

    Two tests are made, since each misses what the other sees. Hartigan's dip test asks whether there are two peaks,
    whatever their form. The Bayesian information criterion compares a mixture of two normal distributions with a single
    one: it asks whether two groups describe the scores better, with or without two peaks.

    Args:
        scores: of all features (`aligned.alignment_score`).
        seed: of the mixture's start.

    Returns:
        dip, dip_p: Hartigan's statistic and its p-value; a small p says that there is more than one peak.
        bic_gain: the criterion of one distribution minus that of two, per score; above 0, two are better.
        low_mean, high_mean: of the two.
        low_share: the share of scores that belong to the lower one.
        below_half: the share of scores under 1/2, whatever the shape.
        spread: the scores' standard deviation. Where it is under 1e-4, as for aligned SAEs, there is nothing to be
            told: dip_p is 1, bic_gain and low_share are 0.

    Raises:
        ValueError: fewer than 8 scores, or one that is not finite; a seed that scikit-learn does not take.
    """
    a, seed = _checked(scores).double().cpu().numpy(), whole("seed", seed, 0, 2**32 - 1)
    if len(a) < FEWEST:
        raise ValueError(f"there are {len(a)} scores; a shape can be told from {FEWEST} on")
    shape = {"below_half": float((a < 0.5).mean()), "spread": float(a.std())}
    if a.std() < 1e-4:
        mean = float(a.mean())
        return {
            "dip": 0.0,
            "dip_p": 1.0,
            "bic_gain": 0.0,
            "low_mean": mean,
            "high_mean": mean,
            "low_share": 0.0,
            **shape,
        }
    from diptest import diptest
    from sklearn.mixture import GaussianMixture

    dip, p = diptest(a)
    column = a[:, None]
    one, two = (GaussianMixture(n, n_init=5, random_state=seed).fit(column) for n in (1, 2))
    low, high = np.sort(two.means_.ravel())
    belongs = two.predict(column) == two.means_.ravel().argmin()
    return {
        "dip": float(dip),
        "dip_p": float(p),
        "bic_gain": float((one.bic(column) - two.bic(column)) / len(a)),
        "low_mean": float(low),
        "high_mean": float(high),
        "low_share": float(belongs.mean()),
        **shape,
    }


def histogram(scores: Float[Tensor, " n"], bins: int, low: float, high: float) -> Float[Tensor, " bins"]:
    """The share of scores in each of `bins` equal bins from `low` to `high`; those beyond count at the ends.

    Raises:
        TypeError, ValueError: no scores, or one that is not finite; no bins; bounds that are not in order.
    """
    scores, bins = _checked(scores), whole("bins", bins, 1)
    if number("low", low) >= number("high", high):
        raise ValueError(f"low is {low:g} and high {high:g}; high is the greater one")
    return torch.histc(scores.float().clamp(low, high), bins, low, high) / len(scores)


def _checked(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """One number a feature, finite; of NumPy's or torch's."""
    try:
        scores = torch.as_tensor(scores).detach()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"scores are {said(scores)}; they are numbers, one a feature") from error
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"these scores have the shape {tuple(scores.shape)}; one a feature is needed, [n]")
    if lost := int((~scores.isfinite()).sum()):
        raise ValueError(f"{lost} of the {len(scores)} scores are not finite")
    return scores
