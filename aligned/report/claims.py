"""A claim, its test, its verdict. The rules were revised on 2026-11-25, after their errors had been simulated.

Arms are compared at equal L0, never at equal lambda or k: for each seed the metric of each arm is interpolated,
linearly in log L0, onto one grid over the range of L0 that all arms and seeds cover.

Each claim names the smallest effect of interest; `aligned.report.rules` says how several cases are combined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import numpy as np
from jaxtyping import Float

from aligned.alignment import HARD
from aligned.checks import listed, number, said
from aligned.evals.intervals import LEVEL, Interval, interval, interval_of_pairs, interval_of_shares, normal_quantile
from aligned.methods import METHODS, method
from aligned.report.low_mode import low_mode
from aligned.report.rules import AtMost, Case, Finding, Gain, Least, Loss, NoLoss, Test, decide

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
GRID = 9  # values of L0, evenly spaced in log L0
SEEDS = 3  # that a rule asks for
NO_SAE = "there is no SAE of the kind that the rule asks about: train some"
NO_RECORD = "no record"  # in the place of an effect
NEAR_ZERO = 0.01  # share of dead features that counts as none
LABELS = {"none": "standard", "projected": "aligned", "tied": "tied"}  # of arms
ARM = ["activation", "d_sae", "init", "constraint", "sparsity"]  # what tells the SAEs of a page apart, but for seeds

RECOVERED = Least(
    0.005,
    "CE recovered",
    "half a percent of all the cross-entropy that the layer's activations save the model; for less, nobody would "
    "choose another SAE",
)
ALIVE = Least(
    0.01, "the share of alive features", "one feature in a hundred: as many as C4 still counts as nearly none dead"
)
DEAD = Least(NEAR_ZERO, "the share of dead features", "one feature in a hundred: what this book takes 'near zero' for")
LOW_MODE = Least(
    0.01,
    "the share of features in a low mode",
    "one feature in a hundred: with fewer, the second mode would hardly matter to who uses the dictionary",
)
STABILITY = Least(
    0.02,
    "PW-MCC",
    "as much as if one feature in fifty went from no counterpart in the other dictionary to an exact one",
)
SCR = Least(0.02, "SCR", "one fiftieth of the bias that a perfect score takes away")
COST = Least(
    0.03,
    "the time of a step",
    "a measured cost is never exactly 0, and 3 % of a day are 43 minutes",
)


def label(constraint: str) -> str:
    """What an arm is called in figures and sentences."""
    return LABELS.get(constraint, f"aligned ({constraint})" if constraint in HARD else constraint)


@dataclass(frozen=True)
class _Differences:
    """Two arms on a common grid of L0, for each seed, or each pair of seeds, that has both.

    Attributes:
        units: the seeds or pairs.
        l0: the grid.
        values: of the first arm and of the second.
    """

    units: list[tuple[int, ...]]
    l0: Float[np.ndarray, " grid"]
    values: Float[np.ndarray, "2 units grid"]

    @property
    def difference(self) -> Float[np.ndarray, "units grid"]:
        return self.values[1] - self.values[0]


def _checked(table: pd.DataFrame, numbers: Sequence[str], others: Sequence[str] = ()) -> pd.DataFrame:
    """A table with these columns, the first of which hold finite numbers, or lists of them.

    Raises:
        TypeError: no table, or one of another measure, which lacks a column.
        ValueError: a table without rows; a value that is no finite number.
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"a table of `aligned.records` is needed, and this is of type {type(table).__name__}")
    if table.empty:
        raise ValueError(NO_SAE)
    if lacking := [name for name in (*numbers, *others) if name not in table]:
        raise TypeError(f"this table has no {', '.join(lacking)}: it is of another measure, with {', '.join(table)}")
    for name in numbers:
        column = table[name]
        values = pd.to_numeric(column.explode() if column.dtype == object else column, errors="coerce")
        if lost := int((~np.isfinite(values.to_numpy(float))).sum()):
            raise ValueError(f"{lost} of {len(values)} values of {name} are no finite numbers: leave these rows out")
    return table


