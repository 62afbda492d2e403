"""What was found, for the book's first screen: in words, and in numbers.

A case is a kind of SAE, or a width, on one language model; `aligned.report.scorecard` says of each whether what the
claim says is shown there.
"""

from __future__ import annotations

from collections.abc import Mapping

from aligned.language.model import EMBEDDED
from aligned.report import claims
from aligned.report.published import ARMS
from aligned.report.results import of_parts
from aligned.report.rules import Finding

Found = Mapping[str, Mapping[str, Finding]]  # by language model and claim

# What each claim says; the cases of C4 and C9 ask two questions, told apart by how their names end.
SAYS = (
    ("C1", "", "standard SAEs have features of two kinds, with high and with low alignment scores"),
    ("C4", "more alive", "aligned SAEs keep more features alive"),
    ("C4", "few dead", "hardly a feature of an aligned SAE is dead"),
    ("C2", "", "aligned ReLU SAEs recover more cross-entropy"),
    ("C3", "", "aligned TopK and BatchTopK SAEs recover more cross-entropy where k is large"),
    ("C12", "", "aligned SAEs recover more cross-entropy at every width"),
    ("C11", "", "alignment does no harm in SAEs of other kinds than ReLU, with their hyperparameters as they are"),
    ("C5", "", "another seed finds more of the aligned features again"),
    ("C6", "", "aligned SAEs are better at removing spurious correlations"),
    ("C7", "", "features that another seed finds again have higher scores"),
    ("C8", "", "features that detect a concept have higher scores"),
    ("C9", "more alive", "tied weights keep more features of ReLU SAEs alive than standard training"),
    ("C9", "less recovered", "ReLU SAEs with tied weights reconstruct worse than aligned ones"),
    ("C10", "", "alignment takes no time"),
)
NUMBERS = {  # of each row, the claim and the case whose effect is aligned minus standard
    "CE recovered, ReLU": ("C2", ""),
    "CE recovered, TopK": ("C11", "topk"),
    "share of alive features, ReLU": ("C4", "relu, more alive"),
    "share of alive features, TopK": ("C4", "topk, more alive"),
    "stability over seeds (PW-MCC), ReLU": ("C5", "relu"),
    "stability over seeds (PW-MCC), TopK": ("C5", "topk"),
    "SCR, ReLU": ("C6", "relu"),
    "SCR, TopK": ("C6", "topk"),
}


def told(found: Found) -> str:
    """All of it, in Markdown.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    return f"{in_words(found)}\n\n{of_the_start()}\n\n{in_numbers(found)}"


def in_words(found: Found) -> str:
    """In a list in Markdown: what is shown in every case that was tested, what in some, and what in none.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    every, some, none, untested = ([] for _ in range(4))  # type: ignore[var-annotated]
    for name, ending, says in SAYS:
        cases = [o for of in found.values() for o in of[name].outcomes if o.name.endswith(ending)]
        shown, opposite = sum(o.shown is True for o in cases), sum(o.reversed for o in cases)
        excluded, left = sum(o.shown is False for o in cases) - opposite, sum(o.shown is None for o in cases)
        rest = {"the opposite": opposite, "excluded": excluded, "open": left}
        of = ", ".join([f"{shown} of {len(cases)}", *(f"{what} in {n}" for what, n in rest.items() if n)])
        place = untested if not cases else every if shown == len(cases) else some if shown else none
        place.append(f"{says} ({name}{f': {of}' if cases else ''})")
    lists = {"some cases": some, "no case": none, "every case": every}
    lines = [f"- **Shown in {where}:** {'; '.join(said)}." for where, said in lists.items() if said]
    if untested:
        lines.append(f"- **Not tested yet:** {'; '.join(untested)}.")
    models = f"{len(found)} language model{'s' * (len(found) > 1)}"
    return (
        f"The claims were judged in several cases: kinds of SAE, or widths, on {models}. The numbers say in how many "
        "cases a claim is shown, in how many the opposite is, in how many only an effect of interest is excluded, and "
        "how many the data leave open.\n\n" + "\n".join(lines)
    )


def in_numbers(found: Found) -> str:
    """A table in Markdown: aligned minus standard, at equal L0, with 95 % intervals over seeds; a column a model."""
    rows = [
        f"| {title} | {' | '.join(_effect(of[name], case) for of in found.values())} |"
        for title, (name, case) in NUMBERS.items()
    ]
    head = f"| aligned minus standard [95 % interval] | {' | '.join(found)} |"
    return "\n".join([head, f"|---|{'---|' * len(found)}", *rows])


def of_the_start(model: str = EMBEDDED) -> str:
    """Whether what alignment does to ReLU SAEs depends on the norm of the rows from which they start, in Markdown."""
    try:
        small = of_parts(model, "controls")
        unit = of_parts(model, "unit")
        small = small[(small.activation == "relu") & small.sparsity.isin(unit.sparsity)]
        gains, alive = (
            [claims.difference(rows, metric, ARMS) for rows in (small, unit)] for metric in ("ce_recovered", "alive")
        )
    except ValueError as error:
        return f"Whether the start of ReLU SAEs matters can't be said yet: {error}."
    apart = gains[0].low > gains[1].high or gains[1].low > gains[0].high
    return (
        f"What alignment does to ReLU SAEs **{'depends' if apart else 'is not shown to depend'} on their start**. The "
        "claims are judged on ReLU SAEs with the small start of the paper's stack (encoder rows of norm 0.1). On "
        f"{model}, at the sparsities that were trained from both starts, aligned minus standard is {gains[0]} in CE "
        f"recovered and {alive[0]} in the share of alive features with the small start; where both arms start from "
        f"rows of norm 1, it is {gains[1]} and {alive[1]}."
    )


def _effect(finding: Finding, case: str) -> str:
    outcome = next((o for o in finding.outcomes if o.name == case), None)
    return f"{outcome.effect}" if outcome else "not published yet"
