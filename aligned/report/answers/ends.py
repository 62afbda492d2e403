"""Where along L0 a difference arises: a mean over L0 may rest on one end of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from aligned.checks import listed
from aligned.report import claims
from aligned.report.answers.words import became
from aligned.report.published import ARMS
from aligned.report.results import of_parts
from aligned.report.rules import Finding, Least

if TYPE_CHECKING:
    import pandas as pd


def at_both_ends(tables: Mapping[str, pd.DataFrame], metric: str, arms: tuple[str, str]) -> str:
    """Of each table the difference between two arms at the least and at the greatest L0 that both have: a list in
    Markdown. A table that can't say it says why.

    Args:
        tables: records, by what the list is to call them.
        metric, arms: as for `aligned.report.claims.at_equal_l0`.
    """
    return "\n".join(f"- {name}: {_ends(records, metric, arms)}" for name, records in tables.items())


def reached(tables: Mapping[str, pd.DataFrame], metric: str, arms: tuple[str, str], least: Least) -> str:
    """Of each table, at which L0 the difference between two arms is as large as the smallest of interest, on the SAEs
    of which sparsities that rests, and what the difference is elsewhere: a list in Markdown. A table that can't say it
    says why.

    Args:
        tables, metric, arms: as for `at_both_ends`; the records have their `sparsity`.
        least: the smallest difference of interest.
    """
    return "\n".join(f"- {name}: {_reached(records, metric, arms, least)}" for name, records in tables.items())


def of_l0_and_width(found: Mapping[str, Mapping[str, Finding]]) -> str:
    """What the first screen says of its means: how the difference between the arms in CE recovered of ReLU SAEs from
    the small start depends on L0 and on the width, on each language model.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    told = []
    for model, of in found.items():
        with suppress(ValueError):  # nothing to compare
            relu = of_parts(model, "relu")
            (low, first), *_, (high, last) = claims.by_l0(claims.at_equal_l0(relu, "ce_recovered", ARMS))
            each = [f"{first.mean:+.3f} at an L0 of {low:.0f} and {last.mean:+.3f} at {high:.0f}"]
            for outcome in of["C12"].outcomes:
                activation, width = outcome.name.split(", ")
                if activation == "relu" and int(width) not in set(relu.d_sae):
                    word = became(outcome.effect, outcome.least)
                    each.append(f"at width {width} {outcome.effect.mean:+.3f} ({word})")
            told.append(f"on {model} {', and '.join(each)}")
    example = f" In CE recovered of ReLU SAEs from the small start it is {'; '.join(told)}." if told else ""
    return (
        "Each number is a mean over the range of L0 that both arms reach (of ReLU SAEs, from every start), of SAEs of "
        f"one width for each model. The difference between the arms can depend on both.{example} The pages of the "
        "measures have the rest."
    )


def _reached(records: pd.DataFrame, metric: str, arms: tuple[str, str], least: Least) -> str:
    try:
        each = claims.by_l0(claims.at_equal_l0(records, metric, arms))
    except ValueError as error:
        return str(error)
    there = [l0 for l0, effect in each if abs(effect.mean) >= least.size]
    rest = [effect.mean for l0, effect in each if l0 not in there]
    if not there:
        return f"smaller than {least.size:g} at every L0"
    if not rest:
        return f"{least.size:g} or more at every L0"
    of = records[records.constraint.isin(arms)].groupby("sparsity").l0.mean().sort_values()
    first = max(0, of.searchsorted(min(there), "right") - 1)
    sparsities = listed(f"{sparsity:g}" for sparsity in of.index[first : of.searchsorted(max(there)) + 1])
    return (
        f"{least.size:g} or more at {len(there)} of {len(each)} values of L0, {min(there):.1f} to {max(there):.1f} "
        f"(from the SAEs of sparsity {sparsities}); at the others {sum(rest) / len(rest):+.4f} on average"
    )


def _ends(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> str:
    try:
        (low, first), *_, (high, last) = claims.by_l0(claims.at_equal_l0(records, metric, arms))
    except ValueError as error:
        return str(error)
    return f"{first} at an L0 of {low:.1f}, {last} at {high:.1f}"