def _differences(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> _Differences:
    if isinstance(arms, str) or len(arms) != 2 or arms[0] == arms[1]:
        raise ValueError(
            f"two arms are compared, and these are {said(arms)}: give two constraints, such as none and tied"
        )
    _checked(records, [], ["l0", metric, "constraint", "seed"])
    records = records[records.constraint.isin(arms)]
    if "activation" in records and len(kinds := records.activation.unique()) > 1:
        raise ValueError(f"SAEs of {listed(kinds)} have no curve in common: give those of one activation")
    if lacking := [label(arm) for arm in arms if arm not in set(records.constraint)]:
        raise ValueError(f"there is no {' and no '.join(lacking)} SAE: both arms are needed, with the same seeds")
    _checked(records, ["l0", metric])
    if silent := int((records.l0 <= 0).sum()):
        raise ValueError(
            f"{silent} of {len(records)} SAEs have an L0 of 0, which no curve in log L0 has: leave them out, or make "
            f"them less sparse ({_denser(records)[0]})"
        )
    points: dict[tuple[str, tuple[int, ...]], list[tuple[float, float]]] = {}
    seeds = [records[name] for name in _seed_columns(records)]
    for arm, l0, value, *of_seeds in zip(records.constraint, records.l0, records[metric], *seeds):
        points.setdefault((arm, tuple(of_seeds)), []).append((l0, value))
    for (arm, unit), of in points.items():
        if len({l0 for l0, _ in of}) < 2:
            raise ValueError(
                f"the {label(arm)} SAEs of {_named(unit)} have one value of L0, and comparing at equal L0 needs at "
                "least 2 sparsities"
            )
    units = sorted(unit for arm, unit in points if arm == arms[0] and (arms[1], unit) in points)
    if not units:
        of_arms = [f"{label(arm)} ones of {listed(_named(u) for a, u in points if a == arm)}" for arm in arms]
        raise ValueError(f"no seed has both arms; there are {listed(of_arms)}: train both with the same seeds")
    curves = {key: np.array(sorted(of)).T for key, of in points.items()}
    spans = {
        arm: {unit: (curve[0, 0], curve[0, -1]) for (of, unit), curve in curves.items() if of == arm} for arm in arms
    }
    ends = [end for of in spans.values() for end in of.values()]
    low, high = max(start for start, _ in ends), min(end for _, end in ends)
    if low >= high:
        raise ValueError(_apart(spans, *_denser(records)))
    at = np.linspace(np.log(low), np.log(high), GRID)
    values = [[np.interp(at, np.log(curves[arm, unit][0]), curves[arm, unit][1]) for unit in units] for arm in arms]
    return _Differences(units, np.exp(at), np.array(values))


def _seed_columns(rows: pd.DataFrame) -> list[str]:
    """Those that say to which seed, or pair of seeds, a row belongs."""
    return [name for name in ("seed", "other_seed") if name in rows]


def _named(unit: tuple[int, ...]) -> str:
    return f"seed {unit[0]}" if len(unit) == 1 else f"seeds {listed(unit)}"


def _denser(records: pd.DataFrame) -> tuple[str, str]:
    """What makes these SAEs less sparse, and what sparser."""
    kinds = set(records.activation) & set(METHODS) if "activation" in records else set()
    words = {False: ("a smaller lambda", "a larger lambda"), True: ("a larger k", "a smaller k")}
    of = [words[counts] for counts in sorted({method(kind).counts for kind in kinds} or words)]
    return " or ".join(denser for denser, _ in of), " or ".join(sparser for _, sparser in of)


def _apart(spans: dict[str, dict[tuple[int, ...], tuple[float, float]]], denser: str, sparser: str) -> str:
    """Why curves can't be compared, and what to do."""
    ends = {
        arm: (max(low for low, _ in of.values()), min(high for _, high in of.values())) for arm, of in spans.items()
    }
    for arm, (low, high) in ends.items():
        if low >= high:
            each = "; ".join(f"{_named(unit)}: {a:.1f} to {b:.1f}" for unit, (a, b) in spans[arm].items())
            return (
                f"the seeds of the {label(arm)} SAEs do not overlap in L0 ({each}): give each seed the same "
                "sparsities, and more of them"
            )
    (under, (a, b)), (over, (c, d)) = sorted(ends.items(), key=lambda item: item[1])
    return (
        f"{label(under)} SAEs have an L0 of {a:.1f} to {b:.1f} and {label(over)} ones of {c:.1f} to {d:.1f}, so there "
        f"is none at which to compare them: train {label(under)} SAEs with {denser}, or {label(over)} ones with "
        f"{sparser}"
    )


def _over_seeds(units: Sequence[tuple[int, ...]], values: Float[np.ndarray, " units"], level: float) -> Interval:
    """The interval over seeds of one value a seed, or one a pair of seeds."""
    _check_seeds(seed for unit in units for seed in unit)
    return interval(values, level) if len(units[0]) == 1 else interval_of_pairs(values, np.array(units), level)


def _check_seeds(seeds: Iterable[int]) -> None:
    there = sorted(set(seeds))
    if (n := len(there)) < SEEDS:
        raise ValueError(
            f"the rule asks for at least {SEEDS} seeds with all that it compares, and there "
            f"{'is' if n == 1 else 'are'} {n} ({listed(there)}): add seeds"
        )


def at_equal_l0(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> pd.DataFrame:
    """The metric of two arms on a common grid of L0.

    Args:
        records: rows with `constraint`, `seed`, `l0` and the metric, and `other_seed` where they are of pairs; several
            sparsities for each arm and seed.
        metric: a column.
        arms: two values of `constraint`.

    Returns:
        Rows of `seed` (and `other_seed`), `l0`, one column an arm, and `difference`: second arm minus first.

    Raises:
        TypeError: a table that lacks a column.
        ValueError: arms that do not overlap in L0, or with fewer than two sparsities; one arm twice; an L0 of 0, or a
            value that is not finite.
    """
    import pandas as pd

    found = _differences(records, metric, arms)
    grid = len(found.l0)
    seeds = {name: np.repeat(values, grid) for name, values in zip(_seed_columns(records), zip(*found.units))}
    of_arms = {arm: values.ravel() for arm, values in zip(arms, found.values)}
    columns = {**seeds, "l0": np.tile(found.l0, len(found.units)), **of_arms}
    return pd.DataFrame({**columns, "difference": found.difference.ravel()})


def by_l0(table: pd.DataFrame) -> tuple[tuple[float, Interval], ...]:
    """The mean difference at each L0 of a table from `at_equal_l0`, with its interval over seeds.

    Raises:
        ValueError: fewer than two seeds; of pairs, fewer than three.
    """
    _checked(table, ["l0", "difference"])
    found = []
    for l0, rows in table.groupby("l0"):
        values = rows.difference.to_numpy()
        pairs = rows[["seed", "other_seed"]].to_numpy() if "other_seed" in rows else None
        found.append((float(l0), interval(values) if pairs is None else interval_of_pairs(values, pairs)))
    return tuple(found)


def difference(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> Interval:
    """Second arm minus first at equal L0, averaged over the grid of L0 for each seed.

    Args:
        records, metric, arms: as for `at_equal_l0`.

    Raises:
        ValueError: as `at_equal_l0`; or fewer than three seeds.
    """
    found = _differences(records, metric, arms)
    return _over_seeds(found.units, found.difference.mean(1), LEVEL)


def _at_each(found: _Differences) -> tuple[tuple[float, Interval], ...]:
    return tuple((float(found.l0[i]), _over_seeds(found.units, found.difference[:, i], LEVEL)) for i in range(GRID))


def effects(
    records: pd.DataFrame,
    arms: Sequence[str],
    against: str = "none",
    metrics: Sequence[str] = ("ce_recovered", "alive"),
) -> pd.DataFrame:
    """`difference` of several arms from one, by activation and arm: an `Interval` for each metric, or, where there is
    none, the reason; `NO_RECORD`, where there is no SAE of the arm."""
    import pandas as pd

    found: dict[tuple[str, str], dict[str, Interval | str]] = {}
    for activation, rows in records.groupby("activation", sort=False):
        for arm in arms:
            of_arm = found[str(activation), arm] = {}
            for metric in metrics:
                if arm not in set(rows.constraint):
                    of_arm[metric] = NO_RECORD
                    continue
                try:
                    of_arm[metric] = difference(rows, metric, (against, arm))
                except ValueError as error:
                    of_arm[metric] = str(error)
    table = pd.DataFrame.from_dict(found, orient="index", columns=list(metrics))
    table.index = pd.MultiIndex.from_tuples(found, names=["activation", "arm"])
    return table


def _testable(rule: Callable[P, Finding]) -> Callable[P, Finding]:
    """A rule that cannot be applied says why, as a finding."""

    @wraps(rule)
    def finding(*args: P.args, **kwargs: P.kwargs) -> Finding:
        try:
            return rule(*args, **kwargs)
        except ValueError as error:
            return Finding("not testable here", reason=str(error))

    return finding


@contextmanager
def _of(case: str) -> Iterator[None]:
    """Whose records can't be judged is said where they can't."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"for {case}, {error}") from error


def _case(
    records: pd.DataFrame,
    metric: str,
    arms: tuple[str, str],
    least: Least,
    name: str = "",
    test: Test = Gain(),  # noqa: B008, a frozen value
    densest: bool = False,
) -> Case:
    """Second arm minus first at equal L0, averaged for each seed over the grid, or the upper half of it."""
    found = _differences(records, metric, arms)
    _check_seeds(seed for unit in found.units for seed in unit)
    values = found.difference[:, GRID // 2 if densest else 0 :].mean(1)
    return Case(name, lambda level: _over_seeds(found.units, values, level), least, test)


def _in_cases(
    records: pd.DataFrame,
    columns: Sequence[str],
    metric: str,
    constraint: str,
    least: Least,
    measured: str,
    test: Test = Gain(),  # noqa: B008
    densest: bool = False,
) -> Finding:
    """A rule whose cases are the values of some columns."""
    cases, arms = [], ("none", constraint)
    for of, rows in _groups(records, columns):
        name = ", ".join(map(str, of))
        with _of(name):
            cases.append(_case(rows, metric, arms, least, name, test, densest))
    return decide(cases, _sample(records, arms), measured=f"{measured}, {_minus(constraint)}")


def _minus(constraint: str, other: str = "none", at: str = "at equal L0") -> str:
    return f"{label(constraint)} minus {label(other)} {at}"


def _groups(records: pd.DataFrame, columns: Sequence[str]) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    _checked(records, [], columns)
    return [(of, rows) for of, rows in records.groupby(list(columns), sort=False)]


def _sample(records: pd.DataFrame, arms: Sequence[str]) -> str:
    """How many seeds and SAEs a verdict rests on."""
    kinds = [name for name in ARM if name in records]
    of_arms = records.constraint.isin(arms).to_numpy()
    alike = list(zip(*(records[name].to_numpy()[of_arms] for name in kinds)))
    saes = {
        (*row, seed) for name in _seed_columns(records) for row, seed in zip(alike, records[name].to_numpy()[of_arms])
    }
    return f"{len({sae[-1] for sae in saes})} seeds, {len(saes)} SAEs"


@_testable
def bimodal(scores: pd.DataFrame) -> Finding:
    """C1: the alignment scores of standard SAEs are bimodal, in every architecture.

    Each architecture is a case. The effect is the share of features in a low mode (`aligned.report.low_mode`: those
    below a clear valley of the histogram of scores; 0 where there is one mode alone), averaged over sparsities for each
    seed, with an interval made for shares near 0; the smallest effect of interest is 1 % of the features. As it is a
    mean, one sparsity alone may bring it about: the page lists the sparsities that have a low mode. Beside it stand the
    share of features with a score under 1/2, and the share of SAEs for which Hartigan's dip test rejects one peak at
    5 %, with Wilson's interval. The verdict rests on neither: where all scores are low there is no second mode, and
    what the test can see depends on the width.

    Args:
        scores: `aligned.records(..., measure="scores")`.
    """
    _checked(scores, [], ["histogram", "dip_p", "below_half", "constraint", "seed"])
    standard = _checked(scores[scores.constraint == "none"], ["histogram", "dip_p", "below_half"])
    standard = standard.assign(low_mode=[low_mode(histogram) for histogram in standard.histogram])
    cases, beside = [], []
    for (name,), rows in _groups(standard, ["activation"]):
        with _of(str(name)):
            cases.append(Case(str(name), _shares(rows, "low_mode"), LOW_MODE, Gain("low mode")))
            beside.append((f"{name}, share of features with a score under 1/2", _shares(rows, "below_half")(LEVEL)))
        beside.append((f"{name}, share of SAEs with more than one peak by the dip test", _share(rows.dip_p < 0.05)))
    measured = (
        "the share of a standard SAE's features in a low mode, averaged over sparsities; it is 0 where no clear valley "
        "parts the scores, however low they are"
    )
    return decide(cases, _sample(standard, ["none"]), beside=tuple(beside), measured=measured)


def _shares(rows: pd.DataFrame, column: str) -> Callable[[float], Interval]:
    """The interval over seeds of a share near 0, averaged over the SAEs of each seed."""
    of_seed = rows.groupby("seed")[column].mean().to_numpy()
    _check_seeds(rows.seed)
    return lambda level: interval_of_shares(of_seed, level)


def _share(of: pd.Series) -> Interval:
    """A share with Wilson's interval."""
    from scipy.stats import binomtest

    found = binomtest(int(of.sum()), len(of))
    low, high = found.proportion_ci(method="wilson")
    return Interval(found.statistic, low, high, len(of))


@_testable
def recovers_more(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C2: at equal L0, aligned SAEs recover more cross-entropy than standard ones.

    There is one case. The effect is the difference in CE recovered (aligned minus standard), averaged over the grid of
    L0 for each seed; the smallest of interest is 0.005. The differences at each L0 are shown, but decide nothing: with
    nine values it is too likely that one lies above 0 by chance.
    """
    arms = ("none", constraint)
    found = _differences(records, "ce_recovered", arms)
    case = Case("", lambda level: _over_seeds(found.units, found.difference.mean(1), level), RECOVERED)
    measured = f"CE recovered, {_minus(constraint)}"
    return decide([case], _sample(records, arms), at_l0=_at_each(found), measured=measured)


@_testable
def recovers_more_where_dense(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C3: aligned TopK and BatchTopK SAEs recover more where k is large.

    Each activation is a case. The effect is C2's, averaged over the upper half of the grid of L0 alone.
    """
    measured = "CE recovered in the upper half of the L0 that both arms cover"
    return _in_cases(records, ["activation"], "ce_recovered", constraint, RECOVERED, measured, densest=True)


@_testable
def leaves_few_dead(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C4: aligned training leaves near-zero dead features, without resampling or an auxiliary loss.

    A feature is dead if it does not fire on the evaluation text. For each activation the claim says two things; each is
    one case. More features are alive than in standard SAEs at equal L0; the smallest difference of interest is 1 % of
    the features. And the aligned SAEs' share of dead features, averaged over sparsities for each seed, is near zero:
    this is shown if the whole interval (made for shares near 0) is at or below 1 %, and excluded if the whole interval
    is above 1 %. Where even the standard SAEs have at most 1 % dead features there is nothing to improve, so this
    activation is left out. If none is left, the claim is not testable here.
    """
    _checked(records, [], ["alive", "constraint", "seed"])
    _checked(records[records.constraint.isin(("none", constraint))], ["alive"])
    cases, left_out = [], []
    for (name,), rows in _groups(records, ["activation"]):
        of_arm = {arm: rows[rows.constraint == arm] for arm in ("none", constraint)}
        if (1 - of_arm["none"].alive).mean() <= NEAR_ZERO:
            left_out.append(str(name))
            continue
        dead = of_arm[constraint].assign(dead=1 - of_arm[constraint].alive)
        with _of(str(name)):
            cases += [
                _case(rows, "alive", ("none", constraint), ALIVE, f"{name}, more alive"),
                Case(f"{name}, few dead", _shares(dead, "dead"), DEAD, AtMost("the share of dead features")),
            ]
    if not cases:
        raise ValueError(
            "the standard SAEs too have hardly a dead feature (1 % or less), so nothing is there to be improved: look "
            "where more die (a larger d_sae, another lambda or k)"
        )
    sample = _sample(records[~records.activation.isin(left_out)], ["none", constraint])
    if left_out:
        sample += f"; left out, since standard SAEs too have hardly a dead feature: {', '.join(left_out)}"
    measured = (
        f"for *more alive*, the share of alive features, {_minus(constraint)}; for *few dead*, the share of the "
        f"{label(constraint)} SAEs' features that never fired"
    )
    return decide(cases, sample, cases[0].at(LEVEL) if len(cases) == 2 else None, measured=measured)


def with_l0(table: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """A table of another measure with the SAEs' `l0`; if a row is of a pair of seeds, the mean of their two L0.

    Args:
        table: `aligned.records(..., measure=...)`.
        records: `aligned.records` of the same SAEs.

    Raises:
        ValueError: an SAE of the table that the records lack; names one.
    """
    l0 = _checked(records, ["l0"], [*ARM, "seed"]).drop_duplicates([*ARM, "seed"]).set_index([*ARM, "seed"]).l0
    seeds = [seed for seed in ("seed", "other_seed") if seed in table]
    needed = {(*row[: len(ARM)], seed) for row in table[[*ARM, *seeds]].itertuples(index=False, name=None)
              for seed in row[len(ARM) :]}  # fmt: skip
    if lacking := needed - set(l0.index):
        raise ValueError(f"the records lack {len(lacking)} of {len(needed)} SAEs of the table, such as {min(lacking)}")
    of = [[l0.loc[(*row[: len(ARM)], seed)] for seed in row[len(ARM) :]]
          for row in table[[*ARM, *seeds]].itertuples(index=False, name=None)]  # fmt: skip
    return table.assign(l0=[sum(values) / len(values) for values in of])


@_testable
def more_stable(pairs: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C5: aligned features are more stable across seeds, for ReLU and TopK.

    Each activation is a case. The effect is the difference in PW-MCC over alive features (aligned minus standard) at
    equal L0 for each pair of seeds, averaged over the grid; the smallest of interest is 0.02. The interval is over
    seeds, not over pairs (a jackknife, since pairs share seeds).

    Args:
        pairs: `aligned.records(..., measure="stability")`, with L0 (`with_l0`).
        constraint: of the aligned arm.
    """
    measured = "the PW-MCC of the alive features of two seeds"
    return _in_cases(pairs, ["activation"], "pw_mcc_alive", constraint, STABILITY, measured)


@_testable
def separates_better(scr: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C6: aligned SAEs score higher on SCR.

    Each activation is a case. SAEBench publishes one direction of the score. An SAE's score is the mean of it over all
    pairs of attributes and all n. The effect is its difference (aligned minus standard) at equal L0; the smallest of
    interest is 0.02.

    Args:
        scr: `aligned.records(..., measure="scr")`, with L0 (`with_l0`).
        constraint: of the aligned arm.
    """
    _checked(scr, ["scr"], ["harder"])
    score = [float(np.mean(np.array(values)[np.array(harder)])) for values, harder in zip(scr.scr, scr.harder)]
    measured = "SCR, averaged over n and the pairs of attributes"
    return _in_cases(scr.assign(score=score), ["activation"], "score", constraint, SCR, measured)


@_testable
def correlates(features: pd.DataFrame, metric: str, paper: float) -> Finding:
    """C7 and C8: a feature's MCS, or its concept score, correlates with its alignment score.

    Each activation is a case. The effect is Pearson's r over the alive features of a standard SAE; the smallest of
    interest is half of the paper's r, so a case may be shown although the paper's r lies outside the interval: the page
    says where. The interval is over seeds, by Fisher's z (a jackknife where an SAE was compared with another seed's).
    Beside it stand the partial r given how often features fire (`partial`) and the correlation of ranks (`spearman`),
    which a few features of great value do not decide; the verdict rests on neither.

    Args:
        features: `aligned.records(..., measure="features")`, one row a standard SAE.
        metric: `mcs` or `f1`.
        paper: its r: 0.65 for MCS, 0.32 for auto-interpretability (arXiv 2605.18629, Figures 11 and 12).
    """
    _checked(features, [], ["constraint", "score", "density", metric])
    least = Least(
        number("paper", paper, -1, 1) / 2,
        "r",
        "half of the paper's correlation: a smaller one would be another finding",
    )
    standard = features[features.constraint == "none"]
    cases, beside = [], []
    of_metric = {"mcs": "MCS", "f1": "concept score"}.get(metric, metric)
    for (name,), rows in _groups(standard, ["activation"]):
        with _of(str(name)):
            each = list(zip(rows.score, rows[metric], rows.density))
            r = [pearson(*sae) for sae in each]
            if np.isnan(r).any():
                raise ValueError(f"the {of_metric} is the same for all features of an SAE: nothing correlates with it")
            cases.append(Case(str(name), _correlation(rows, r), least, Gain("correlation", "negative correlation")))
            for of, says in (
                (partial, "partial r given firing density"),
                (spearman, "correlation of ranks (Spearman)"),
            ):
                beside.append((f"{name}, {says}", _correlation(rows, [of(*sae) for sae in each])(LEVEL)))
    measured = f"Pearson's r of alignment score and {of_metric} over the alive features of a standard SAE"
    return decide(cases, _sample(standard, ["none"]), beside=tuple(beside), measured=measured)


def _correlation(rows: pd.DataFrame, r: Sequence[float]) -> Callable[[float], Interval]:
    """The mean over seeds of the correlations of some SAEs, by Fisher's z, which keeps the interval within -1 and 1.

    Several SAEs of a seed are averaged first.
    """
    of_unit: dict[tuple[int, ...], list[float]] = {}
    for z, *unit in zip(np.arctanh(r), *(rows[name] for name in _seed_columns(rows))):
        of_unit.setdefault(tuple(unit), []).append(z)
    z = np.array([np.mean(values) for values in of_unit.values()])

    def at(level: float) -> Interval:
        found = _over_seeds(list(of_unit), z, level)
        mean, low, high = np.tanh([found.mean, found.low, found.high]).tolist()
        return Interval(mean, low, high, found.seeds)

    return at


def pearson(score: Sequence[float], metric: Sequence[float], density: Sequence[float]) -> float:
    """Pearson's r of alignment score and a metric over the features that are alive.

    Raises:
        ValueError: scores that are all the same, as those of an aligned SAE; no feature that is alive, other numbers of
            values, or values that are not finite.
    """
    a, b, _ = _alive(score, metric, density)
    return float(np.corrcoef(a, b)[0, 1])


def partial(score: Sequence[float], metric: Sequence[float], density: Sequence[float]) -> float:
    """Partial correlation of alignment score and a metric over the features that are alive, given the logarithm of how
    often they fire: both are fitted linearly on it, and r is taken between what is left of each. (Firing often could
    raise both.)

    Raises:
        ValueError: as `pearson`.
    """
    a, b, often = _alive(score, metric, density)
    given = np.stack([np.ones_like(often), np.log(often)], 1)
    both = np.stack([a, b], 1)
    left = both - given @ np.linalg.lstsq(given, both)[0]
    return float(np.corrcoef(left.T)[0, 1])


def spearman(score: Sequence[float], metric: Sequence[float], density: Sequence[float]) -> float:
    """Correlation of the ranks of alignment score and a metric over the features that are alive.

    Raises:
        ValueError: as `pearson`.
    """
    from scipy.stats import spearmanr

    a, b, _ = _alive(score, metric, density)
    return float(spearmanr(a, b).statistic)


def _alive(*columns: Sequence[float]) -> list[Float[np.ndarray, " alive"]]:
    """Scores, a metric and densities of the features that fire."""
    arrays = [np.asarray(column, dtype=float) for column in columns]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            f"of each feature one value is needed, and there are {' and '.join(str(len(a)) for a in arrays)}"
        )
    arrays = [array[arrays[-1] > 0] for array in arrays]
    if not len(arrays[0]):
        raise ValueError("no feature is alive: nothing can correlate")
    if not np.isfinite(arrays).all():
        raise ValueError("a score, a metric or a density of a feature is not finite: measure this SAE again")
    if arrays[0].std() < 1e-4:
        raise ValueError("these scores are all the same: nothing can correlate with them")
    return arrays


@_testable
def tying_costs(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C9: tying the weights also removes dead features, but costs reconstruction.

    The claim says two things at equal L0, each a case. First, tied SAEs have a larger share of alive features than
    standard ones; the smallest difference of interest is 1 % of the features. Second, they recover less cross-entropy
    than aligned ones. This is shown if the interval of tied minus aligned lies below 0 and its lower end is at or below
    -0.005, and excluded if the interval rules out a loss of 0.005.
    """
    arms = (constraint, "tied")
    found = _differences(records, "ce_recovered", arms)
    alive = _case(records, "alive", ("none", "tied"), ALIVE, "more alive")
    recovered = _case(records, "ce_recovered", arms, RECOVERED, "less recovered", Loss())
    sample = _sample(records, ["none", *arms])
    measured = (
        f"for *more alive*, the share of alive features, {_minus('tied')}; for *less recovered*, CE recovered, "
        f"{_minus('tied', constraint)}"
    )
    return decide([alive, recovered], sample, recovered.at(LEVEL), _at_each(found), measured=measured)


@_testable
def needs_no_tuning(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C11: alignment works with p-annealing, TopK and BatchTopK, without new hyperparameters.

    No arm has a setting that the other has not. Each activation is a case. The effect is that of C2. A loss of 0.005 is
    the smallest harm of interest. The claim is shown if the whole interval is above -0.005, and excluded if the
    interval is below 0 and its lower end is at or below -0.005.
    """
    return _in_cases(records, ["activation"], "ce_recovered", constraint, RECOVERED, "CE recovered", NoLoss())


@_testable
def holds_everywhere(records: pd.DataFrame, constraint: str = "projected") -> Finding:
    """C12: the gain in CE recovered holds over dictionary sizes and sparsities.

    Each activation and width is a case. The effect is C2's: the mean over the grid of L0 already is one over
    sparsities. With one width alone it is not testable here.
    """
    if len(widths := _checked(records, ["d_sae"]).d_sae.unique()) < 2:
        raise ValueError(f"there is one width alone, {widths[0]}, and the claim compares widths: add SAEs of another")
    return _in_cases(records, ["activation", "d_sae"], "ce_recovered", constraint, RECOVERED, "CE recovered")


@_testable
def no_added_compute(costs: pd.DataFrame) -> Finding:
    """C10: alignment adds no compute.

    The effect is the cost of a step (`aligned.report.cost.in_turns`, aligned over standard). A measured cost is never
    exactly 0, so up to 3 % of a step count as no cost; this limit was set after a first measurement had been seen. Each
    activation and shape is a case, only of shapes whose steps are so long that starting single operations is not most
    of the time (d_sae of 16384 or more: M, L and XL): shown where the interval ends at 3 % or below, excluded where it
    lies above. Where none of these shapes was measured, it is not testable here.
    """
    _checked(costs, ["cost", "low", "high"], ["shape", "activation", "pairs"])
    large = costs[costs["shape"] != "S"]
    if large.empty:
        raise ValueError("none of the shapes M, L and XL was measured: `aligned bench speed` measures them")
    timed = [
        (f"{row.shape} {row.activation}", Interval(row.cost, row.low, row.high, row.pairs))
        for row in large.itertuples(index=False)
    ]
    cases = [Case(name, _widened(effect), COST, AtMost("the cost")) for name, effect in timed]
    most = max((effect for _, effect in timed), key=lambda effect: effect.mean)
    measured = "how much longer an aligned step takes, as a part of the time of a standard one"
    return decide(
        cases, f"{large.pairs.min()} pairs or more in each case", most, measured=measured, over="pairs of steps"
    )


def _widened(effect: Interval) -> Callable[[float], Interval]:
    """From a 95 % interval to one at another level, as if its ends came from a normal distribution each."""

    def at(level: float) -> Interval:
        by = normal_quantile(level) / normal_quantile(LEVEL)
        low, high = (effect.mean + by * (end - effect.mean) for end in (effect.low, effect.high))
        return Interval(effect.mean, low, high, effect.seeds)

    return at
