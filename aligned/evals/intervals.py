"""What is said of a number: its mean over seeds, and how far that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from aligned.checks import listed, number, said

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its confidence interval, at 95 % unless another level is asked for."""

    mean: float
    low: float
    high: float
    seeds: int

    def __neg__(self) -> Interval:
        return Interval(-self.mean, -self.high, -self.low, self.seeds)

    def __str__(self) -> str:
        return f"{_digits(self.mean)} [{_digits(self.low)}, {_digits(self.high)}]"


def _digits(value: float) -> str:
    """Four digits; more, where there would be nothing but zeros, and the sign would say all."""
    digits = next((digits for digits in (4, 5, 6) if round(value, digits)), 4)
    return f"{value:+z.{digits}f}"


def interval(values: Float[np.ndarray, " seeds"], level: float = LEVEL) -> Interval:
    """Mean and interval of one value a seed, by Student's t.

    Raises:
        ValueError: fewer than two seeds, from which no interval follows; a value that is not finite; a level that does
            not lie between 0 and 1.
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise ValueError(f"one number a seed is needed, and these are {values.dtype} of the shape {values.shape}")
    if not 0 < number("level", level) < 1:
        raise ValueError(f"level is {level}; it lies between 0 and 1, such as {LEVEL}")
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least 2 of them, and there is {n}")
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of these {n} values are not finite, and have no interval")
    mean, half = float(np.mean(values)), t_quantile(level, n - 1) * float(np.std(values, ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half, n)


def interval_of_pairs(
    values: Float[np.ndarray, " pairs"], seeds: Float[np.ndarray, "pairs 2"], level: float = LEVEL
) -> Interval:
    """Mean and interval of one value a pair of seeds.

    Pairs that share a seed are not independent. So this is a jackknife that leaves out one seed at a time (Efron and
    Stein 1981): its pseudo-values n U - (n - 1) U_without_i, where U is the mean over pairs, are treated as one value
    for each seed. Where a pair's value has a large part that does not come from either of its seeds alone, the interval
    is too wide, never too narrow.

    Args:
        values: of each pair.
        seeds: of each pair.
        level: of the interval.

    Raises:
        ValueError: fewer than three seeds, or a seed that is in every pair: without it no pair is left; values that are
            not of these pairs; as `interval`.
    """
    if np.shape(seeds) != (len(values), 2):
        raise ValueError(
            f"there are {len(values)} values, and seeds of the shape {np.shape(seeds)}; each value has two"
        )
    there = np.unique(seeds).tolist()
    members = [(seeds == seed).any(1) for seed in there]
    n = len(members)
    if n < 3:
        raise ValueError(
            f"an interval over pairs of seeds needs the pairs of at least 3 seeds, and there are {n}: {listed(there)}"
        )
    for seed, member in zip(there, members):
        if member.all():
            a, b, *_ = (other for other in there if other != seed)
            raise ValueError(
                f"an interval over pairs of seeds leaves out one seed after the other, and seed {seed} is in every "
                f"pair: add pairs without it, such as {a} and {b}"
            )
    without = np.array([np.mean(values[~member]) for member in members])
    return interval(n * np.mean(values) - (n - 1) * without, level)


def interval_of_shares(values: Float[np.ndarray, " seeds"], level: float = LEVEL) -> Interval:
    """Mean and interval of a share near 0, one value a seed.

    Near 0, most seeds may have a share of almost 0 and one seed a large share. Student's interval then ends too low far
    more often than it starts too high. So its upper end is taken from the interval at a higher level, one that misses a
    tenth as often. This covers a spread between seeds as large as the mean.

    Raises:
        ValueError: as `interval`; a value that is no share, from 0 to 1.
    """
    if beyond := [value for value in np.ravel(values) if not -1e-9 <= value <= 1 + 1e-9]:
        raise ValueError(f"{len(beyond)} of these values are no shares, from 0 to 1, such as {said(beyond[0])}")
    found, upper = interval(values, level), interval(values, 1 - (1 - level) / 10)
    return Interval(found.mean, max(found.low, 0.0), min(upper.high, 1.0), found.seeds)


@lru_cache
def t_quantile(level: float, freedom: int) -> float:
    """Half the width of Student's two-sided interval, in standard errors."""
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, freedom))


@lru_cache
def normal_quantile(level: float) -> float:
    """Half the width of a normal distribution's two-sided interval, in standard errors."""
    from scipy import stats

    return float(stats.norm.ppf((1 + level) / 2))
