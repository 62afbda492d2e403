"""Whether another formula of the constraint, or a penalty in its place, does as the aligned arm does."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from aligned.alignment import HARD
from aligned.report import claims
from aligned.report.answers.words import LEASTS, became, seed_by_seed

if TYPE_CHECKING:
    import pandas as pd


def one_by_one(records: pd.DataFrame, from_aligned: pd.DataFrame, constraint: str = "projected") -> str:
    """The difference of each arm from the aligned one in CE recovered, in a word and a number; seed by seed where it is
    open. In Markdown: a list, and which arms have no record.

    Args:
        records: from `aligned.records`.
        from_aligned: the arms' `aligned.report.claims.effects` against the aligned one.
        constraint: of the aligned arm.
    """
    lines, without = [], []
    for (activation, arm), effect in from_aligned.ce_recovered.items():
        if effect == claims.NO_RECORD:
            without.append(f"{activation} `{arm}`")
            continue
        says = became(effect, claims.RECOVERED)
        seeds = _seeds(records[records.activation == activation], (constraint, arm)) if says == "open" else ""
        lines.append(f"- {activation}, `{arm}`: {says}, {effect}{seeds}")
    if without:
        lines += ["", f"There is no record yet of {', '.join(without)}."]
    return (
        f"The other arms against `{constraint}`: the difference in CE recovered at equal L0, with its 95 % interval "
        "over seeds. Two arms are compared over the range of L0 that both reach, so these numbers are not quite the "
        "differences between rows of the table above.\n\n" + "\n".join(lines)
    )


def compared_at(records: pd.DataFrame, arm: str, others: Iterable[str]) -> str:
    """The range of L0 in which an arm and each of the others are compared, for each activation, in a sentence.

    Args:
        records: from `aligned.records`.
        arm, others: values of `constraint`. A pair that can't be compared is left out.
    """
    told = []
    for other in others:
        at = []
        for activation, rows in records.groupby("activation", sort=False):
            with suppress(ValueError):
                l0 = claims.at_equal_l0(rows, "ce_recovered", (other, arm)).l0
                at.append(f"{l0.min():.0f} to {l0.max():.0f} ({activation})")
        if at:
            told.append(f"{claims.label(arm)} and {claims.label(other)} SAEs at {', '.join(at)}")
    return f"Two arms are compared at the L0 that both reach: {'; '.join(told)}." if told else ""


def so(
    records: pd.DataFrame, from_standard: pd.DataFrame, from_aligned: pd.DataFrame, constraint: str = "projected"
) -> str:
    """Of each activation: how the arms differ from the standard SAE, whether it matters which formula keeps the score
    at 1, and whether a constraint is needed. In Markdown, a paragraph each.

    Args:
        records: from `aligned.records`.
        from_standard: the `aligned.report.claims.effects` of all arms, the aligned one too, against the standard one.
        from_aligned: those of the others against the aligned arm.
        constraint: of the aligned arm.
    """
    told = []
    for activation, rows in records.groupby("activation", sort=False):
        standard, aligned = from_standard.loc[activation], from_aligned.loc[activation].ce_recovered
        told += [
            f"**{activation}.** Against the standard SAE, CE recovered is {_sorted_out(standard, 'ce_recovered')}. "
            f"The share of alive features is {_sorted_out(standard, 'alive')}.",
            _of_formulas(aligned, constraint),
            _of_penalty(rows[rows.constraint == "soft"], standard.ce_recovered, aligned, constraint),
        ]
    return "\n\n".join(filter(None, told))


def _seeds(rows: pd.DataFrame, arms: tuple[str, str]) -> str:
    """The differences of the single seeds, in brackets, and why one of them may have run away."""
    each = seed_by_seed(rows, "ce_recovered", arms)
    pole = "; near its pole encoders get very long" if "ran away" in each and arms[1] == "rescaled" else ""
    return f" ({each}){pole}"


def _sorted_out(effects: pd.DataFrame, metric: str) -> str:
    """The arms, by what became of each."""
    of: dict[str, list[str]] = {}
    for arm, effect in effects[metric].items():
        if effect != claims.NO_RECORD:
            of.setdefault(became(effect, LEASTS[metric]), []).append(f"`{arm}`")
    return "; ".join(f"{says} with {', '.join(of[says])}" for says in sorted(of))


def _of_formulas(effects: pd.Series, constraint: str) -> str:
    """Which formulas that keep the score at 1 differ from the aligned arm's; tied weights are more than a formula."""
    compared = {
        arm: effect for arm, effect in effects.items() if arm in HARD and arm != "tied" and not isinstance(effect, str)
    }
    if not compared:
        return "No other formula could be compared in CE recovered."
    differ = [f"`{arm}` {e}" for arm, e in compared.items() if became(e, claims.RECOVERED) in ("more", "less")]
    if differ:
        with_these = ", ".join(differ)
        return f"How the score is kept at 1 matters: against `{constraint}`, CE recovered differs with {with_these}."
    return (
        f"No other formula of the constraint, tied weights aside, is shown to differ from `{constraint}` by "
        f"{claims.RECOVERED.size:g} in CE recovered."
    )


def _of_penalty(soft: pd.DataFrame, from_standard: pd.Series, from_aligned: pd.Series, constraint: str) -> str:
    """What a penalty in the place of the constraint does; nothing where there is none to compare."""
    if soft.empty or isinstance(from_standard["soft"], str):
        return ""
    start = (
        f" As the standard SAE does, it starts with scores near 0; `{constraint}` starts with 1."
        if (soft.init == "small").all()
        else ""
    )
    return (
        "`soft` is no constraint: with this penalty scores lie between "
        f"{soft.score_min.min():.2f} and {soft.score_max.max():.2f}.{start} CE recovered is {from_standard['soft']} "
        f"against the standard SAE, and {from_aligned['soft']} against `{constraint}`."
    )
