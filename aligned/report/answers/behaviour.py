"""What the constraint changes in how an SAE behaves on held-out text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aligned.evals.intervals import interval
from aligned.report import claims

if TYPE_CHECKING:
    import pandas as pd


def that_differ(tables: Iterable[pd.DataFrame], columns: Sequence[str], constraint: str = "projected") -> str:
    """Which numbers of aligned SAEs are shown to differ from those of standard ones, kind by kind, and by how much: a
    list in Markdown; nothing where there is no table.

    Args:
        tables: from `aligned.records(..., measure="behaviour")`, of one sparsity for each activation.
        columns: the numbers.
        constraint: of the aligned arm.
    """
    lines = [
        f"- {activation}: {_differ(rows, columns, constraint)}"
        for records in tables
        for activation, rows in records.groupby("activation", sort=False)
    ]
    if not lines:
        return ""
    return "Aligned minus standard, where the 95 % interval over seeds lies on one side of 0:\n\n" + "\n".join(lines)


def _differ(rows: pd.DataFrame, columns: Sequence[str], constraint: str) -> str:
    of_seeds = rows.pivot(index="seed", columns="constraint", values=list(columns))
    found = {}
    for name in columns:
        of = of_seeds[name].reindex(columns=["none", constraint]).dropna()
        if len(of) >= claims.SEEDS:
            found[name] = interval((of[constraint] - of["none"]).to_numpy())
    differ = [f"`{name}` {effect.mean:+.4f}" for name, effect in found.items() if not effect.low <= 0 <= effect.high]
    return ", ".join(differ) or ("none is shown" if found else "too few seeds have both arms")
