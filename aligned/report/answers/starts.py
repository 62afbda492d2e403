"""What alignment does to ReLU SAEs by their start (`init` of `aligned.spec.RunSpec`): the small one of the paper's
stack, the same with decoder rows of norm 1, and rows of norm 1."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aligned.checks import listed
from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.answers.stability import with_care
from aligned.report.answers.words import became, gone
from aligned.report.published import ARMS
from aligned.report.results import NothingPublished, of_parts

if TYPE_CHECKING:
    import pandas as pd

MEASURE, ALIKE = "CE recovered", "stability over seeds (PW-MCC)"


@dataclass(frozen=True)
class Starts:
    """Of a model's ReLU SAEs, by measure: aligned minus standard from both starts, at the sparsities that both have."""

    model: str
    small: dict[str, Interval]
    unit: dict[str, Interval]
    moved: tuple[Interval, Interval]  # of the standard and the aligned arm: CE recovered, norm 1 minus small
    best: Interval  # CE recovered, aligned minus standard, each arm from the start from which its mean is higher
    standard_alive: float  # the share of alive features of standard SAEs from rows of norm 1
    two_kinds: str  # C1's verdict on SAEs from rows of norm 1
    more: str  # C2's
    # aligned minus standard from the small start with decoder rows of norm 1; empty where that is not published
    unit_decoder: dict[str, Interval] = field(default_factory=dict)
    gone: str = ""  # the share of the difference in CE recovered that is gone then

    @property
    def matters(self) -> bool:
        """Whether the two intervals of CE recovered have nothing in common."""
        small, unit = self.small[MEASURE], self.unit[MEASURE]
        return small.low > unit.high or unit.low > small.high


def starts(model: str) -> Starts | str:
    """What the published records say of both starts; or why they say nothing."""
    try:
        small, unit = of_parts(model, "controls"), of_parts(model, "unit")
        scores = of_parts(model, "unit", measure="scores")
    except NothingPublished:
        return f"Of {model} no SAEs with another start are published yet."
    small = _relu(small[small.sparsity.isin(unit.sparsity)])
    columns = {MEASURE: "ce_recovered", "share of alive features": "alive"}
    try:
        of_small, of_unit = (
            {name: claims.difference(records, column, ARMS) for name, column in columns.items()}
            for records in (small, unit)
        )
        standard, aligned = moved = _apart(small, ARMS[0], unit, ARMS[0]), _apart(small, ARMS[1], unit, ARMS[1])
        best = _apart(unit if standard.mean > 0 else small, ARMS[0], unit if aligned.mean > 0 else small, ARMS[1])
    except ValueError as error:
        if unit.attrs["missing"]:
            return f"Of {model} too few SAEs with another start are published yet."
        return f"On {model} this can't be said: {error}."
    of_decoder: dict[str, Interval] = {}
    share = ""
    with suppress(NothingPublished, ValueError):
        of = _relu(of_parts(model, "first_step"))
        if set(of.sparsity) == set(small.sparsity):
            of_decoder = {name: claims.difference(of, column, ARMS) for name, column in columns.items()}
            share = gone(small, of, columns[MEASURE], ARMS)
            pairs = claims.with_l0(_relu(of_parts(model, "first_step", measure="stability")), of)
            of_decoder[ALIKE] = claims.difference(pairs, "pw_mcc_alive", ARMS)
    alive = float(unit[unit.constraint == "none"].alive.mean())
    two_kinds, more = claims.bimodal(scores).verdict, claims.recovers_more(unit).verdict
    return Starts(model, of_small, of_unit, moved, best, alive, two_kinds, more, of_decoder, share)


def _relu(records: pd.DataFrame) -> pd.DataFrame:
    return records[records.activation == "relu"]


def _apart(first: pd.DataFrame, arm: str, second: pd.DataFrame, other: str) -> Interval:
    """CE recovered of an arm of the second records minus that of an arm of the first ones, at equal L0. For the same
    arm from two starts this is what the second start adds."""
    import pandas as pd

    both = (first[first.constraint == arm], second[second.constraint == other])
    named = pd.concat([of.assign(constraint=name) for name, of in zip(("first", "second"), both)])
    return claims.difference(named, "ce_recovered", ("first", "second"))


def of_the_start(models: Iterable[str]) -> str:
    """Whether what alignment does to ReLU SAEs depends on their start, and which arm the start moves, in Markdown."""
    of = [starts(model) for model in models]
    known, unknown = [o for o in of if isinstance(o, Starts)], [o for o in of if isinstance(o, str)]
    found = {
        "**depends on their start**": [o.model for o in known if o.matters],
        "is not shown to depend on their start": [o.model for o in known if not o.matters],
    }
    said = [f"What alignment does to ReLU SAEs {what} (on {', '.join(on)})." for what, on in found.items() if on]
    if not known:
        return " ".join(unknown)
    alive = listed(f"{o.standard_alive:.1%} on {o.model}" for o in known)
    verdict = "; ".join(f"C1 *{o.two_kinds}* and C2 *{o.more}* on {o.model}" for o in known)
    said.append(
        "The claims are judged on ReLU SAEs with the small start of the paper's stack: rows of norm 0.1 and a random "
        "bias. The last start has rows of norm 1 and no bias. Of the features of standard SAEs from rows of norm 1, "
        f"{alive} are alive on the held-out text; where nearly all are, alignment has none to save. The rules of C1 "
        "(two kinds of scores) and of C2 (more cross-entropy), applied to ReLU SAEs from rows of norm 1, say: "
        f"{verdict}."
    )
    said.append(small_gains(known))
    said += [
        *unknown,
        "The numbers are of the sparsities that were trained from both starts. Where these are two, a straight line "
        "over log L0 stands between them for the curve; the intervals do not include the error of that:",
    ]
    rows = [
        f"| {measure}, {o.model} | {o.small[measure]} | {o.unit_decoder.get(measure, 'not published yet')} | "
        f"{o.unit[measure]} |"
        for o in known
        for measure in o.small
    ]
    head = (
        "| aligned minus standard ReLU SAEs [95 % interval] | small start | the same, decoder rows of norm 1 | "
        "rows of norm 1, no bias |\n|---|---|---|---|"
    )
    first = of_the_first_step(known)
    care = with_care([o.model for o in known])
    paragraphs = (" ".join(filter(None, said)), "\n".join([head, *rows]), _which_arm(known), first, care)
    return "\n\n".join(filter(None, paragraphs))


