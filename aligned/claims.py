"""A claim, its test, its verdict. The rules stand here, and stood here before the numbers were seen.

Arms are compared at equal L0, never at equal lambda or k: for each seed the metric of each arm is interpolated,
linearly in log L0, onto one grid over the range of L0 that all arms and seeds cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from aligned.intervals import Interval, interval

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["holds", "holds in part", "does not hold", "not testable here"]
GRID = 9  # values of L0, evenly spaced in log L0


def at_equal_l0(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> pd.DataFrame:
    """The metric of two arms on a common grid of L0.

    Args:
        records: rows with `constraint`, `seed`, `l0` and the metric; several sparsities for each arm and seed.
        metric: a column.
        arms: two values of `constraint`.

    Returns:
        Rows of `seed`, `l0`, one column an arm, and `difference`: second arm minus first.

    Raises:
        ValueError: arms that do not overlap in L0, or with fewer than two sparsities.
    """
    import pandas as pd

    curves = {}
    for (arm, seed), rows in records[records.constraint.isin(arms)].groupby(["constraint", "seed"]):
        rows = rows.sort_values("l0")
        if len(rows) < 2:
            raise ValueError(f"{arm}, seed {seed}: comparing at equal L0 needs at least 2 sparsities, and there is 1")
        curves[arm, seed] = np.log(rows.l0.to_numpy()), rows[metric].to_numpy()
    seeds = sorted({seed for arm, seed in curves if all((a, seed) in curves for a in arms)})
    if not seeds:
        raise ValueError(f"no seed has both arms, {arms[0]} and {arms[1]}")
    low = max(x[0] for x, _ in curves.values())
    high = min(x[-1] for x, _ in curves.values())
    if low >= high:
        raise ValueError(
            f"{arms[0]} and {arms[1]} do not overlap in L0 (all reach down to {np.exp(low):.1f}, and up to "
            f"{np.exp(high):.1f}): choose sparsities closer together"
        )
    at = np.linspace(low, high, GRID)
    return pd.concat(
        [
            pd.DataFrame({"seed": seed, "l0": np.exp(at), **{a: np.interp(at, *curves[a, seed]) for a in arms}})
            for seed in seeds
        ]
    ).assign(difference=lambda table: table[arms[1]] - table[arms[0]])


@dataclass(frozen=True)
class Finding:
    """What became of a claim: the verdict, the effect it rests on, and what stands in the way where there is none."""

    verdict: Verdict
    effect: Interval | None = None
    at_l0: tuple[tuple[float, Interval], ...] = ()  # the same at each value of L0, from the least on
    reason: str = ""


def by_l0(table: pd.DataFrame) -> tuple[tuple[float, Interval], ...]:
    """The mean difference at each L0 of a table from `at_equal_l0`, with its interval over seeds."""
    return tuple((float(l0), interval(rows.difference.to_numpy())) for l0, rows in table.groupby("l0"))


def recovers_more(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C2 (and C3, on TopK's records): at equal L0, aligned SAEs recover more cross-entropy than standard ones.

    Rule, the difference in CE recovered (aligned minus standard) being averaged over the grid of L0 for each seed:

    - *holds*: the 95 % interval of that mean lies above 0;
    - *holds in part*: it does not, but at a third or more of the grid's values of L0 the interval there does;
    - *does not hold*: otherwise;
    - *not testable here*: fewer than three seeds, or arms that do not overlap in L0.
    """
    try:
        table = at_equal_l0(records, "ce_recovered", ("none", constraint))
        overall = interval(table.groupby("seed").difference.mean().to_numpy())
    except ValueError as error:
        return Finding("not testable here", reason=str(error))
    at_l0 = by_l0(table)
    if overall.seeds < 3:
        return Finding("not testable here", overall, at_l0, f"{overall.seeds} seeds, and the rule asks for three")
    if overall.low > 0:
        return Finding("holds", overall, at_l0)
    above = np.mean([effect.low > 0 for _, effect in at_l0])
    return Finding("holds in part" if above >= 1 / 3 else "does not hold", overall, at_l0)


def no_added_compute(costs: pd.DataFrame) -> Finding:
    """C10: alignment adds no compute. A measured cost is never exactly 0, so 3 % of a step counts as none.

    Rule, on `aligned.cost.in_turns` (aligned over standard), for the shapes whose steps are long enough to be more than
    the start of single operations (d_sae of 16384 or more: M, L and XL):

    - *holds*: every interval of the cost lies below 3 %;
    - *holds in part*: not all do, but every median does;
    - *does not hold*: otherwise;
    - *not testable here*: none of these shapes was measured.
    """
    large = costs[costs["shape"] != "S"]
    if large.empty:
        return Finding("not testable here", reason="none of the shapes M, L and XL was measured")
    most = large.loc[large.cost.idxmax()]
    effect = Interval(float(most.cost), float(most.low), float(most.high), int(most.pairs))
    if (large.high < 0.03).all():
        return Finding("holds", effect)
    return Finding("holds in part" if (large.cost < 0.03).all() else "does not hold", effect)
