"""Whether features with low alignment scores are the bad ones, and what the correlations rest on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from aligned.checks import listed
from aligned.evals.intervals import interval, interval_of_pairs
from aligned.methods import METHODS
from aligned.report import claims
from aligned.report.rules import Finding

if TYPE_CHECKING:
    import pandas as pd


LITTLE = 0.05  # in r: a correlation that moves by less does not rest on what was left out


def low_scores(features: Iterable[pd.DataFrame]) -> str:
    """Whether low-score features are the bad ones: how many features with a score under 1/2 fire, and how good these
    are beside the others that fire, in Markdown. Each of the tables may be of several kinds of SAE.

    Args:
        features: from `aligned.records(..., measure="features")`.
    """
    kind = ["activation", "model", "sparsity"]
    of = {
        f"{activation} ({_letter(activation)} = {sparsity:g}) on {model}": rows
        for table in features
        for (activation, model, sparsity), rows in table[table.constraint == "none"].groupby(kind, sort=False)
    }
    if not of:
        return ""
    fire = {name: _low_share(rows) for name, rows in of.items()}
    dead = {name: share for name, rows in of.items() if (share := _dead_of_low(rows)) is not None}
    answer, rest = ["**Are low-score features the bad ones?**"], []
    if dead:
        each = listed([f"{share:.0%} in {name}" for name, share in dead.items()])
        answer.append(f"So many of the features of standard SAEs with a score under 1/2 are dead: {each}.")
    if none := [name for name, share in fire.items() if share == 0]:
        rest.append(
            f"In {listed(none)} no feature that fires has a score under 1/2: the correlations below say nothing of low "
            "scores there."
        )
    for name, share in fire.items():
        if share:
            those = f"Those that fire in {name}, {share:.1%} of its features that fire,"
            compared = _beside_others(of[name])
            answer.append(f"{those} {compared[0] if compared else 'were not compared with the others'}.")
            rest += [f"In {name} {compared[1]}."] if compared else []
    if not dead:
        answer.append("No feature of these standard SAEs has a score under 1/2.")
    return " ".join(answer) + "\n\n" + " ".join(rest)


def low_that_fire(scores: Iterable[pd.DataFrame]) -> str:
    """How many features with a score under 1/2 must be alive, where more scores are low than features are dead: a
    sentence. This is known of all SAEs; which features they are is known of those in `low_scores` alone.

    Args:
        scores: from `aligned.records(..., measure="scores")`.
    """
    told = []
    for table in scores:
        standard = table[table.constraint == "none"]
        for (activation, model), rows in standard.groupby(["activation", "model"], sort=False):
            low, dead = rows.below_half.mean(), np.mean([log[-1] for log in rows.log_dead])
            if low > dead:
                told.append(
                    f"at least {1 - dead / low:.0%} in {activation} on {model} ({low:.1%} of the scores are under 1/2, "
                    f"{dead:.1%} of the features are dead)"
                )
    if not told:
        return ""
    return (
        "Of more SAEs, of all sparsities, the records say how many scores are low and how many features are dead at "
        "the end of training, but not which. Where more are low than dead, some low ones must be alive: of the "
        f"features with a score under 1/2, {listed(told)}. So a low score need not mean a dead feature."
    )


def against_ranks(found: Finding) -> str:
    """Of which kinds of SAE the correlation of ranks has another sign than r, which is judged: a sentence, or nothing.

    Args:
        found: `aligned.report.claims.correlates`.
    """
    r = {outcome.name: outcome.effect for outcome in found.outcomes}
    ranks = {what.split(", ")[0]: effect for what, effect in found.beside if "ranks" in what}
    of = [kind for kind in r if kind in ranks and r[kind].mean * ranks[kind].mean < 0]
    if not of:
        return ""
    each = listed([f"{kind} ({r[kind]}; of ranks {ranks[kind]})" for kind in of])
    return f"The correlation of ranks has another sign than r in {each}: there a few features bring r about."


def correlations(features: pd.DataFrame) -> str:
    """Pearson's r of the alignment score with the MCS and with the concept score over alive features, of each standard
    SAE: a list in Markdown.

    Args:
        features: from `aligned.records(..., measure="features")`.
    """
    lines = []
    for activation, rows in features[features.constraint == "none"].groupby("activation", sort=False):
        for metric, name in (("mcs", "MCS"), ("f1", "concept score")):
            each = zip(rows.seed, rows.score, rows[metric], rows.density)
            r = [
                f"{claims.pearson(score, values, density):+.2f} (seed {seed})" for seed, score, values, density in each
            ]
            lines.append(f"- {activation}, {name}: {', '.join(r)}")
    return "\n".join(lines)


def _letter(activation: str) -> str:
    return "k" if METHODS[activation]().counts else "λ"


def _low_share(rows: pd.DataFrame) -> float:
    """The share of the features that fire, whose score is under 1/2; mean over SAEs."""
    return float(np.mean([(np.array(s)[np.array(d) > 0] < 0.5).mean() for s, d in zip(rows.score, rows.density)]))


def _dead_of_low(rows: pd.DataFrame) -> float | None:
    """Of the features with a score under 1/2, the share that does not fire; None if there are none."""
    low = np.concatenate([*rows.score]) < 0.5
    return float((np.concatenate([*rows.density])[low] == 0).mean()) if low.any() else None


def _beside_others(rows: pd.DataFrame) -> tuple[str, str] | None:
    """How good the features are that fire and have a score under 1/2, beside the others that fire, and whether the
    correlations rest on them; None where this can't be said of each SAE, as it has no such feature."""
    said, without, moves = [], [], []
    for metric, better, worse, of in (
        ("mcs", "are found again more", "are found again less", "MCS"),
        ("f1", "detect a concept better", "detect a concept worse", "F1"),
    ):
        means, r = [], []
        for score, density, values in zip(*(map(np.array, rows[column]) for column in ("score", "density", metric))):
            fires, low = density > 0, score < 0.5
            if not (fires & low).any() or (fires & ~low).sum() < 2:
                return None
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
        said.append(f"{says} (mean {of} {few:.2f}, the others that fire {others:.2f})")
        without.append(f"{of}: {every:.2f} with them, {rest:.2f} without")
        moves.append(abs(every - rest))
    rests = "hardly changes" if max(moves) < LITTLE else "changes"
    so = "it tells of the higher scores" if max(moves) < LITTLE else "it rests on them, too"
    return (
        f"{' and '.join(said)}",
        f"r {rests} if those with low scores are left out ({'; '.join(without)}), so {so}",
    )
