"""What a page concludes, in sentences that its records choose, so that they stay true when records are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from aligned.checks import listed
from aligned.evals.intervals import Interval, interval, interval_of_pairs
from aligned.methods import METHODS
from aligned.report import claims
from aligned.report.rules import Finding, Least

if TYPE_CHECKING:
    import pandas as pd

    from aligned.report.starts import Starts

LEASTS = {"ce_recovered": claims.RECOVERED, "alive": claims.ALIVE}  # of the measures that pages compare arms by
CAUSES = {  # of a setting, its words in a sentence, and what it looks at
    "init unit": ("from rows of norm 1", "the start"),
    "center True": ("with the mean subtracted", "the mean"),
}
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


def in_words(tables: Mapping[str, pd.DataFrame], metric: str, arms: tuple[str, str]) -> str:
    """The difference between two arms in each table, in a word and a number: a list in Markdown.

    Args:
        tables: records, by what the list is to call them.
        metric, arms: as for `aligned.report.claims.at_equal_l0`; the metric is one of `LEASTS`.
    """
    lines = []
    for name, records in tables.items():
        try:
            effect = claims.difference(records, metric, arms)
            lines.append(f"- {name}: {became(effect, LEASTS[metric])}, {effect}")
        except ValueError as error:
            lines.append(f"- {name}: can't be said ({error})")
    return "\n".join(lines)


def of_settings(here: pd.DataFrame, settings: Mapping[str, pd.DataFrame], constraint: str = "projected") -> str:
    """Whether the start or the mean decides what an arm differs by from the standard one: what happens to the
    difference, seed by seed, where both arms have another start or have the mean subtracted. In Markdown: a list, and
    an answer for each activation.

    Args:
        here: from `aligned.records`, in the page's own setting.
        settings: records in others, under the names of `aligned.spec.variants`; those of `CAUSES` are told.
        constraint: of the aligned arm.
    """
    lines, answers = [], []
    for activation, rows in here.groupby("activation", sort=False):
        of_setting = {
            name: other[other.activation == activation]
            for name, other in settings.items()
            if name in CAUSES and activation in set(other.activation)
        }
        for metric, least in LEASTS.items():
            try:
                first = claims.difference(rows, metric, ("none", constraint))
                told = {name: _told(rows, other, metric, constraint) for name, other in of_setting.items()}
            except ValueError as error:
                lines.append(f"- {activation}, {least.of}: can't be said ({error})")
                continue
            each = [f"{CAUSES[name][0]} {said}" for name, (said, *_) in told.items()]
            lines.append(f"- {activation}, {least.of}: {'; '.join([f'{became(first, least)} as above', *each])}")
            answers.append(f"- {activation}, {least.of}: {_answer(became(first, least), told)}")
    if not answers:
        return "\n".join(lines)
    whose = f"Aligned minus standard (`{constraint}`), and how much another setting of both arms changes it:"
    asked = "**The constraint, the start, or the mean?**"
    return "\n\n".join((whose, "\n".join(lines), asked, "\n".join(answers)))


def small_gains(starts: Iterable[Starts | str]) -> str:
    """Of which models the difference in CE recovered from rows of norm 1 is shown and still small: a sentence each.

    Args:
        starts: `aligned.report.starts.starts` of some models.
    """
    size = claims.RECOVERED.size
    of = {of.model: of.unit["CE recovered"] for of in starts if not isinstance(of, str)}
    return " ".join(
        f"On {model} aligned SAEs from rows of norm 1 recover {became(effect, claims.RECOVERED)}, but the mean "
        f"difference, {effect.mean:+.4f}, is smaller than {size:g}, the smallest of interest."
        for model, effect in of.items()
        if became(effect, claims.RECOVERED) in ("more", "less") and abs(effect.mean) < size
    )


def _told(before: pd.DataFrame, after: pd.DataFrame, metric: str, constraint: str) -> tuple[str, str, str]:
    """What becomes of a difference in another setting, in words; what the setting does to it; the new difference in a
    word."""
    arms, least = ("none", constraint), LEASTS[metric]
    first, second = (became(claims.difference(rows, metric, arms), least) for rows in (before, after))
    means = [claims.at_equal_l0(rows, metric, arms).groupby("seed").difference.mean() for rows in (before, after)]
    each = (means[1] - means[0]).dropna()
    change = interval(each.to_numpy())
    moved = became(change, least)
    if moved == "open":
        does = "may matter or not"
    elif moved not in ("more", "less") or (first == second and first not in ("more", "less")):
        does = "hardly matters"
    elif first != second:
        does = "matters" if second == "open" else "decides"
    else:
        does = "brings a part of it" if abs(means[1].mean()) < abs(means[0].mean()) else "hides a part of it"
    return f"{second} (a change of {change})", does, second


def _answer(first: str, told: Mapping[str, tuple[str, str, str]]) -> str:
    """Of one kind of SAE, what brings its difference."""
    if first not in ("more", "less"):
        also = [CAUSES[name][0] for name, (_, _, second) in told.items() if second == first]
        so = f", also {listed(also)}" if also else ""
        return f"whether there is one is open{so}." if first == "open" else f"none to explain, it is {first}{so}."
    said = [f"{CAUSES[name][1]} {does}" for name, (_, does, _) in told.items()]
    if "init unit" in told:
        said.append(
            f"from rows of norm 1, where both arms start with the same weights, the difference is: "
            f"{told['init unit'][2]} (whether the constraint itself brings it, or the way its gradients flow, was not "
            "tested from that start)"
        )
    return f"{'; '.join(said)}." if said else "no other start or mean has been tried."


def seed_by_seed(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> str:
    """The differences of the single seeds, and which one ran away: it is over ten times as far from the median as any
    other.

    Args:
        records, metric, arms: as for `aligned.report.claims.at_equal_l0`.
    """
    means = claims.at_equal_l0(records, metric, arms).groupby("seed").difference.mean()
    each = f"seed by seed {', '.join(f'{mean:+.4f}' for mean in means)}"
    far = (means - means.median()).abs().sort_values()
    if len(far) < claims.SEEDS or far.iloc[-1] <= 10 * far.iloc[-2]:
        return each
    return f"{each}; of these, seed {far.index[-1]} ran away"


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
        answer.append(f"Of the features of standard SAEs with a score under 1/2 are dead: {each}.")
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


def over_widths(finding: Finding) -> str:
    """At which widths CE recovered of aligned SAEs is more, less or the same, by C12's cases; nothing where there are
    none.

    Args:
        finding: `aligned.report.claims.holds_everywhere`.
    """
    of: dict[str, dict[str, list[str]]] = {}
    for outcome in finding.outcomes:
        activation, width = outcome.name.split(", ")
        of.setdefault(activation, {}).setdefault(became(outcome.effect, outcome.least), []).append(width)
    lines = []
    for activation, found in of.items():
        alone = " alone" if len(found) > 1 else ""
        each = [
            f"{word} at width {listed(widths)}{alone if word in ('more', 'less') and len(widths) == 1 else ''}"
            for word, widths in sorted(found.items())
        ]
        lines.append(f"{activation} {', '.join(each)}")
    return (
        f"**At which width?** CE recovered of aligned SAEs beside standard ones: {'; '.join(lines)}." if lines else ""
    )


def over_all(pairs: pd.DataFrame, constraint: str = "projected") -> str:
    """What is left of the difference in PW-MCC where dead features count too: a sentence.

    Args:
        pairs: from `aligned.records(..., measure="stability")`, with L0.
        constraint: of the aligned arm.
    """
    said = []
    for activation, rows in pairs.groupby("activation", sort=False):
        try:
            effect = claims.difference(rows, "pw_mcc_all", ("none", constraint))
        except ValueError as error:
            said.append(f"{activation} can't be said ({error})")
            continue
        said.append(f"{activation} {became(effect, claims.STABILITY)}, {effect}")
    return f"Over all features, dead ones too, the difference in PW-MCC is: {'; '.join(said)}."


def settled(along: pd.DataFrame) -> str:
    """Whether two seeds have stopped coming nearer to each other when training ends, and whether features are still
    nearer to their own start than to the other seed's features.

    Args:
        along: from `aligned.records(..., measure="convergence")`.
    """
    rises, near = {}, []
    of_kind = along.groupby(["activation", "constraint"], sort=False)
    for (activation, arm), rows in of_kind:
        name = f"{claims.label(arm)} {activation}"
        late = next(at for at, step in enumerate(rows.moments.iloc[0]) if 2 * step >= rows.moments.iloc[0][-1])
        ends = [np.mean([values[at] for values in rows.pw_mcc]) for at in (late, -1)]
        rises[name] = float(ends[1] - ends[0])
        if np.mean([values[-1] for values in rows.own_start]) > ends[1]:
            near.append(name)
    still = {name: rise for name, rise in rises.items() if rise >= claims.STABILITY.size}
    each = listed([f"{name} ({rise:+.2f})" for name, rise in still.items()]) if still else ""
    told = (
        f"In the second half of the training PW-MCC still rises for {each}: what is found here is of this budget, and "
        "with more tokens these SAEs may agree more."
        if still
        else f"In the second half of the training PW-MCC rises by less than {claims.STABILITY.size:g}: it has settled."
    )
    if near:
        told += (
            f" At the end a feature of {listed(near)} SAEs is still nearer to its own start than to its partner in the "
            "other dictionary: these SAEs have not converged, and a low PW-MCC may only say so."
        )
    return told


def as_alike_as_random(pairs: Mapping[str, pd.DataFrame]) -> str:
    """Which SAEs are no more alike than two random starts: a sentence.

    Args:
        pairs: by name, from `aligned.records(..., measure="stability")`.
    """
    alike = [
        f"{claims.label(arm)} {name}"
        for name, rows in pairs.items()
        for arm, of in rows.groupby("constraint", sort=False)
        if of.pw_mcc_alive.mean() - of.pw_mcc_start.mean() < claims.STABILITY.size
    ]
    if not alike:
        return "None of these SAEs is so near to that line."
    return (
        f"So it is with {'; '.join(alike)}: less than {claims.STABILITY.size:g} above the line. Two seeds of these "
        "have no more in common than random dictionaries, whether their features stayed near the start or went apart. "
        "They may not be trained long enough, and a difference from them says little of the constraint."
    )
