"""Every claim of the paper, its rule applied to the published records."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aligned import claims, cost, results
from aligned.claims import Finding
from aligned.published import ARMS, PARTS, READ, RECOVERY, WINDOWS
from aligned.spec import RunSpec, grid

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Claim:
    """A claim of the paper (arXiv 2605.18629), in our words.

    Attributes:
        statement: what it says.
        page: the notebook that shows it.
        find: from the published records to a finding.
    """

    statement: str
    page: str
    find: Callable[[], Finding]


def _records(*parts: str, measure: str = "recovery", size: int = RECOVERY) -> pd.DataFrame:
    """The published records of some parts. Raises a `ValueError` where some are not there."""
    specs = list(dict.fromkeys(spec for part in parts for spec in PARTS[part].specs))
    return results.drawn(specs, size, measure)


def _of(table: pd.DataFrame, *activations: str) -> pd.DataFrame:
    return table[table.activation.isin(activations)]


def _widths() -> pd.DataFrame:
    """The sparsities that were measured at every width."""
    other = PARTS["narrow"].specs + PARTS["wide"].specs
    kinds = {replace(spec, d_sae=2048) for spec in other}
    specs: list[RunSpec] = [s for part in ("relu", "topk") for s in PARTS[part].specs if s in kinds]
    return results.drawn(specs + other, RECOVERY, "recovery")


def _tied() -> pd.DataFrame:
    """Standard, aligned and tied SAEs at the sparsities of the controls."""
    tied = [spec for spec in PARTS["controls"].specs if spec.constraint == "tied"]
    return results.drawn([s for spec in tied for s in grid(spec, constraint=[*ARMS, "tied"])], READ, "recovery")


CLAIMS = {
    "C1": Claim(
        "Alignment scores of standard SAEs are bimodal, in every architecture.",
        "bimodality",
        lambda: claims.bimodal(_records("relu", "p_anneal", "topk", "batchtopk", measure="scores")),
    ),
    "C2": Claim(
        "Aligned ReLU SAEs recover more cross-entropy at equal L0.",
        "recovered_ce",
        lambda: claims.recovers_more(_records("relu")),
    ),
    "C3": Claim(
        "Aligned TopK and BatchTopK SAEs recover more where k is large.",
        "recovered_ce",
        lambda: claims.recovers_more_where_dense(_records("topk", "batchtopk")),
    ),
    "C4": Claim(
        "Aligned training leaves hardly a dead feature, without resampling or an auxiliary loss.",
        "dead_features",
        lambda: claims.leaves_few_dead(_records("relu", "p_anneal", "topk", "batchtopk")),
    ),
    "C5": Claim(
        "Aligned features are more stable across seeds, for ReLU and TopK.",
        "stability",
        lambda: claims.more_stable(
            claims.with_l0(_records("relu", "topk", measure="stability", size=READ), _records("relu", "topk"))
        ),
    ),
    "C6": Claim(
        "Aligned SAEs score higher on SCR.",
        "scr",
        lambda: claims.separates_better(
            claims.with_l0(_records("scr", measure="scr", size=WINDOWS), _records("relu", "topk"))
        ),
    ),
    "C7": Claim(
        "A feature's MCS correlates with its alignment score (r of about 0.65).",
        "feature_quality",
        lambda: claims.correlates(_records("features", measure="features", size=READ), "mcs", 0.65),
    ),
    "C8": Claim(
        "Auto-interpretability correlates with the alignment score (r of about 0.32).",
        "feature_quality",
        lambda: claims.correlates(_records("features", measure="features", size=READ), "f1", 0.32),
    ),
    "C9": Claim(
        "Tying the weights also removes dead features, but costs reconstruction.",
        "weight_tying",
        lambda: claims.tying_costs(_of(_tied(), "relu")),
    ),
    "C10": Claim(
        "Alignment adds no compute.",
        "cost",
        lambda: claims.no_added_compute(cost.in_turns(cost.record("cost-cpu"), "standard")),
    ),
    "C11": Claim(
        "It works with p-annealing, TopK and BatchTopK, without new hyperparameters.",
        "recovered_ce",
        lambda: claims.needs_no_tuning(_records("p_anneal", "topk", "batchtopk")),
    ),
    "C12": Claim(
        "It holds over dictionary sizes and sparsities.",
        "recovered_ce",
        lambda: claims.holds_everywhere(_widths()),
    ),
}


def setting() -> str:
    """What was trained, in a line."""
    specs = (spec for part in PARTS.values() for spec in part.specs)
    return f"{results.shown(specs)}; measured on {READ:,} to {RECOVERY:,} held-out tokens."


def findings() -> dict[str, Finding]:
    """What became of each claim. One whose records are not all published is not testable, and says so."""
    found = {}
    for name, claim in CLAIMS.items():
        try:
            found[name] = claim.find()
        except (ValueError, FileNotFoundError) as error:
            found[name] = Finding("not testable here", reason=str(error))
    return found


def table(found: dict[str, Finding]) -> str:
    """The scorecard as HTML: each claim with our number, its 95 % interval, the verdict and its page."""
    rows = []
    for name, finding in found.items():
        claim = CLAIMS[name]
        numbers = "<br>".join(f"{part} {effect}".strip() for part, effect in finding.numbers)
        cells = (
            f"<a href='{claim.page}.html'>{name}</a>",
            html.escape(claim.statement),
            f"<strong>{finding.verdict}</strong>",
            numbers or html.escape(finding.reason),
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{title}</th>" for title in ("", "the paper, in our words", "here", "effect [95 % interval]"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
