"""What alignment does at another learning rate than the chosen one, on the models of which both are published."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from aligned.evals.intervals import Interval, interval
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
    choices = " ".join(of_the_choice(model) for model in models if model in PLANS)
    return (
        "The learning rate was chosen for each model on standard TopK SAEs, and the claims are judged at that rate."
        f" {choices} "
        f"At another one all SAEs are published of {len(known)} model{'s' * (len(known) > 1)} ({each}):\n\n"
        + "\n".join([head, *rows])
    )


def of_the_choice(model: str) -> str:
    """Whether the learning rate of a language model's published SAEs is the one, among those that were tried, with
    which its standard TopK SAEs leave the least variance unexplained (FVU): a sentence or two.

    Args:
        model: one of `aligned.report.published.PLANS`.
    """
    parts = PLANS[model].parts
    chosen = parts["topk"].specs[0].lr
    tried = sorted({spec.lr for spec in parts["rates"].specs})
    end = f" It is the {'largest' if chosen == tried[-1] else 'least'} that was tried, so another may do better."
    end = end if chosen in (tried[0], tried[-1]) else ""
    try:
        of = of_parts(model, "rates", where=lambda spec: spec.activation == "topk")
        fvu = of.pivot(index="seed", columns="lr", values="fvu").dropna()
    except NothingPublished:
        return f"On {model} the choice of {chosen:g} can't be checked: the SAEs of the search are not published.{end}"
    if len(fvu) < claims.SEEDS or list(fvu.columns) != tried:
        return f"On {model} the choice of {chosen:g} can't be checked: not all SAEs of the search are published.{end}"
    best = fvu.mean().idxmin()
    if best == chosen:
        return (
            f"On {model} it is {chosen:g}, which leaves the least variance unexplained of those that were tried.{end}"
        )
    more = interval((fvu[chosen] - fvu[best]).to_numpy())
    surely = ": whether it does is open" if more.low <= 0 else ""
    first = ", as the first seed alone has it" if fvu.iloc[0].idxmin() == chosen else ""
    return (
        f"On {model} it is {chosen:g}{first}. Over {len(fvu)} seeds {best:g} leaves less variance "
        f"unexplained (FVU {fvu[best].mean():.4f}, and {fvu[chosen].mean():.4f} at {chosen:g}; difference {more})"
        f"{surely}.{end}"
    )


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
