"""What is said of a number: its mean over seeds, and how far that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval (Student's t, one value a seed)."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def interval(values: Float[np.ndarray, " seeds"]) -> Interval:
    """Mean and 95 % interval of one value a seed.

    Raises:
        ValueError: fewer than two seeds, from which no interval follows.
    """
    from scipy import stats

    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least 2 of them, and there is {n}")
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5
    return Interval(float(np.mean(values)), float(np.mean(values) - half), float(np.mean(values) + half), n)
