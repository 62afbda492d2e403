"""What a page concludes, in sentences that its records choose, so that they stay true when records are added."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from aligned.checks import listed
from aligned.evals.intervals import Interval, interval, interval_of_pairs
from aligned.report import claims
from aligned.report.rules import Least

if TYPE_CHECKING:
    import pandas as pd

LITTLE = 0.05  # in r: a correlation that moves by less does not rest on what was left out


def became(effect: Interval | str, least: Least) -> str:
    """What an interval says of a difference, in a word or two. A reason in its place says that there is none."""
    if isinstance(effect, str):
        return "not comparable"
    if -least.size < effect.low and effect.high < least.size:
        return f"the same within {least.size:g}"
    if effect.low <= 0 <= effect.high:
        return "open"
    return "more" if effect.low > 0 else "less"


def low_scores(features: Iterable[pd.DataFrame]) -> str:
    """Whether low-score features are the bad ones: how many features with a score under 1/2 fire, and how good these
    are beside the others that fire, in Markdown. Each of the tables may be of several kinds of SAE.

    Args:
        features: from `aligned.records(..., measure="features")`.
    """
    of = {
        f"{activation} on {model}": rows
        for table in features
        for (activation, model), rows in table[table.constraint == "none"].groupby(["activation", "model"], sort=False)
    }
    if not of:
        return ""
    fire = {name: _low_share(rows) for name, rows in of.items()}
    dead = {name: share for name, rows in of.items() if (share := _dead_of_low(rows)) is not None}
    said = ["**Are low-score features the bad ones?**"]
    if dead:
        most = "Most" if min(dead.values()) > 0.5 else "Not all"
        each = listed([f"{share:.0%} in {name}" for name, share in dead.items()])
        said.append(f"{most} features of standard SAEs with a score under 1/2 are dead ({each}).")
    some = [f"{share:.1%} in {name}" for name, share in fire.items() if share > 0]
    none = [name for name, share in fire.items() if share == 0]
    rest = f"none in {listed(none)}: there the correlations below can say nothing of low scores" if none else ""
    said.append(f"Of the features that fire, these shares have such a score: {'; '.join(filter(None, [*some, rest]))}.")
    said += [told for name, rows in of.items() if (told := _beside_others(rows, name))]
    return " ".join(said)


def _low_share(rows: pd.DataFrame) -> float:
    """The share of the features that fire, whose score is under 1/2; mean over SAEs."""
    return float(np.mean([(np.array(s)[np.array(d) > 0] < 0.5).mean() for s, d in zip(rows.score, rows.density)]))


def _dead_of_low(rows: pd.DataFrame) -> float | None:
    """Of the features with a score under 1/2, the share that does not fire; None if there are none."""
    low = np.concatenate([*rows.score]) < 0.5
    return float((np.concatenate([*rows.density])[low] == 0).mean()) if low.any() else None


def _beside_others(rows: pd.DataFrame, name: str) -> str:
    """How good the features are that fire and have a score under 1/2, beside the others that fire, and whether the
    correlations rest on them; nothing where an SAE has no such feature."""
    said, without, moves = [], [], []
    for metric, better, worse, of in (
        ("mcs", "are found again more", "are found again less", "MCS"),
        ("f1", "detect a concept better", "detect a concept worse", "F1"),
    ):
        means, r = [], []
        for score, density, values in zip(*(map(np.array, rows[column]) for column in ("score", "density", metric))):
            fires, low = density > 0, score < 0.5
            if not (fires & low).any() or not (fires & ~low).any():
                return ""
            means.append([values[fires & low].mean(), values[fires & ~low].mean()])
            r.append([claims.pearson(score[of_r], values[of_r], density[of_r]) for of_r in (fires, fires & ~low)])
        (few, others), (every, rest) = np.mean(means, axis=0), np.mean(r, axis=0)
        try:
            apart = np.subtract(*np.array(means).T)
            pairs = rows[["seed", "other_seed"]].to_numpy()
            effect = interval_of_pairs(apart, pairs) if metric == "mcs" else interval(apart)
            says = better if effect.low > 0 else worse if effect.high < 0 else f"are not shown to differ in {of}"
        except ValueError:  # too few seeds
            says = f"are not shown to differ in {of}"
        said.append(f"{says} ({few:.2f} against {others:.2f} in mean {of})")
        without.append(f"{of}: {every:.2f} with them, {rest:.2f} without")
        moves.append(abs(every - rest))
    little = "Yet r hardly changes if they are left out, so it tells of the higher scores"
    rests = little if max(moves) < LITTLE else "Here r changes if they are left out, so it rests on them, too"
    return (
        f"Compared with the other features that fire, those in {name} {' and '.join(said)}. {rests} "
        f"({'; '.join(without)})."
    )
