"""Whether the start of training or the mean of the activations brings a difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from aligned.checks import listed
from aligned.evals.intervals import interval
from aligned.report import claims
from aligned.report.answers.words import LEASTS, became, gone
from aligned.report.published import ARMS
from aligned.report.results import facets, of_parts

if TYPE_CHECKING:
    import pandas as pd


CAUSES = {  # of a setting, its words in a sentence, what it looks at, and what is done
    "init unit": ("from rows of norm 1", "the start", "with the other start"),
    "init small_encoder": (
        "from the small start with decoder rows of norm 1",
        "the first step",
        "without the first step",
    ),
    "center True": ("with the mean subtracted", "the mean", "without the mean"),
}
ALONE = "Each of these was changed alone. They may take away the same part, so shares do not add up."


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
                told = {name: _told(name, rows, other, metric, constraint) for name, other in of_setting.items()}
            except ValueError as error:
                lines.append(f"- {activation}, {least.of}: can't be said ({error})")
                continue
            each = [f"{CAUSES[name][0]} {said}" for name, (said, *_) in told.items()]
            lines.append(f"- {activation}, {least.of}: {'; '.join([f'{became(first, least)} as above', *each])}")
            answers.append(f"- {activation}, {least.of}: {_answer(became(first, least), told)}")
    if not answers:
        return "\n".join(lines)
    whose = f"Aligned minus standard (`{constraint}`), and how much another setting of both arms changes it:"
    asked = "**The constraint, the start, its first step, or the mean?**"
    alone = [ALONE] if any(" is gone" in answer for answer in answers) else []
    return "\n\n".join((whose, "\n".join(lines), asked, "\n".join(answers), *alone))


def without_the_mean(activations: Iterable[str], models: Iterable[str]) -> str:
    """What is left of the difference between aligned and standard SAEs where both read activations without their mean,
    on the language models of which such SAEs are published, at the same sparsities: a list in Markdown; "" where there
    is none."""
    lines = []
    for (activation, model), centred in facets(activations, models=models, part="centred").items():
        rows = of_parts(model, activation)
        both = {"with the mean": rows[rows.sparsity.isin(centred.sparsity)], "without it": centred}
        for metric, least in LEASTS.items():
            try:
                effects = {how: claims.difference(of, metric, ARMS) for how, of in both.items()}
            except ValueError as error:
                lines.append(f"- {activation} on {model}, {least.of}: can't be said ({error})")
                continue
            told = ", ".join(f"{effect} {how} ({became(effect, least)})" for how, effect in effects.items())
            lines.append(f"- {activation} on {model}, {least.of}: {told}")
    return "\n".join(lines)


def _told(name: str, before: pd.DataFrame, after: pd.DataFrame, metric: str, constraint: str) -> tuple[str, str, str]:
    """What becomes of a difference in another setting, in words; what the setting does to it; the new difference in a
    word."""
    arms, least = ("none", constraint), LEASTS[metric]
    first, second = (became(claims.difference(rows, metric, arms), least) for rows in (before, after))
    means = [claims.at_equal_l0(rows, metric, arms).groupby("seed").difference.mean() for rows in (before, after)]
    each = (means[1] - means[0]).dropna()
    change = interval(each.to_numpy())
    moved = became(change, least)
    _, cause, without = CAUSES[name]
    if moved == "open":
        does = f"{cause} may matter or not"
    elif moved not in ("more", "less") or (first == second and first not in ("more", "less")):
        does = f"{cause} hardly matters"
    elif first != second:
        does = f"{cause} {'matters' if second == 'open' else 'decides'}"
    elif abs(means[1].mean()) < abs(means[0].mean()):
        does = f"{without} {gone(before, after, metric, arms)} of it is gone"
    else:
        does = f"{cause} hides a part of it"
    return f"{second} (a change of {change})", does, second


def _answer(first: str, told: Mapping[str, tuple[str, str, str]]) -> str:
    """Of one kind of SAE, what brings its difference."""
    if first not in ("more", "less"):
        also = [CAUSES[name][0] for name, (_, _, second) in told.items() if second == first]
        so = f", also {listed(also)}" if also else ""
        return f"whether there is one is open{so}." if first == "open" else f"none to explain, it is {first}{so}."
    said = [does for _, does, _ in told.values()]
    if "init unit" in told:
        said.append(
            f"from rows of norm 1, where both arms start with the same weights, the difference is: "
            f"{told['init unit'][2]} (whether the constraint itself brings it, or the way its gradients flow, was not "
            "tested from that start)"
        )
    return f"{'; '.join(said)}." if said else "no other start or mean has been tried."
