"""A claim, its test, its verdict. The rules stand here, and stood here before the numbers were seen.

Arms are compared at equal L0, never at equal lambda or k: for each seed the metric of each arm is interpolated,
linearly in log L0, onto one grid over the range of L0 that all arms and seeds cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Literal, ParamSpec

import numpy as np

from aligned.intervals import Interval, interval

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["holds", "holds in part", "does not hold", "not testable here"]
P = ParamSpec("P")
GRID = 9  # values of L0, evenly spaced in log L0
SEEDS = 3  # that a rule asks for
NEAR_ZERO = 0.01  # share of dead features that counts as none
ARM = ["activation", "d_sae", "init", "constraint", "sparsity"]  # what tells the SAEs of a page apart, but for seeds


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
    parts: tuple[tuple[str, Interval], ...] = ()  # the same in each case that the claim speaks of
    reason: str = ""

    def __str__(self) -> str:
        """In Markdown, without a full stop."""
        if self.reason:
            return f"**{self.verdict}** ({self.reason})"
        return f"**{self.verdict}**: " + "; ".join(f"{name} {effect}".strip() for name, effect in self.numbers)

    @property
    def numbers(self) -> tuple[tuple[str, Interval], ...]:
        """What stands beside the verdict: the effect that the rule looked at, and each case's own."""
        if self.effect is None or self.effect in [effect for _, effect in self.parts]:
            return self.parts
        return (("in all" if self.parts else "", self.effect), *self.parts)


def _testable(rule: Callable[P, Finding]) -> Callable[P, Finding]:
    """A rule that cannot be applied says why, as a finding."""

    @wraps(rule)
    def finding(*args: P.args, **kwargs: P.kwargs) -> Finding:
        try:
            return rule(*args, **kwargs)
        except ValueError as error:
            return Finding("not testable here", reason=str(error))

    return finding


def by_l0(table: pd.DataFrame) -> tuple[tuple[float, Interval], ...]:
    """The mean difference at each L0 of a table from `at_equal_l0`, with its interval over seeds."""
    return tuple((float(l0), interval(rows.difference.to_numpy())) for l0, rows in table.groupby("l0"))


