"""What was found, for the book's first screen: in words, and in numbers.

A case is a kind of SAE, or a width, on one language model; `aligned.report.scorecard` says of each whether what the
claim says is shown there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aligned.report import claims
from aligned.report.published import ARMS
from aligned.report.results import NothingPublished, of_parts
from aligned.report.rules import Finding, Outcome

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
BRIEF = {  # of each row of NUMBERS, without the kind of SAE: what is said if it is more, less, or alike
    "CE recovered": ("recover more cross-entropy", "recover less cross-entropy", "recover as much cross-entropy"),
    "share of alive features": ("keep more features alive", "keep fewer features alive", "keep as many features alive"),
    "stability over seeds (PW-MCC)": (
        "are more alike between seeds",
        "are less alike between seeds",
        "are as much alike between seeds",
    ),
}


def told(found: Found) -> str:
    """All of it, in Markdown.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    return "\n\n".join((in_brief(found), in_numbers(found), of_the_start(found), in_words(found)))


def in_brief(found: Found) -> str:
    """Two sentences, in a list in Markdown: what alignment does to ReLU SAEs and to TopK SAEs.

    A model counts as *more* or *less* if the 95 % interval lies above or below 0, and as *as much* if all of it is
    smaller than the smallest effect of interest. Else it is open.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    lines = []
    for kind in ("ReLU", "TopK"):
        said = [_counted(found, f"{measure}, {kind}", of) for measure, of in BRIEF.items()]
        *most, last = list(filter(None, said)) or ["have not been compared yet"]
        both = f"{', '.join(most)}, and {last}" if most else last
        lines.append(f"- **Aligned {kind} SAEs**, compared with standard ones at equal L0, {both}.")
    return "\n".join(lines)


def _counted(found: Found, row: str, says: tuple[str, str, str]) -> str:
    """What most models show, on how many, and what the others do; nothing, where no model has it."""
    name, case = NUMBERS[row]
    of: dict[str, list[str]] = {}
    for model, findings in found.items():
        if outcome := _outcome(findings[name], case):
            low, high, least = outcome.effect.low, outcome.effect.high, outcome.least.size
            way = says[2] if -least < low and high < least else says[0] if low > 0 else says[1] if high < 0 else "open"
            of.setdefault(way, []).append(model)
    if not of:
        return ""
    total = sum(map(len, of.values()))
    lead = max(of, key=lambda way: (way != "open", len(of[way])))
    rest = [
        f"{'this is open' if way == 'open' else f'they {way}'} on {', '.join(on)}"
        for way, on in of.items()
        if way != lead
    ]
    start = f"are not shown to {says[0]} or less" if lead == "open" else lead
    return f"{start} ({'; '.join([f'on {len(of[lead])} of {total} models', *rest])})"


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
        "**Claim by claim.** The claims were judged in several cases: kinds of SAE, or widths, on "
        f"{models}. The numbers say in how many cases a claim is shown, in how many the opposite is, in how many only "
        "an effect of interest is excluded, and how many the data leave open.\n\n" + "\n".join(lines)
    )


def in_numbers(found: Found) -> str:
    """A table in Markdown: aligned minus standard, at equal L0, with 95 % intervals over seeds; a column a model."""
    rows = [
        f"| {title} | {' | '.join(_effect(of[name], case) for of in found.values())} |"
        for title, (name, case) in NUMBERS.items()
    ]
    key = (
        "The words above follow from this table: *more* or *less* where the interval lies above or below 0, *as much* "
        "where all of it is smaller than the smallest effect of interest, *open* elsewhere.\n"
    )
    head = f"| aligned minus standard [95 % interval] | {' | '.join(found)} |"
    return "\n".join([key, head, f"|---|{'---|' * len(found)}", *rows])


def of_the_start(models: Iterable[str]) -> str:
    """Whether what alignment does to ReLU SAEs depends on the norm of the rows from which they start, in Markdown."""
    depends: list[str] = []
    alike: list[str] = []
    unknown: list[str] = []
    rows: list[str] = []
    for model in models:
        try:
            small, unit = of_parts(model, "controls"), of_parts(model, "unit")
            small = small[small.sparsity.isin(unit.sparsity) & (small.activation == "relu")]
            gains, alive = (
                [claims.difference(records, metric, ARMS) for records in (small, unit)]
                for metric in ("ce_recovered", "alive")
            )
        except NothingPublished:
            unknown.append(f"Of {model} no SAEs with another start are published yet.")
            continue
        except ValueError as error:
            unknown.append(f"On {model} this can't be said yet: {error}.")
            continue
        (depends if gains[0].low > gains[1].high or gains[1].low > gains[0].high else alike).append(model)
        rows += [
            f"| CE recovered, {model} | {gains[0]} | {gains[1]} |",
            f"| alive, {model} | {alive[0]} | {alive[1]} |",
        ]
    found = {"**depends on their start**": depends, "is not shown to depend on their start": alike}
    said = [f"What alignment does to ReLU SAEs {what} (on {', '.join(on)})." for what, on in found.items() if on]
    if rows:
        said.append(
            "The claims are judged on ReLU SAEs with the small start of the paper's stack: encoder rows of norm 0.1. "
            "The numbers below are of the sparsities that were trained from both starts."
        )
        rows = [
            "\n\n| aligned minus standard ReLU SAEs [95 % interval] | small start | rows of norm 1 |\n|---|---|---|",
            *rows,
        ]
    return " ".join([*said, *unknown]) + "\n".join(rows)


def _effect(finding: Finding, case: str) -> str:
    outcome = _outcome(finding, case)
    return f"{outcome.effect}" if outcome else "not published yet"


def _outcome(finding: Finding, case: str) -> Outcome | None:
    return next((o for o in finding.outcomes if o.name == case), None)
