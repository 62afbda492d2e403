"""What was found, for the book's first screen: in words, and in numbers.

A case is a kind of SAE, or a width, on one language model; `aligned.report.scorecard` says of each whether what the
claim says is shown there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from aligned.checks import listed
from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.answers.ends import of_l0_and_width
from aligned.report.answers.feature_quality import against_ranks
from aligned.report.answers.low_mode import of_model
from aligned.report.answers.rates import correlations, of_the_rate, rates
from aligned.report.answers.stability import with_care
from aligned.report.answers.starts import Starts, of_the_start, starts
from aligned.report.results import of_parts
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
    "CE recovered, BatchTopK": ("C11", "batchtopk"),
    "CE recovered, p-annealing": ("C11", "p_anneal"),
    "share of alive features, ReLU": ("C4", "relu, more alive"),
    "share of alive features, TopK": ("C4", "topk, more alive"),
    "share of alive features, BatchTopK": ("C4", "batchtopk, more alive"),
    "share of alive features, p-annealing": ("C4", "p_anneal, more alive"),
    "stability over seeds (PW-MCC), ReLU": ("C5", "relu"),
    "stability over seeds (PW-MCC), TopK": ("C5", "topk"),
    "SCR, ReLU": ("C6", "relu"),
    "SCR, TopK": ("C6", "topk"),
}
BRIEF = {  # of each row of NUMBERS, without the kind of SAE: what is of interest; what is said; more, less, as much
    "CE recovered": (claims.RECOVERED, "recover {} cross-entropy", "more", "less", "as much"),
    "share of alive features": (claims.ALIVE, "keep {} features alive", "more", "fewer", "as many"),
    "stability over seeds (PW-MCC)": (claims.STABILITY, "are {} alike between seeds", "more", "less", "equally"),
}

KEY = (
    "SAEs are alike between seeds if the alive features of one are found again with another seed (PW-MCC). Those that "
    "were watched in training had not quite settled at its end, and features of some aligned ones were still nearer to "
    "their own start than to their partners in the other seed, so this is to be read with care: the page "
    '"Stability over seeds" says which. No SAE here was trained for longer, so what more training does to these '
    "differences is not known. BatchTopK SAEs keep the largest codes of a batch, k for each token in the mean; "
    "p-annealing is a penalty that comes closer to counting codes while it trains."
)
PAPER = {  # what the first screen says of the paper's claims
    "C2": "ReLU SAEs recover more cross-entropy at equal L0",
    "C3": "TopK and BatchTopK SAEs do so where k is large",
    "C4": "hardly a feature is dead",
    "C5": "features are more stable over seeds",
}
SETTINGS = {  # of the first screen's table, as `_effects` calls them
    "small": "ReLU, from the small start of the paper's stack",
    "ReLU rate": "ReLU, from the small start, at another learning rate",
    "decoder": "ReLU, from this start with decoder rows of norm 1",
    "unit": "ReLU, from rows of norm 1",
    "ReLU centred": "ReLU, from the small start, where both read activations without their mean",
    "soft": "ReLU, from the small start, with a penalty on (score - 1)² in place of the constraint",
    "TopK": "TopK",
    "TopK centred": "TopK, where both read activations without their mean",
    "TopK rate": "TopK, at another learning rate",
}
LEAD = {  # of BRIEF, those that the first screen has, with their columns in records
    "CE recovered": "ce_recovered",
    "share of alive features": "alive",
}


def in_detail(found: Found) -> str:
    """What stands behind `in_brief`, in Markdown: each measure and setting in words, the numbers, what the start and
    the learning rate do, and how each claim fared.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    parts = (in_list(found), KEY, in_numbers(found), of_the_start(found), of_the_rate(found), in_words(found))
    return "\n\n".join(filter(None, parts))