def difference(
    records: pd.DataFrame, metric: str, arms: tuple[str, str], densest: bool = False
) -> tuple[Interval, tuple[tuple[float, Interval], ...]]:
    """Second arm minus first at equal L0, averaged over the grid of L0 for each seed; and the same at each L0.

    Args:
        records, metric, arms: as for `at_equal_l0`.
        densest: average over the upper half of the grid alone, where L0 is large.

    Raises:
        ValueError: as `at_equal_l0`; or fewer than three seeds.
    """
    table = at_equal_l0(records, metric, arms)
    if densest:
        table = table[table.l0 >= table.l0.unique()[GRID // 2]]
    overall = interval(table.groupby("seed").difference.mean().to_numpy())
    if overall.seeds < SEEDS:
        raise ValueError(f"{overall.seeds} seeds, and the rule asks for {SEEDS}: the difference is {overall}")
    return overall, by_l0(table)


def effects(
    records: pd.DataFrame,
    arms: Sequence[str],
    against: str = "none",
    metrics: Sequence[str] = ("ce_recovered", "alive"),
) -> pd.DataFrame:
    """`difference` of several arms from one, by activation and arm: an `Interval` for each metric, or, where there is
    none, the reason."""
    import pandas as pd

    found: dict[tuple[str, str], dict[str, Interval | str]] = {}
    for activation, rows in records.groupby("activation", sort=False):
        for arm in arms:
            of_arm = found[str(activation), arm] = {}
            for metric in metrics:
                try:
                    of_arm[metric], _ = difference(rows, metric, (against, arm))
                except ValueError as error:
                    of_arm[metric] = str(error)
    table = pd.DataFrame.from_dict(found, orient="index", columns=list(metrics))
    table.index = pd.MultiIndex.from_tuples(found, names=["activation", "arm"])
    return table


@_testable
def bimodal(scores: pd.DataFrame) -> Finding:
    """C1: the alignment scores of standard SAEs are bimodal, in every architecture.

    Rule, an SAE's scores being bimodal where Hartigan's dip test rejects one peak at 5 %:

    - *holds*: in every architecture at least half of the standard SAEs are bimodal;
    - *holds in part*: not so, but in some architecture at least half of them are;
    - *does not hold*: otherwise;
    - *not testable here*: fewer than three standard SAEs of an architecture.

    The effect is the share of bimodal ones among all, with Wilson's interval.

    Args:
        scores: `aligned.records(..., measure="scores")`.
    """
    standard = scores[scores.constraint == "none"]
    parts = tuple((str(name), _share(rows.dip_p < 0.05)) for name, rows in standard.groupby("activation", sort=False))
    if not parts or min(share.seeds for _, share in parts) < SEEDS:
        raise ValueError(f"an architecture has fewer than {SEEDS} standard SAEs")
    verdict = _all_or_some([share.mean >= 1 / 2 for _, share in parts])
    return Finding(verdict, _share(standard.dip_p < 0.05), parts=parts)


@_testable
def recovers_more(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C2: at equal L0, aligned SAEs recover more cross-entropy than standard ones.

    Rule, the difference in CE recovered (aligned minus standard) being averaged over the grid of L0 for each seed:

    - *holds*: the 95 % interval of that mean lies above 0;
    - *holds in part*: it does not, but at a third or more of the grid's values of L0 the interval there does;
    - *does not hold*: otherwise;
    - *not testable here*: fewer than three seeds, or arms that do not overlap in L0.
    """
    return _above_zero(*difference(records, "ce_recovered", ("none", constraint)))


@_testable
def recovers_more_where_dense(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C3: aligned TopK and BatchTopK SAEs recover more where k is large.

    Rule, the difference in CE recovered (aligned minus standard) being averaged over the upper half of the grid of L0:

    - *holds*: for each activation the 95 % interval of that mean lies above 0;
    - *holds in part*: for some;
    - *does not hold*: for none;
    - *not testable here*: as for C2.
    """
    return _in_cases(records, ["activation"], "ce_recovered", ("none", constraint), densest=True)


@_testable
def leaves_few_dead(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C4: aligned training leaves near-zero dead features, without resampling or an auxiliary loss.

    Rule, dead being what does not fire on the evaluation text, near zero 1 % of the features or less, and the effect
    the difference in the share that is alive (aligned minus standard) at equal L0. An activation whose standard SAEs
    have 1 % dead features or less shows nothing and is left out.

    - *holds*: for each activation the effect's 95 % interval lies above 0, and the mean of the aligned SAEs' dead share
      is near zero;
    - *holds in part*: the first, but not the second, or not for each;
    - *does not hold*: for none the interval lies above 0;
    - *not testable here*: no activation is left, or as for C2.
    """
    parts, above, near = [], [], []
    for name, rows in records.groupby("activation", sort=False):
        dead = 1 - rows.groupby("constraint").alive.mean()
        if dead.get("none", 1.0) <= NEAR_ZERO:
            continue
        effect, _ = difference(rows, "alive", ("none", constraint))
        parts.append((str(name), effect))
        above.append(effect.low > 0)
        near.append(dead[constraint] <= NEAR_ZERO)
    if not parts:
        raise ValueError("the standard SAEs too have hardly a dead feature (1 % or less)")
    verdict: Verdict = "holds" if all(above) and all(near) else "holds in part" if any(above) else "does not hold"
    return Finding(verdict, parts[0][1] if len(parts) == 1 else None, parts=tuple(parts))


def with_l0(table: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """A table of another measure with the SAEs' `l0`; the mean of the two, where its rows are of pairs of seeds.

    Args:
        table: `aligned.records(..., measure=...)`.
        records: `aligned.records` of the same SAEs.
    """
    l0 = records.set_index([*ARM, "seed"]).l0
    seeds = [seed for seed in ("seed", "other_seed") if seed in table]
    of = [[l0.loc[(*row[: len(ARM)], seed)] for seed in row[len(ARM) :]]
          for row in table[[*ARM, *seeds]].itertuples(index=False, name=None)]  # fmt: skip
    return table.assign(l0=[sum(values) / len(values) for values in of])


@_testable
def more_stable(pairs: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C5: aligned features are more stable across seeds, for ReLU and TopK.

    Rule, stability being PW-MCC over alive features, and the effect its difference (aligned minus standard) at equal
    L0, with an interval over pairs of seeds (which are not independent where they share a seed):

    - *holds*: for each activation the 95 % interval of the effect lies above 0;
    - *holds in part*: for some;
    - *does not hold*: for none;
    - *not testable here*: fewer than three seeds, or arms that do not overlap in L0.

    Args:
        pairs: `aligned.records(..., measure="stability")`, with L0 (`with_l0`).
        constraint: of the aligned arm.
    """
    pair = pairs.seed.astype(str) + " and " + pairs.other_seed.astype(str)
    return _in_cases(pairs.assign(seed=pair), ["activation"], "pw_mcc_alive", ("none", constraint))


@_testable
def separates_better(scr: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C6: aligned SAEs score higher on SCR.

    Rule, an SAE's score being the mean over pairs of attributes and all n of the direction that SAEBench publishes, and
    the effect the difference (aligned minus standard) at equal L0:

    - *holds*: for each activation the 95 % interval of the effect lies above 0;
    - *holds in part*: for some;
    - *does not hold*: for none;
    - *not testable here*: as for C2.

    Args:
        scr: `aligned.records(..., measure="scr")`, with L0 (`with_l0`).
        constraint: of the aligned arm.
    """
    score = [float(np.mean(np.array(row.scr)[np.array(row.harder)])) for row in scr.itertuples()]
    return _in_cases(scr.assign(score=score), ["activation"], "score", ("none", constraint))


@_testable
def correlates(features: pd.DataFrame, metric: str, paper: float) -> Finding:
    """C7 and C8: a feature's MCS, or its concept score, correlates with its alignment score.

    Rule, r being Pearson's over the alive features of a standard SAE:

    - *holds*: the 95 % interval of r over SAEs (by Fisher's z) lies above 0, and its mean is at least half of the
      paper's;
    - *holds in part*: the first, but not the second;
    - *does not hold*: otherwise;
    - *not testable here*: fewer than three SAEs.

    Args:
        features: `aligned.records(..., measure="features")`, one row a standard SAE.
        metric: `mcs` or `f1`.
        paper: its r: 0.65 for MCS, 0.32 for auto-interpretability (arXiv 2605.18629, Figures 11 and 12).
    """
    import pandas as pd

    rows = features[features.constraint == "none"]
    if len(rows) < SEEDS:
        raise ValueError(f"there are {len(rows)} standard SAEs, and the rule asks for {SEEDS}")
    r = pd.Series([pearson(row.score, getattr(row, metric), row.density) for row in rows.itertuples()], rows.index)
    if r.isna().any():
        raise ValueError(f"{metric} is the same for all features of an SAE: nothing can correlate with it")
    effect = _correlation(r)
    parts = tuple((str(name), _correlation(of)) for name, of in r.groupby(rows.activation, sort=False) if len(of) > 1)
    if effect.low <= 0:
        return Finding("does not hold", effect, parts=parts)
    return Finding("holds" if effect.mean >= paper / 2 else "holds in part", effect, parts=parts)


def _correlation(r: pd.Series) -> Interval:
    """The mean of correlations with its interval, by Fisher's z, which keeps both between -1 and 1."""
    z = interval(np.arctanh(r.to_numpy()))
    return Interval(float(np.tanh(z.mean)), float(np.tanh(z.low)), float(np.tanh(z.high)), z.seeds)


def pearson(score: Sequence[float], metric: Sequence[float], density: Sequence[float]) -> float:
    """Pearson's r of alignment score and a metric over the features that are alive.

    Raises:
        ValueError: scores that are all the same, as those of an aligned SAE.
    """
    a, b, alive = np.asarray(score), np.asarray(metric), np.asarray(density) > 0
    if a[alive].std() < 1e-4:
        raise ValueError("these scores are all the same: nothing can correlate with them")
    return float(np.corrcoef(a[alive], b[alive])[0, 1])


@_testable
def tying_costs(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C9: tying the weights also removes dead features, but costs reconstruction.

    Rule, at equal L0: the tied SAEs have a larger share of alive features than the standard ones (the 95 % interval of
    the difference lies above 0), and recover less cross-entropy than the aligned ones (below 0).

    - *holds*: both; *holds in part*: one of them; *does not hold*: neither;
    - *not testable here*: as for C2.

    The effect is the second difference, tied minus aligned.
    """
    alive, _ = difference(records, "alive", ("none", "tied"))
    recovered, at_l0 = difference(records, "ce_recovered", (constraint, "tied"))
    verdict = _all_or_some([alive.low > 0, recovered.high < 0])
    return Finding(verdict, recovered, at_l0, (("alive, against standard", alive), ("CE, against aligned", recovered)))


@_testable
def needs_no_tuning(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C11: alignment works with p-annealing, TopK and BatchTopK, without new hyperparameters.

    Rule, no arm having a setting that the other has not, the effect being the difference in CE recovered (aligned minus
    standard) at equal L0:

    - *holds*: for none of the activations the 95 % interval lies below 0;
    - *holds in part*: for some it does, for others not;
    - *does not hold*: for each it does;
    - *not testable here*: as for C2.
    """
    parts = _parts(records, ["activation"], "ce_recovered", ("none", constraint))
    return Finding(_all_or_some([effect.high >= 0 for _, effect in parts]), parts=parts)


@_testable
def holds_everywhere(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C12: the gain in CE recovered holds over dictionary sizes and sparsities.

    Rule, the difference (aligned minus standard) being averaged over the grid of L0, that is over sparsities, for each
    activation and width:

    - *holds*: the 95 % interval lies above 0 for each; *holds in part*: for some; *does not hold*: for none;
    - *not testable here*: as for C2, or one width alone.
    """
    if records.d_sae.nunique() < 2:
        raise ValueError("there is one width alone")
    return _in_cases(records, ["activation", "d_sae"], "ce_recovered", ("none", constraint))


def _above_zero(overall: Interval, at_l0: tuple[tuple[float, Interval], ...]) -> Finding:
    if overall.low > 0:
        return Finding("holds", overall, at_l0)
    above = np.mean([effect.low > 0 for _, effect in at_l0])
    return Finding("holds in part" if above >= 1 / 3 else "does not hold", overall, at_l0)


def _in_cases(
    records: pd.DataFrame, cases: list[str], metric: str, arms: tuple[str, str], densest: bool = False
) -> Finding:
    """*holds* where the interval lies above 0 in every case, *in part* where it does in some."""
    parts = _parts(records, cases, metric, arms, densest)
    return Finding(
        _all_or_some([effect.low > 0 for _, effect in parts]), parts[0][1] if len(parts) == 1 else None, parts=parts
    )


def _parts(
    records: pd.DataFrame, cases: list[str], metric: str, arms: tuple[str, str], densest: bool = False
) -> tuple[tuple[str, Interval], ...]:
    if records.empty:
        raise ValueError("there is no SAE of the kind that the claim speaks of")
    return tuple(
        (", ".join(map(str, case)), difference(rows, metric, arms, densest)[0])
        for case, rows in records.groupby(cases, sort=False)
    )


def _all_or_some(true: Sequence[bool]) -> Verdict:
    return "holds" if all(true) else "holds in part" if any(true) else "does not hold"


def _share(of: pd.Series) -> Interval:
    """A share with Wilson's interval."""
    from scipy.stats import binomtest

    found = binomtest(int(of.sum()), len(of))
    low, high = found.proportion_ci(method="wilson")
    return Interval(found.statistic, low, high, len(of))


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
