"""The share of a dictionary's features in a low mode of alignment scores: the effect that C1 is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aligned.training.loop import SCORES

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