def in_brief(found: Found) -> str:
    """The first screen, in Markdown: what the paper says and what became of it here; a table of what alignment does to
    the cross-entropy and the alive features of ReLU SAEs and of TopK SAEs; what the numbers rest on; and of which SAEs
    a reader has to be warned.

    A model counts as *as much* if all of the 95 % interval is smaller than the smallest effect of interest; else as
    *more* or *less* if the interval lies above or below 0; else it is open.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    effects = _effects(found)
    rows = []
    for kind, where in SETTINGS.items():
        of = [effects.get(f"{measure}, {kind}") for measure in LEAD]
        cells = [" ".join(_counted(each, *BRIEF[m])[1:]) if each else "–" for each, m in zip(of, LEAD)]
        rows += [f"| {where} | {' | '.join(cells)} |"] if any(of) else []
    head = (
        "| aligned SAEs beside standard ones, at equal L0 | cross-entropy recovered | features alive |\n|---|---|---|"
    )
    table = "\n".join([head, *rows]) if rows else "Aligned SAEs have not been compared with standard ones yet."
    return "\n\n".join(filter(None, (_paper_and_here(found), table, of_l0_and_width(found), with_care(found))))


def _paper_and_here(found: Found) -> str:
    """What the paper says in its first claims, and the verdicts: two sentences."""
    here = []
    for name in PAPER:
        of: dict[str, list[str]] = {}
        for model, findings in found.items():
            outcomes = findings[name].outcomes
            opposite = ", the opposite is shown" if outcomes and all(o.reversed for o in outcomes) else ""
            of.setdefault(f"{findings[name].verdict}{opposite}", []).append(model)
        where = (f"all {len(on)} models" if 1 < len(on) == len(found) else listed(on) for on in of.values())
        here.append(f"{name}: {', '.join(f'{verdict} (on {on})' for verdict, on in zip(of, where))}")
    said = listed(f"{what} ({name})" for name, what in PAPER.items())
    return f"**The paper says** that with alignment {said}. **Here** {'; '.join(here)}."


def in_list(found: Found) -> str:
    """What alignment does to each kind of SAE, by each measure, in each setting that was tried: a list in Markdown.

    Args:
        found: `aligned.report.scorecard.findings`, by model.
    """
    effects = _effects(found)

    def said(kind: str) -> str:
        return f"they {_said(effects, kind) or 'have not been compared yet'}"

    lines = [
        "- **Aligned ReLU SAEs**, compared with standard ones at equal L0, in the range that the starts share:",
        f"  - both from the small start of the paper's stack: {said('small')};",
        f"  - both from this start, but with decoder rows of norm 1: {said('decoder')};",
        f"  - both from rows of norm 1, without a bias: {said('unit')};",
        f"  - each from the better of the first and the last of these starts: {said('best')}.",
        "- **Aligned TopK SAEs**, compared with standard ones at equal L0:",
        f"  - at the learning rate that was chosen: {said('TopK')};",
        f"  - at another one: {said('TopK rate')}.",
        f"- **Aligned BatchTopK SAEs**, likewise: {said('BatchTopK')}.",
        f"- **Aligned SAEs with p-annealing**, from the small start, likewise: {said('p-annealing')}.",
    ]
    return "\n".join(lines)


def _effects(found: Found) -> dict[str, dict[str, Interval]]:
    """Aligned minus standard by measure and kind of SAE or setting, such as `CE recovered, unit`; then by model."""
    effects = {
        row: {model: outcome.effect for model, of in found.items() if (outcome := _outcome(of[name], case))}
        for row, (name, case) in NUMBERS.items()
    }
    unit = [of for of in map(starts, found) if isinstance(of, Starts)]
    other = [of for of in map(rates, found) if of]
    effects["CE recovered, best"] = {of.model: of.best for of in unit}
    of_part = {
        "soft": {model: _of_part(model, "controls", "relu", "soft") for model in found},
        "ReLU centred": {model: _of_part(model, "centred", "relu", "projected") for model in found},
        "TopK centred": {model: _of_part(model, "centred", "topk", "projected") for model in found},
    }
    for measure in BRIEF:
        # at the sparsities that all starts have, if there are other starts
        small = {of.model: of.small[measure] for of in unit if measure in of.small}
        effects[f"{measure}, small"] = effects[f"{measure}, ReLU"] | small
        effects[f"{measure}, unit"] = {of.model: of.unit[measure] for of in unit if measure in of.unit}
        effects[f"{measure}, decoder"] = {of.model: d[measure] for of in unit if measure in (d := of.unit_decoder)}
        for kind, by_model in of_part.items():
            effects[f"{measure}, {kind}"] = {model: of[measure] for model, of in by_model.items() if measure in of}
        for kind in ("ReLU", "TopK"):
            name = f"{measure}, {kind}"
            effects[f"{name} rate"] = {of.model: of.other[name] for of in other if name in of.other}
    return effects


def _of_part(model: str, part: str, activation: str, arm: str) -> dict[str, Interval]:
    """An arm minus the standard one in a part of the plan, by measure; without those that are not published."""
    found = {}
    for name, column in LEAD.items():
        with suppress(ValueError):
            records = of_parts(model, part, where=lambda spec: spec.activation == activation)
            found[name] = claims.difference(records, column, ("none", arm))
    return found


def _said(effects: Mapping[str, Mapping[str, Interval]], kind: str) -> str:
    """What is known of one kind of SAE; nothing if nothing is."""
    counted = [_counted(of, *BRIEF[m]) for m in BRIEF if (of := effects.get(f"{m}, {kind}"))]
    *most, last = [f"{verb} ({on})" for verb, _, on in counted] or [""]
    comma = "," if len(most) > 1 else ""
    return f"{', '.join(most)}{comma} and {last}" if most else last


def _counted(
    effects: Mapping[str, Interval], least: Least, says: str, more: str, less: str, alike: str
) -> tuple[str, str, str]:
    """What most models show, with its verb and in a word; and on how many, how large it is, and what the others do."""
    of: dict[str, list[str]] = {}
    for model, effect in effects.items():
        within = -least.size < effect.low and effect.high < least.size
        way = alike if within else more if effect.low > 0 else less if effect.high < 0 else "open"
        of.setdefault(way, []).append(model)
    lead = max(of, key=lambda way: (way != "open", len(of[way])))
    rest = [f"{way} on {', '.join(on)}" for way, on in of.items() if way != lead]
    verb = f"are not shown to {says.format(f'{more} or {less}')}" if lead == "open" else says.format(lead)
    on = f"on {len(of[lead])} of {len(effects)} models" if len(effects) > 1 else f"on {of[lead][0]}"
    if lead in (more, less):
        sizes = sorted(f"{abs(effects[model].mean):.3f}" for model in of[lead])
        on += f", by {' to '.join(dict.fromkeys((sizes[0], sizes[-1])))}"
    return verb, lead, "; ".join([on, *rest])


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
    for model in found:
        told = of_model(model, ("relu", "p_anneal", "topk", "batchtopk"), claims.LOW_MODE.size)
        lines += [f"- **C1 on {model}:** {told}"] if told else []
    for name, metric in {"C7": "mcs", "C8": "f1"}.items():
        for model, findings in found.items():
            told = " ".join(filter(None, (against_ranks(findings[name]), correlations(model, metric))))
            lines += [f"- **{name} on {model}:** {told}"] if told else []
    models = f"{len(found)} language model{'s' * (len(found) > 1)}"
    return (
        f"**Claim by claim.** Each claim was judged in one case or several: kinds of SAE, or widths, on {models}; for "
        "C10, sizes of an SAE on one machine. ReLU and p-annealing SAEs have the small start. In brackets are numbers "
        "of cases: those in which it is shown; *the opposite*, if that is shown; *excluded*, if an effect that is "
        "large enough to matter is ruled out; and *open*.\n\n" + "\n".join(lines)
    )


def in_numbers(found: Found) -> str:
    """A table in Markdown: aligned minus standard, at equal L0, with 95 % intervals over seeds; a column a model."""
    rows = [
        f"| {title} | {' | '.join(_effect(of[name], case) for of in found.values())} |"
        for title, (name, case) in NUMBERS.items()
    ]
    sizes = ", ".join(f"±{least}" for least, *_ in BRIEF.values())
    key = (
        'In the lines that begin with "Aligned" the words follow from 95 % intervals: *as much* '
        f"where all of an interval lies within {sizes} (the smallest effects of interest); else *more* or *less* "
        "where it lies above or below 0; else *open*. A claim of several cases is judged by wider intervals, so a case "
        "can be open in the list of claims and not here. The intervals are over seeds, and leave out the error of the "
        'held-out text: the page "Recovered cross-entropy" says how large that is.\n'
    )
    head = f"| aligned minus standard [95 % interval] | {' | '.join(found)} |"
    return "\n".join([key, head, f"|---|{'---|' * len(found)}", *rows])


def as_html(markdown: str) -> str:
    """Markdown as HTML, for a notebook's output: there the book reads Markdown without tables."""
    from markdown_it import MarkdownIt

    return MarkdownIt().enable("table").render(markdown)


def _effect(finding: Finding, case: str) -> str:
    outcome = _outcome(finding, case)
    return f"{outcome.effect}" if outcome else "not published yet"


def _outcome(finding: Finding, case: str) -> Outcome | None:
    return next((o for o in finding.outcomes if o.name == case), None)
