"""How alike the dictionaries of two seeds are: with dead features, while they train, and beside random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from aligned.checks import listed
from aligned.report import claims
from aligned.report.answers.words import became
from aligned.report.results import facets

if TYPE_CHECKING:
    import pandas as pd


def over_all(pairs: pd.DataFrame, constraint: str = "projected") -> str:
    """What is left of the difference in PW-MCC where dead features count too: a sentence.

    Args:
        pairs: from `aligned.records(..., measure="stability")`, with L0.
        constraint: of the aligned arm.
    """
    said = []
    for activation, rows in pairs.groupby("activation", sort=False):
        try:
            effect = claims.difference(rows, "pw_mcc_all", ("none", constraint))
        except ValueError as error:
            said.append(f"{activation} can't be said ({error})")
            continue
        said.append(f"{activation} {became(effect, claims.STABILITY)}, {effect}")
    return f"Over all features, dead ones too, the difference in PW-MCC is: {'; '.join(said)}."


def settled(along: pd.DataFrame) -> str:
    """Whether two seeds have stopped coming nearer to each other when training ends, and whether features are still
    nearer to their own start than to the other seed's features.

    Args:
        along: from `aligned.records(..., measure="convergence")`.
    """
    rises, near = {}, []
    of_kind = along.groupby(["activation", "constraint"], sort=False)
    for (activation, arm), rows in of_kind:
        name = f"{claims.label(arm)} {activation}"
        late = next(at for at, step in enumerate(rows.moments.iloc[0]) if 2 * step >= rows.moments.iloc[0][-1])
        ends = [np.mean([values[at] for values in rows.pw_mcc]) for at in (late, -1)]
        rises[name] = float(ends[1] - ends[0])
        if np.mean([values[-1] for values in rows.own_start]) > ends[1]:
            near.append(name)
    still = {name: rise for name, rise in rises.items() if rise >= claims.STABILITY.size}
    each = listed([f"{name} ({rise:+.2f})" for name, rise in still.items()]) if still else ""
    told = (
        f"In the second half of the training PW-MCC still rises for {each}: what is found here is of this budget, and "
        "with more tokens these SAEs may agree more."
        if still
        else f"In the second half of the training PW-MCC rises by less than {claims.STABILITY.size:g}: it has settled."
    )
    if near:
        told += (
            f" At the end a feature of {listed(near)} SAEs is still nearer to its own start than to its partner in the "
            "other dictionary: these SAEs have not converged, and a low PW-MCC may only say so."
        )
    return told


def as_alike_as_random(pairs: Mapping[str, pd.DataFrame]) -> str:
    """Which SAEs are no more alike than two random starts: a sentence.

    Args:
        pairs: by name, from `aligned.records(..., measure="stability")`.
    """
    alike = _at_chance(pairs)
    if not alike:
        return "None of these SAEs is so near to that line."
    return (
        f"So it is with {'; '.join(alike)}: less than {claims.STABILITY.size:g} above the line. Two seeds of these "
        "have no more in common than random dictionaries, whether their features stayed near the start or went apart. "
        "They may not be trained long enough, and a difference from them says little of the constraint."
    )


def with_care(models: Iterable[str]) -> str:
    """The same of the published ReLU and TopK SAEs of some language models, for a page that shows other measures; ""
    where there are none."""
    pairs = facets(("relu", "topk"), "stability", models)
    alike = _at_chance({f"{activation} SAEs on {model}": rows for (activation, model), rows in pairs.items()})
    if not alike:
        return ""
    return (
        f"**With care:** two seeds of the {listed(alike)} have no more in common than random dictionaries (by PW-MCC, "
        "which says how alike the features of two seeds are), so what sets these SAEs apart, by any measure, says "
        "little of the constraint. They are counted here all the same."
    )


def _at_chance(pairs: Mapping[str, pd.DataFrame]) -> list[str]:
    """The arms whose PW-MCC is less than the smallest effect of interest above that of random starts."""
    return [
        f"{claims.label(arm)} {name}"
        for name, rows in pairs.items()
        for arm, of in rows.groupby("constraint", sort=False)
        if of.pw_mcc_alive.mean() - of.pw_mcc_start.mean() < claims.STABILITY.size
    ]