def beside(models: Iterable[str]) -> str:
    """What a page that shows the small start says of the others, in Markdown; nothing where none is published."""
    known = [o for o in map(starts, models) if isinstance(o, Starts)]
    if not known:
        return ""
    each = ", ".join(
        f"{o.unit[MEASURE]} on {o.model} (each arm from the better of the two starts: {o.best})" for o in known
    )
    start = (
        "The published ReLU SAEs of this page have the start `small`. Where both arms start from rows of norm 1, the "
        f"difference between aligned (`projected`) and standard ones is {each} ({{doc}}`is_it_the_constraint`)."
    )
    return "\n\n".join(filter(None, (start, of_the_first_step(known))))


def alike(models: Iterable[str]) -> str:
    """What a page of PW-MCC says of the small start with decoder rows of norm 1; nothing where none is published."""
    of = {o.model: o.unit_decoder for o in map(starts, models) if isinstance(o, Starts)}
    each = ", ".join(f"{effects[ALIKE]} on {model}" for model, effects in of.items() if ALIKE in effects)
    return each and (
        "The published ReLU SAEs of this page have the start `small`. From this start with decoder rows of norm 1, the "
        f'difference between aligned (`projected`) and standard ones is {each} (the page "Is it the constraint?" says '
        "what these starts are)."
    )


def of_the_first_step(starts: Iterable[Starts | str]) -> str:
    """Whether an aligned encoder that is long at the first step brings the loss of the small start, in Markdown;
    nothing where that is not published."""
    each = [
        f"On {o.model} aligned SAEs then recover {_beside(o.unit_decoder[MEASURE])}, {o.unit_decoder[MEASURE]} in "
        f"place of {o.small[MEASURE]}{_brought(o)}."
        for o in starts
        if isinstance(o, Starts) and o.unit_decoder
    ]
    if not each:
        return ""
    return (
        "**The first step.** With the small start decoder rows are 0.1 long. The score of an aligned SAE is 1, so by "
        "our formula its encoder rows begin 10 long. The first step of training scales decoder rows to norm 1, after "
        "which encoder rows are about 1 long. Only this step differs from that of SAEs whose decoder rows have norm 1 "
        "from the beginning, and the paper's code may do it otherwise. Such SAEs were trained, too, with all else as "
        f"in the small start. {' '.join(each)} This step was left out alone. Other changes may take away the "
        "same part of a loss, so such shares do not add up."
    )


def _brought(of: Starts) -> str:
    """What the first step has to do with a loss, as the end of a sentence."""
    loss, after = of.small[MEASURE], of.unit_decoder[MEASURE]
    if loss.high >= 0:
        return ""
    says = became(after, claims.RECOVERED)
    if says == "open":
        return ": whether a part of the loss is left is open"
    if says != "less":
        return ": without this step the loss is gone"
    if after.low > loss.high:
        return f": without this step {of.gone} of the loss is gone"
    return ": the loss is left"


def small_gains(starts: Iterable[Starts | str]) -> str:
    """Of which models the difference in CE recovered from rows of norm 1 is shown and still small: a sentence each.

    Args:
        starts: from `starts` of some models.
    """
    size = claims.RECOVERED.size
    of = {of.model: of.unit[MEASURE] for of in starts if not isinstance(of, str)}
    return " ".join(
        f"On {model} aligned SAEs from rows of norm 1 recover {became(effect, claims.RECOVERED)}, but the mean "
        f"difference, {effect.mean:+.4f}, is smaller than {size:g}, the smallest of interest."
        for model, effect in of.items()
        if became(effect, claims.RECOVERED) in ("more", "less") and abs(effect.mean) < size
    )


def _which_arm(known: Iterable[Starts]) -> str:
    """Which arm the start moves, and what is left of the difference if each arm has the start that suits it."""
    of: dict[str, list[str]] = {}
    rows = []
    for o in known:
        standard, aligned = o.moved
        more = "aligned" if abs(aligned.mean) > abs(standard.mean) else "standard"
        says = (
            f"the start moves {more} SAEs more, and with each arm from the start that suits it better aligned SAEs "
            f"recover {_beside(o.best)}"
        )
        of.setdefault(says, []).append(o.model)
        rows.append(f"| {o.model} | {standard} | {aligned} | {o.best} |")
    told = " ".join(f"On {listed(on)} {says}." for says, on in of.items())
    head = (
        "| CE recovered of ReLU SAEs [95 % interval] | standard: norm 1 minus small start | aligned: norm 1 minus "
        "small start | aligned minus standard, each from its better start |\n|---|---|---|---|"
    )
    ranges = (
        "Each column is a comparison of its own, over the range of L0 that its two sides reach, so they do not add up."
    )
    return f"{told}\n\n" + "\n".join([head, *rows]) + f"\n\n{ranges}"


def _beside(effect: Interval) -> str:
    """More or less than standard ones, as much, or open."""
    says = became(effect, claims.RECOVERED)
    if says in ("more", "less"):
        return f"{says} than standard ones"
    return "more or less than standard ones: open" if says == "open" else f"as much as standard ones ({says})"
