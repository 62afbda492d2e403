"""What was found, for the book's first screen: in words, and in numbers.

A case is a kind of SAE, or a width, on one language model; `aligned.report.scorecard` says of each whether what the
claim says is shown there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.published import ARMS
from aligned.report.results import NothingPublished, of_parts
from aligned.report.rules import Finding, Least, Outcome

Found = Mapping[str, Mapping[str, Finding]]  # by language model and claim

# What each claim says; the cases of C4 and C9 ask two questions, told apart by how their names end.
SAYS = (
    ("C1", "", "standard SAEs have features of two kinds, with high and with low alignment scores"),
    ("C4", "more alive", "aligned SAEs keep more features alive"),
    ("C4", "few dead", f"at most {100 * claims.DEAD.size:g} % of an aligned SAE's features are dead"),
    ("C2", "", "aligned ReLU SAEs, from the small start, recover more cross-entropy"),
    ("C3", "", "aligned TopK and BatchTopK SAEs recover more cross-entropy where k is large"),
    ("C12", "", "aligned SAEs recover more cross-entropy at every width"),
    (
        "C11",
        "",
        f"with p-annealing, TopK and BatchTopK, alignment costs less than {claims.RECOVERED}, with no new settings",
    ),
    ("C5", "", "another seed finds more of the aligned features again"),
    ("C6", "", "aligned SAEs are better at removing spurious correlations"),
    ("C7", "", "features that another seed finds again have higher scores"),
    ("C8", "", "features that detect a concept have higher scores"),
    ("C9", "more alive", "tied weights keep more features of ReLU SAEs alive than standard training"),
    ("C9", "less recovered", "ReLU SAEs with tied weights reconstruct worse than aligned ones"),
    ("C10", "", f"alignment costs at most {claims.COST.size:.0%} of a step's time"),
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
BRIEF = {  # of each row of NUMBERS, without the kind of SAE: what is of interest; what is said; more, less, as much
    "CE recovered": (claims.RECOVERED, "recover {} cross-entropy", "more", "less", "as much"),
    "share of alive features": (claims.ALIVE, "keep {} features alive", "more", "fewer", "as many"),
    "stability over seeds (PW-MCC)": (claims.STABILITY, "are {} alike between seeds", "more", "less", "as much"),
}


def in_detail(found: Found) -> str:
    """What stands behind `in_brief`, in Markdown: the numbers, what the start does, and how each claim fared.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    return "\n\n".join((in_numbers(found), of_the_start(found), in_words(found)))


