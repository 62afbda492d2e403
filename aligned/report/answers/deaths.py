"""Where features die, on several language models: what the mean of the activations does to them, and what the start.

A share of dead features is that of the end of training: the features that have not fired for its last fifth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from aligned.checks import listed
from aligned.evals.intervals import Interval, interval
from aligned.report.claims import DEAD
from aligned.report.published import ARMS
from aligned.report.results import NothingPublished, of_parts

if TYPE_CHECKING:
    import pandas as pd

ALIKE = 1.1  # gammas are nearly the same if the largest is less than so many times the least
PARTS = ("", "centred", "unit")  # of the plan, one for each way to train; "" is the activation's own


def at_end(records: pd.DataFrame) -> dict[str, pd.Series]:
    """Of each arm the share of dead features at the end of training, a number for each SAE.

    Args:
        records: with the columns `constraint` and `log_dead` (the measure `scores`).
    """
    return {arm: of.log_dead.map(lambda log: log[-1]) for arm, of in records.groupby("constraint", sort=False)}


def saved(before: pd.DataFrame, after: pd.DataFrame, arm: str) -> Interval | None:
    """The share of an arm's dead features that is alive in another setting, with its interval over seeds; None where a
    seed has no dead feature, or where there are fewer than two seeds.

    Args:
        before, after: records of both settings, with the columns `constraint`, `seed` and `log_dead`.
        arm: a constraint.
    """
    was, is_now = (at_end(of)[arm].groupby(of.seed).mean() for of in (before, after))
    share = (1 - is_now / was).dropna()
    return interval(share.to_numpy()) if len(share) > 1 and was.min() > 0 else None


def table(activations: Iterable[str], like: pd.DataFrame) -> pd.DataFrame:
    """The share of dead features: a row for each activation and model, a mean over SAEs in each column.

    The columns `none` and `projected` are the two arms. A column that ends in ` centred` is of SAEs that read
    activations without their mean; one in ` unit`, of ReLU SAEs that start from rows of norm 1. ` saved` is the share
    of an arm's dead features that is alive without the mean, with its interval over seeds. All of a row is of the
    sparsities that each of its columns has; for TopK, of the one k for which `expected` was computed. What is not
    published is NaN.

    Args:
        activations: kinds of SAE.
        like: what the activations of each model are like (`results/residuals.json`), with the model as index.
    """
    import pandas as pd

    rows = {}
    for activation in activations:
        for model, of in ((model, _published(model, activation, like.k[model])) for model in like.index):
            if "" in of:
                common = set.intersection(*(set(found.sparsity) for found in of.values()))
                of = {how: found[found.sparsity.isin(common)] for how, found in of.items()}
                rows[activation, model] = {
                    "gamma": like.gamma[model],
                    "expected": like.get(f"expected_dead_{activation}", {}).get(model, float("nan")),
                } | {
                    f"{arm} {how}".strip(): end.mean()
                    for how, found in of.items()
                    for arm, end in at_end(found).items()
                }
                if "centred" in of:
                    rows[activation, model] |= {f"{arm} saved": saved(of[""], of["centred"], arm) for arm in ARMS}
    columns = ["gamma", "expected", *(f"{arm} {how}".strip() for how in (*PARTS, "saved") for arm in ARMS)]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)


def _published(model: str, activation: str, k: int) -> Mapping[str, pd.DataFrame]:
    """The records of each way to train, as far as there are any."""
    found = {}
    for part in PARTS:
        with suppress(NothingPublished):
            of = of_parts(model, part or activation, measure="scores")
            of = of[(of.activation == activation) & ((activation != "topk") | (of.sparsity == k))]
            if len(of):
                found[part] = of
    return found


def in_words(dead: pd.DataFrame) -> str:
    """What a `table` says of the mean and of the start, in a list in Markdown."""
    kinds = list(dict.fromkeys(activation for activation, _ in dead.index))
    lines = [_of_the_mean(activation, dead.loc[activation]) for activation in kinds if len(dead.loc[activation]) > 1]
    rows: Mapping[tuple[str, str], pd.Series] = dict(dead.iterrows())  # type: ignore[arg-type]
    lines += [_without_the_mean(*key, of) for key, of in rows.items()]
    lines += [_of_the_start(model, of) for (activation, model), of in rows.items() if activation == "relu"]
    return "\n".join(f"- {line}" for line in lines if line)


def what_is_left(dead: pd.DataFrame) -> str:
    """What a `table` says of the start of ReLU SAEs, in a list in Markdown, and whether anything is left that the
    constraint could save where both arms start from rows of norm 1."""
    rows = {model: of for (activation, model), of in dead.iterrows() if activation == "relu"}  # type: ignore[misc]
    lines = [f"- {_of_the_start(model, of)}" for model, of in rows.items()]
    known = {model: of for model, of in rows.items() if of["none unit"] >= 0 and of["none"] >= DEAD.size}
    said = []
    if saved := [model for model, of in known.items() if of["none unit"] < DEAD.size and of["projected"] < of["none"]]:
        said.append(
            f"So on {listed(saved)} alignment saves the features that the small start kills: from rows of norm 1 it "
            "has none to save."
        )
    if still := {model: of for model, of in known.items() if of["none unit"] >= DEAD.size}:
        each = listed(
            f"on {model} {of['none unit']:.1%} of the standard SAEs' features and {of['projected unit']:.1%} of the "
            "aligned ones'"
            for model, of in still.items()
        )
        said.append(f"Dead from rows of norm 1, too, are {each}: there the start alone does not explain it.")
    return "\n".join(lines) + "\n\n" + " ".join(said)


def _of_the_mean(activation: str, of: pd.DataFrame) -> str:
    """Whether the model with the largest mean is the one with the most dead features."""
    shares = ", ".join(f"{share:.1%} on {model}" for model, share in of.none.items())
    largest, most = of.gamma.idxmax(), of.none.idxmax()
    others = of.gamma.drop(largest).max()
    where = "there, too" if largest == most else f"on {most}"
    tried = of["none centred"][largest] >= 0
    untried = (
        "" if tried else f" Whether the mean is the cause on {largest} is not known: none is published without it."
    )
    if of.gamma.max() < ALIKE * of.gamma.min():
        return (
            f"**The mean, {activation}.** Gamma is nearly the same on all models ({of.gamma.min():.2f} to "
            f"{of.gamma.max():.2f}), so they say nothing of the mean. Standard SAEs have dead features: {shares}."
        )
    return (
        f"**The mean, {activation}.** Gamma is largest on {largest} ({of.gamma[largest]:.2f}; at most {others:.2f} on "
        f"the others). Standard SAEs have the most dead features {where} ({shares}).{untried}"
    )


def _without_the_mean(activation: str, model: str, of: pd.Series) -> str:
    """What is left of the dead features of standard SAEs, and of what alignment does, if the mean is subtracted."""
    before, after = of["none"], of["none centred"]
    if not after >= 0:
        return ""
    if before < DEAD.size:
        said = "hardly a feature is dead with the mean, so nothing can be learned from subtracting it"
    else:
        said = _alive(of, "none")
    arms = "Aligned SAEs without it are not published yet"
    if of["projected centred"] >= 0:
        arms = f"Aligned SAEs have {of['projected']:.1%} with it and {of['projected centred']:.1%} without"
        if of["projected"] >= DEAD.size:
            arms = f"{arms}: {_alive(of, 'projected')}"
    return (
        f"**Without the mean, {activation} on {model}.** Standard SAEs have {before:.1%} dead features with the mean "
        f"and {after:.1%} without it: {said}. {arms}."
    )


def _alive(of: pd.Series, arm: str) -> str:
    """How many of an arm's dead features are alive without the mean."""
    if abs(of[arm] - of[f"{arm} centred"]) < DEAD.size:
        return f"a change of less than {DEAD.size:g}"
    share = of[f"{arm} saved"]
    if not isinstance(share, Interval):
        return "for a share that is saved there are too few seeds with dead features"
    within = f"[{share.low:.0%}, {share.high:.0%}]"
    if share.low <= 0 <= share.high:
        return f"whether subtracting it saves any is open: {share.mean:.0%} {within} of them"
    if share.high < 0:
        return "they do not die of the mean"
    return f"subtracting it saves {share.mean:.0%} {within} of them"


def _of_the_start(model: str, of: pd.Series) -> str:
    """Whether features of standard ReLU SAEs die of the small start."""
    small, unit = of["none"], of["none unit"]
    if not unit >= 0:
        return f"**The start, relu on {model}.** SAEs from rows of norm 1 are not published yet."
    if small < DEAD.size:
        said = "hardly a feature is dead from either" if unit < DEAD.size else "the small start keeps more alive"
    elif unit < DEAD.size:
        said = "they die of the small start"
    elif unit < small / 2:
        said = "most of them die of the small start"
    else:
        said = "the small start alone does not explain it"
    return (
        f"**The start, relu on {model}.** Standard SAEs have {small:.1%} dead features from the small start and "
        f"{unit:.1%} from rows of norm 1: {said}."
    )
