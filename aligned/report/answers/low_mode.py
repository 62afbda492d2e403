"""Where standard SAEs have a low mode of alignment scores, and whether ReLU SAEs have it from their start."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from aligned.methods import method
from aligned.report.low_mode import low_mode
from aligned.report.results import of_parts

if TYPE_CHECKING:
    import pandas as pd


def over_sparsities(records: pd.DataFrame) -> pd.Series:
    """The share of standard SAEs' features in a low mode, by sparsity, mean over seeds.

    Args:
        records: from `aligned.records(..., measure="scores")`.
    """
    standard = records[records.constraint == "none"]
    return standard.histogram.map(low_mode).groupby(standard.sparsity).mean()


def where(shares: pd.Series, letter: str, least: float) -> str:
    """At which sparsities there is a low mode of `least` of the features or more, and at which there is none.

    Args:
        shares: from `over_sparsities`.
        letter: of the sparsity.
    """
    there = shares[shares >= least]
    if there.empty:
        return "at no sparsity"
    gone = [f"{at:g}" for at in shares.index.difference(there.index)]
    told = ", ".join(f"{letter} = {at:g} ({share:.1%})" for at, share in there.items())
    return f"at {told}; not at {letter} = {', '.join(gone)}" if gone else f"at {told}"


def of_model(model: str, activations: Iterable[str], least: float) -> str:
    """At which sparsities the published standard SAEs of a language model have a low mode: a sentence; "" where none of
    them is published.

    Args:
        model: of the plan.
        activations: kinds of SAE.
        least: the smallest share of features that counts as a low mode.
    """
    told = []
    for activation in activations:
        with suppress(ValueError):  # none is published
            shares = over_sparsities(of_parts(model, activation, measure="scores"))
            told.append(f"{activation} ({where(shares, 'k' if method(activation).counts else 'λ', least)})")
    return f"Standard SAEs have a low mode of {least:.0%} of the features or more: {', '.join(told)}." if told else ""


def of_the_start(small: pd.Series, unit: pd.Series, least: float) -> str:
    """Whether the low mode of ReLU SAEs comes from their small start, judged at the sparsities that were trained from
    both starts: a sentence.

    Args:
        small, unit: from `over_sparsities`, of SAEs from the small start and from rows of norm 1.
        least: the smallest share of features that counts as a low mode.
    """
    both = small.index.intersection(unit.index)
    if both.empty:
        return "No sparsity was trained from both starts, so nothing can be said of the start."
    at = f"λ = {', '.join(f'{value:g}' for value in both)}"
    if (small[both] < least).all() and (unit[both] < least).all():
        return f"At {at}, ReLU SAEs have no low mode from either start, so they do not say what the start does to it."
    if (unit[both] >= least).any():
        return f"At {at}, ReLU SAEs from rows of norm 1 have a low mode, too: the small start alone does not bring it."
    return f"At {at}, ReLU SAEs from rows of norm 1 have no low mode: there it comes from the small start."
