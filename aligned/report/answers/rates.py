"""What alignment does at another learning rate than the chosen one, on the models of which both are published."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from aligned.checks import listed
from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.published import ARMS, PLANS
from aligned.report.results import NothingPublished, drawn, of_parts

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


def of_the_rate(models: Collection[str]) -> str:
    """What alignment does at another learning rate, in Markdown; nothing where no model has both."""
    known = [of for of in map(rates, models) if of]
    if not known:
        return ""
    each = ", ".join(f"{of.rate:g} in place of {of.chosen:g} on {of.model}" for of in known)
    rows = [f"| {name}, {of.model} | {of.here[name]} | {of.other[name]} |" for of in known for name in of.here]
    head = "| aligned minus standard [95 % interval] | chosen rate | another rate |\n|---|---|---|"
    largest = [model for model in models if model in PLANS and _is_largest(model)]
    beyond = (
        f" On {listed(largest)} it is the largest that was tried, so a larger one may do better." if largest else ""
    )
    return (
        "The learning rate was chosen for each model on standard TopK SAEs, and the claims are judged at that rate."
        f"{beyond} "
        f"At another one all SAEs are published of {len(known)} model{'s' * (len(known) > 1)} ({each}):\n\n"
        + "\n".join([head, *rows])
    )


def _is_largest(model: str) -> bool:
    """Whether a model's learning rate is the largest of those among which it was chosen."""
    parts = PLANS[model].parts
    return parts["topk"].specs[0].lr == max(spec.lr for spec in parts["rates"].specs)


def correlations(model: str, metric: str) -> str:
    """What the correlation of standard SAEs' alignment scores with a metric of their features is at the other learning
    rate, a mean over seeds for each kind of SAE; nothing where that is not published.

    Args:
        model: a language model.
        metric: `mcs` (C7) or `f1` (C8), a column of the measure `features`.
    """
    if model not in PLANS:
        return ""
    parts = PLANS[model].parts
    rate, chosen = parts["earlier"].specs[0].lr, parts["features"].specs[0].lr
    try:
        size = dict(parts["features"].measures)["features"]
        table = drawn([replace(spec, lr=rate) for spec in parts["features"].specs], size, "features")
    except NothingPublished:
        return ""
    of = table[table.constraint == "none"]
    each = of.apply(lambda sae: claims.pearson(sae.score, sae[metric], sae.density), axis=1)
    means = ", ".join(f"{r:+.2f} ({kind})" for kind, r in each.groupby(of.activation, sort=False).mean().items())
    return f"At a learning rate of {rate:g} in place of {chosen:g} r is {means}, a mean over {of.seed.nunique()} seeds."
