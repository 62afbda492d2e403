"""The share of a dictionary's features in a low mode of alignment scores: the effect that C1 is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aligned.training.loop import SCORES

if TYPE_CHECKING:
    import pandas as pd

LOW = 0.75  # a low mode ends below this score; the ideal is 1
CLEAR = 0.5  # a valley is at most this high, measured by the lower one of the two peaks beside it
PEAK = 0.001  # share of all features that a peak has in a bin at least: one feature in a thousand
KERNEL = np.array([1, 2, 3, 2, 1]) / 9  # bins, 0.05 each: evens out what a few hundred features leave to chance


def low_mode(histogram: Sequence[float]) -> float:
    """The share of features in a low mode: those below a clear valley of the scores' histogram; 0 where there is none.

    The histogram is evened out over five bins, and a valley is clear if its score is under 0.75 and its height is at
    most half that of the highest bin on its left, and at most half that of the highest on its right. If there are
    several, the deepest counts. Nothing in this is a test, so that the same scores give the same share at every width;
    a peak of less than one feature in a thousand in a bin is not seen.

    Args:
        histogram: shares in the bins of `aligned.training.loop.SCORES`. Scores beyond its range count in the first and
            the last bin, so that a pile there is no peak: it belongs to the mode beside it.
    """
    bins, first, last = SCORES
    shares = np.asarray(histogram, dtype=float)
    heights = shares.copy()
    heights[0], heights[-1] = min(heights[:2]), min(heights[-2:])
    side = len(KERNEL) // 2
    smooth = np.convolve(np.pad(heights, side, "edge"), KERNEL, "valid")
    below = np.maximum.accumulate(np.concatenate([[0], smooth[:-1]]))
    above = np.maximum.accumulate(np.concatenate([[0], smooth[:0:-1]]))[::-1]
    peak = np.minimum(below, above)
    middle = first + (np.arange(bins) + 0.5) * (last - first) / bins
    clear = (middle < LOW) & (peak >= PEAK) & (smooth <= CLEAR * peak)
    if not clear.any():
        return 0.0
    depth = np.where(clear, peak - smooth, -np.inf)
    deepest = np.flatnonzero(depth >= depth.max() - 1e-12)
    valley = deepest[len(deepest) // 2]  # the middle of an empty stretch
    return float(shares[:valley].sum() + shares[valley] / 2)


def over_sparsities(records: pd.DataFrame) -> pd.Series:
    """The share of standard SAEs' features in a low mode, by sparsity, mean over seeds.

    Args:
        records: from `aligned.records(..., measure="scores")`.
    """
    standard = records[records.constraint == "none"]
    return standard.histogram.map(low_mode).groupby(standard.sparsity).mean()


def where(shares: pd.Series, letter: str, least: float) -> str:
    """At which sparsities there is a low mode of `least` of the features or more, and at which there is none.

    Args:
        shares: from `over_sparsities`.
        letter: of the sparsity.
    """
    there = shares[shares >= least]
    if there.empty:
        return "at no sparsity"
    gone = [f"{at:g}" for at in shares.index.difference(there.index)]
    told = ", ".join(f"{letter} = {at:g} ({share:.1%})" for at, share in there.items())
    return f"at {told}; not at {letter} = {', '.join(gone)}" if gone else f"at {told}"


def of_the_start(small: pd.Series, unit: pd.Series, least: float) -> str:
    """Whether the low mode of ReLU SAEs comes from their small start, judged at the sparsities that were trained from
    both starts: a sentence.

    Args:
        small, unit: from `over_sparsities`, of SAEs from the small start and from rows of norm 1.
        least: the smallest share of features that counts as a low mode.
    """
    both = small.index.intersection(unit.index)
    if both.empty:
        return "No sparsity was trained from both starts, so nothing can be said of the start."
    at = f"λ = {', '.join(f'{value:g}' for value in both)}"
    if (small[both] < least).all() and (unit[both] < least).all():
        return f"At {at}, ReLU SAEs have no low mode from either start: this can't tell what the start does."
    if (unit[both] >= least).any():
        return f"At {at}, ReLU SAEs from rows of norm 1 have a low mode, too: the small start alone does not bring it."
    return f"At {at}, ReLU SAEs from rows of norm 1 have no low mode: there it comes from the small start."
