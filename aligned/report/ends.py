"""Where along L0 a difference arises: a mean over L0 may rest on one end of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aligned.report import claims

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


def _ends(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> str:
    try:
        (low, first), *_, (high, last) = claims.by_l0(claims.at_equal_l0(records, metric, arms))
    except ValueError as error:
        return str(error)
    return f"{first} at an L0 of {low:.1f}, {last} at {high:.1f}"