def in_brief(found: Found) -> str:
    """What alignment does to ReLU SAEs, from the paper's start and from another one, and to TopK SAEs: two sentences,
    in a list in Markdown.

    A model counts as *as much* if all of the 95 % interval is smaller than the smallest effect of interest; else as
    *more* or *less* if the interval lies above or below 0; else it is open.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    effects = {
        row: {model: outcome.effect for model, of in found.items() if (outcome := _outcome(of[name], case))}
        for row, (name, case) in NUMBERS.items()
    }
    unit = [of for of in map(starts, found) if not isinstance(of, str)]
    for measure in BRIEF:
        effects[f"{measure}, unit"] = {of.model: of.unit[measure] for of in unit if measure in of.unit}

    def said(kind: str) -> str:
        """What is known of one kind of SAE."""
        *most, last = [_counted(of, *BRIEF[m]) for m in BRIEF if (of := effects.get(f"{m}, {kind}"))] or [
            "have not been compared yet"
        ]
        return f"{', '.join(most)}, and {last}" if most else last

    return (
        "- **Aligned ReLU SAEs**, compared with standard ones at equal L0: with the small start of the paper's stack "
        f"they {said('ReLU')}; from rows of norm 1 they {said('unit')}.\n"
        f"- **Aligned TopK SAEs** {said('TopK')}."
    )


def _counted(effects: Mapping[str, Interval], least: Least, says: str, more: str, less: str, alike: str) -> str:
    """What most models show, on how many, and what the others do."""
    of: dict[str, list[str]] = {}
    for model, effect in effects.items():
        within = -least.size < effect.low and effect.high < least.size
        way = alike if within else more if effect.low > 0 else less if effect.high < 0 else "open"
        of.setdefault(way, []).append(model)
    lead = max(of, key=lambda way: (way != "open", len(of[way])))
    rest = [f"{way} on {', '.join(on)}" for way, on in of.items() if way != lead]
    start = f"are not shown to {says.format(f'{more} or {less}')}" if lead == "open" else says.format(lead)
    return f"{start} ({'; '.join([f'on {len(of[lead])} of {len(effects)} models', *rest])})"


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
        f"**Claim by claim.** Each claim was judged in one case or several: kinds of SAE, or widths, on {models}; for "
        "C10, sizes of an SAE on one machine. In brackets are numbers of cases: those in which it is shown; *the "
        "opposite*, if that is shown; *excluded*, if an effect that is large enough to matter is ruled out; and "
        "*open*.\n\n" + "\n".join(lines)
    )


def in_numbers(found: Found) -> str:
    """A table in Markdown: aligned minus standard, at equal L0, with 95 % intervals over seeds; a column a model."""
    rows = [
        f"| {title} | {' | '.join(_effect(of[name], case) for of in found.values())} |"
        for title, (name, case) in NUMBERS.items()
    ]
    sizes = ", ".join(f"±{least}" for least, *_ in BRIEF.values())
    key = (
        'In the two sentences that begin with "Aligned", the words follow from 95 % intervals: *as much* where all of '
        f"an interval lies within {sizes} (the smallest effects of interest); else *more* or *less* where it lies "
        "above or below 0; else *open*. A claim of several cases is judged by wider intervals, so a case can be open "
        "in the list of claims and not in the sentences.\n"
    )
    head = f"| aligned minus standard [95 % interval] | {' | '.join(found)} |"
    return "\n".join([key, head, f"|---|{'---|' * len(found)}", *rows])


@dataclass(frozen=True)
class Starts:
    """Aligned minus standard ReLU SAEs of a model, by measure, from both starts, at the sparsities that both have."""

    model: str
    small: dict[str, Interval]
    unit: dict[str, Interval]
    standard_alive: float  # the share of alive features of standard SAEs from rows of norm 1
    two_kinds: str  # C1's verdict on SAEs from rows of norm 1
    more: str  # C2's

    @property
    def matters(self) -> bool:
        """Whether the two intervals of CE recovered have nothing in common."""
        small, unit = self.small["CE recovered"], self.unit["CE recovered"]
        return small.low > unit.high or unit.low > small.high


def starts(model: str) -> Starts | str:
    """What the published records say of both starts; or why they say nothing."""
    try:
        small, unit = of_parts(model, "controls"), of_parts(model, "unit")
        scores = of_parts(model, "unit", measure="scores")
    except NothingPublished:
        return f"Of {model} no SAEs with another start are published yet."
    small = small[small.sparsity.isin(unit.sparsity) & (small.activation == "relu")]
    columns = {"CE recovered": "ce_recovered", "share of alive features": "alive"}
    try:
        of_small, of_unit = (
            {name: claims.difference(records, column, ARMS) for name, column in columns.items()}
            for records in (small, unit)
        )
    except ValueError as error:
        if unit.attrs["missing"]:
            return f"Of {model} too few SAEs with another start are published yet."
        return f"On {model} this can't be said: {error}."
    alive = float(unit[unit.constraint == "none"].alive.mean())
    two_kinds, more = claims.bimodal(scores).verdict, claims.recovers_more(unit).verdict
    return Starts(model, of_small, of_unit, alive, two_kinds, more)


def of_the_start(models: Iterable[str]) -> str:
    """Whether what alignment does to ReLU SAEs depends on the norm of the rows from which they start, in Markdown."""
    of = [starts(model) for model in models]
    known, unknown = [o for o in of if isinstance(o, Starts)], [o for o in of if isinstance(o, str)]
    found = {
        "**depends on their start**": [o.model for o in known if o.matters],
        "is not shown to depend on their start": [o.model for o in known if not o.matters],
    }
    said = [f"What alignment does to ReLU SAEs {what} (on {', '.join(on)})." for what, on in found.items() if on]
    if not known:
        return " ".join(unknown)
    alive = ", ".join(f"{o.standard_alive:.1%} are alive on {o.model}" for o in known)
    verdict = "; ".join(f"C1 *{o.two_kinds}* and C2 *{o.more}* on {o.model}" for o in known)
    said.append(
        "The claims are judged on ReLU SAEs with the small start of the paper's stack: a standard SAE's encoder rows "
        "have norm 0.1, so its scores begin near 0, and those of an aligned one are 1 from the first step on. Of "
        f"the features of standard SAEs that start from rows of norm 1, {alive}: what is alive can't be revived. The "
        "rules of C1 (two kinds of scores) and of C2 (more cross-entropy), applied to ReLU SAEs from rows of norm 1, "
        f"say: {verdict}."
    )
    said += [*unknown, "The numbers are of the sparsities that were trained from both starts:"]
    rows = [f"| {measure}, {o.model} | {o.small[measure]} | {o.unit[measure]} |" for o in known for measure in o.small]
    head = "| aligned minus standard ReLU SAEs [95 % interval] | small start | rows of norm 1 |\n|---|---|---|"
    return f"{' '.join(said)}\n\n" + "\n".join([head, *rows])


def as_html(markdown: str) -> str:
    """Markdown as HTML, for a notebook's output: there the book reads Markdown without tables."""
    from markdown_it import MarkdownIt

    return MarkdownIt().enable("table").render(markdown)


def _effect(finding: Finding, case: str) -> str:
    outcome = _outcome(finding, case)
    return f"{outcome.effect}" if outcome else "not published yet"


def _outcome(finding: Finding, case: str) -> Outcome | None:
    return next((o for o in finding.outcomes if o.name == case), None)
