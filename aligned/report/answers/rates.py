"""What alignment does at another learning rate than the chosen one, on the models of which both are published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.published import ARMS
from aligned.report.results import NothingPublished, of_parts

KINDS = {"ReLU": "relu", "TopK": "topk"}
COLUMNS = {"CE recovered": "ce_recovered", "share of alive features": "alive"}


@dataclass(frozen=True)
class Rates:
    """Aligned minus standard on a model at another learning rate and at the chosen one, by measure and kind of SAE,
    such as `CE recovered, TopK`."""

    model: str
    rate: float
    chosen: float
    other: dict[str, Interval]
    here: dict[str, Interval]


def rates(model: str) -> Rates | None:
    """What the published records say of the two learning rates; None if they can't be compared."""
    other, here = {}, {}
    try:
        earlier = of_parts(model, "earlier")
        for kind, activation in KINDS.items():
            grid = of_parts(model, activation)
            of = earlier[(earlier.activation == activation) & earlier.sparsity.isin(grid.sparsity)]
            for measure, column in COLUMNS.items():
                here[f"{measure}, {kind}"] = claims.difference(grid, column, ARMS)
                other[f"{measure}, {kind}"] = claims.difference(of, column, ARMS)
    except (NothingPublished, ValueError):
        return None
    return Rates(model, float(earlier.lr.iloc[0]), float(grid.lr.iloc[0]), other, here)


def of_the_rate(models: Iterable[str]) -> str:
    """What alignment does at another learning rate, in Markdown; nothing where no model has both."""
    known = [of for of in map(rates, models) if of]
    if not known:
        return ""
    each = ", ".join(f"{of.rate:g} in place of {of.chosen:g} on {of.model}" for of in known)
    rows = [f"| {name}, {of.model} | {of.here[name]} | {of.other[name]} |" for of in known for name in of.here]
    head = "| aligned minus standard [95 % interval] | chosen rate | another rate |\n|---|---|---|"
    return (
        "The learning rate was chosen for each model on standard TopK SAEs, and the claims are judged at that rate. "
        f"At another one all SAEs are published of {len(known)} model{'s' * (len(known) > 1)} ({each}):\n\n"
        + "\n".join([head, *rows])
    )
