"""From intervals to a verdict: what every rule of `aligned.report.claims` has in common.

A claim speaks of one case or of several (activations, widths). In each case a test looks at the effect's 95 % interval
over seeds. Unless the claim's own rule says otherwise, what the claim says is *shown* where the interval lies above 0
and reaches the smallest effect of interest, *excluded* where it ends below that effect, and *open* where it does
neither. The case goes *the other way round* where the interval lies below 0 and reaches an effect of interest there.
The claim then

- *holds*, if it is shown in every case: no correction is needed, since all must agree;
- *does not hold*, if it is excluded in every case;
- *holds in part*, if it is shown in some case by an interval widened for the number of cases looked at (Bonferroni);
- is *undecided* otherwise;
- is *not testable here* with fewer than three seeds, or where arms that are to be compared do not overlap in L0.

How often these verdicts are wrong, `benchmarks/rules.py` counts on simulated records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from aligned.checks import listed
from aligned.evals.intervals import LEVEL, Interval

Verdict = Literal["holds", "holds in part", "does not hold", "undecided", "not testable here"]


@dataclass(frozen=True)
class Least:
    """The smallest effect of interest: a smaller one would change nobody's choice.

    Attributes:
        size: in the measure's unit.
        of: the measure.
        why: why this size was chosen.
    """

    size: float
    of: str
    why: str

    def __str__(self) -> str:
        return f"{self.size:g} in {self.of}"


class Test(Protocol):
    """What is asked of a case."""

    def shown(self, effect: Interval, least: float) -> bool | None:
        """Whether the interval shows it, True, or excludes it, False; None if it does neither."""

    def reversed(self, effect: Interval, least: float) -> bool:
        """Whether the interval shows the opposite, of a size of interest."""

    def says(self, shown: bool | None, effect: Interval, least: float) -> str:
        """The same in words."""

    def asks(self, least: Least) -> str:
        """When it is shown, and when excluded."""


@dataclass(frozen=True)
class Gain:
    """Is there a gain? Shown, if the interval lies above 0 and reaches the smallest gain of interest; excluded, if it
    ends below that gain."""

    name: str = "gain"
    opposite: str = "loss"

    def shown(self, effect: Interval, least: float) -> bool | None:
        if effect.high < least:
            return False
        return True if effect.low > 0 else None

    def reversed(self, effect: Interval, least: float) -> bool:
        return effect.high < 0 and effect.low <= -least

    def says(self, shown: bool | None, effect: Interval, least: float) -> str:
        if shown is None:
            return f"the data cannot tell whether there is a {self.name}"
        if shown:
            return f"a {self.name} is shown"
        if effect.low > 0:
            return f"a {self.name} is shown, but it is smaller than {least:g}"
        if effect.high < 0:
            size = "" if effect.low <= -least else f", smaller than {least:g}"
            return f"a {self.opposite} is shown{size}"
        return f"a {self.name} of {least:g} or more is excluded"

    def asks(self, least: Least) -> str:
        return (
            f"shown if all of the interval is above 0 and its upper end is {least.size:g} or more in {least.of}, and "
            "excluded if its upper end is less than that"
        )


@dataclass(frozen=True)
class Loss:
    """Is there a loss? A gain's mirror."""

    def shown(self, effect: Interval, least: float) -> bool | None:
        return Gain().shown(-effect, least)

    def reversed(self, effect: Interval, least: float) -> bool:
        return Gain().reversed(-effect, least)

    def says(self, shown: bool | None, effect: Interval, least: float) -> str:
        return Gain("loss", "gain").says(shown, -effect, least)

    def asks(self, least: Least) -> str:
        return (
            f"shown if all of the interval is below 0 and its lower end is a loss of {least.size:g} or more in "
            f"{least.of}, and excluded if its lower end is above that"
        )


@dataclass(frozen=True)
class NoLoss:
    """Is there no loss of interest? Shown, if the interval excludes a loss of the smallest size of interest; excluded,
    if it lies below 0 and holds a loss of that size or more."""

    def shown(self, effect: Interval, least: float) -> bool | None:
        loss = Loss().shown(effect, least)
        return None if loss is None else not loss

    def reversed(self, effect: Interval, least: float) -> bool:
        return False  # no loss has no opposite

    def says(self, shown: bool | None, effect: Interval, least: float) -> str:
        if shown is None:
            return f"the data cannot tell whether there is a loss of {least:g}"
        return f"a loss of {least:g} or more is excluded" if shown else "a loss is shown"

    def asks(self, least: Least) -> str:
        return (
            f"shown if all of the interval is above a loss of {least.size:g} in {least.of}, and excluded if all of it "
            "is below 0 and its lower end is such a loss or a greater one"
        )


@dataclass(frozen=True)
class AtMost:
    """Is it at most this much? Shown, if the interval ends there or below; excluded, if it lies above."""

    name: str

    def shown(self, effect: Interval, least: float) -> bool | None:
        if effect.high <= least:
            return True
        return False if effect.low > least else None

    def reversed(self, effect: Interval, least: float) -> bool:
        return False

    def says(self, shown: bool | None, effect: Interval, least: float) -> str:
        if shown is None:
            return f"the data cannot tell whether {self.name} is above or below {least:g}"
        return f"{self.name} is at most {least:g}" if shown else f"{self.name} is more than {least:g}"

    def asks(self, least: Least) -> str:
        return (
            f"shown if the upper end of the interval is {least.size:g} or less in {least.of}, and excluded if its "
            "lower end is more than that"
        )


@dataclass(frozen=True)
class Case:
    """A case of a claim.

    Attributes:
        name: empty, where the claim has this case alone.
        at: from a level (0.95) to the effect's interval.
        least: the smallest effect of interest.
        test: what is asked.
    """

    name: str
    at: Callable[[float], Interval]
    least: Least
    test: Test = Gain()


@dataclass(frozen=True)
class Outcome:
    """What became of a case: the effect with its 95 % interval, whether what the claim says is shown (None: open), that
    in words, whether the opposite is shown, what the test asks for, and the interval by which it was judged, where that
    is a wider one."""

    name: str
    effect: Interval
    least: Least
    shown: bool | None
    says: str
    reversed: bool = False
    asks: str = ""
    judged: Interval | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.says}, {self.effect}" if self.name else f"{self.says}, {self.effect}"

    @property
    def state(self) -> str:
        """One word: shown, excluded or open."""
        return "open" if self.shown is None else "shown" if self.shown else "excluded"


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        verdict: by the claim's rule.
        effect: the one that the verdict rests on, if there is a single one.
        at_l0: the effect at each value of L0, from the least on; the rule does not look at these.
        outcomes: of every case.
        reason: what stands in the way, where the claim is not testable, and what to do about it; follows "because".
        sample: how many seeds and SAEs there are.
        level: of the intervals by which the cases were judged.
        beside: numbers that the rule does not look at.
        measured: what the effects are.
        over: what the intervals are over.
        claim: what the claim says, in Markdown.
        asked: where, and of which SAEs, its rule was asked.
        so_far: how many SAEs are published, where some are not yet.
        alone: the kinds of SAE of which its rule was asked, where the claim speaks of more.
    """

    verdict: Verdict
    effect: Interval | None = None
    at_l0: tuple[tuple[float, Interval], ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    reason: str = ""
    sample: str = ""
    beside: tuple[tuple[str, Interval], ...] = ()
    level: float = LEVEL
    measured: str = ""
    over: str = "seeds"
    claim: str = ""
    asked: str = ""
    so_far: str = ""
    alone: str = ""

    @property
    def short(self) -> str:
        """The verdict; and where the cases do not agree, one goes the other way round, or some are not published yet or
        not asked of, what became of each."""
        words = {"shown": "shown", "excluded": "excluded", "reversed": "the other way round", "open": "open"}
        there = {words[state]: cases for state, cases in self._cases.items()}
        if len(there) == 1 and words["reversed"] not in there and not (self.so_far or self.alone):
            return self.verdict
        names = {word: ", ".join(case.replace(", ", " ") for case in cases) for word, cases in there.items()}
        each = "; ".join(f"{word}: {of}" if of else word for word, of in names.items())
        return f"{self.verdict} ({each})" if each else self.verdict

    @property
    def told(self) -> str:
        """In Markdown, for a page, in whole sentences: the claim, the verdict and why; a line for each case; what was
        measured, what the rule asks for, and what would decide more."""
        verdict = f"this {'is ' if self.verdict in ('undecided', 'not testable here') else ''}**{self.verdict}**"
        start = f"{self.asked}, {verdict}" if self.asked else f"{verdict[0].upper()}{verdict[1:]}"
        start = f"{self.claim} {start}" if self.claim else start
        so_far = f" {self.so_far[0].upper()}{self.so_far[1:]}." if self.so_far else ""
        if self.reason:
            return f"{start}, because {self.reason}.{so_far}"
        lines = [f"- {outcome}" for outcome in self.outcomes]
        lines += [f"- beside it, not judged: {name}, {effect}" for name, effect in self.beside]
        before = f"{start}. {self._became} Measured, with 95 % intervals over {self.over}: {self.measured}."
        after = [f"From {self.sample}.{so_far}"]
        after += [f"What the claim says is {'; it is '.join(dict.fromkeys(of.asks for of in self.outcomes))}."]
        if self.level != LEVEL:
            after += [f"The cases do not agree, so each is judged by its {_percent(self.level)} interval; the numbers"]
            after += ["show the 95 % one."]
        if "open" in self._cases:
            after += [f"Where the data leave it open, more {self.over} may decide."]
        return "\n".join([before, "", *lines, "", " ".join(after)])

    @property
    def _cases(self) -> dict[str, list[str]]:
        """The names of the cases of which each is true: shown, excluded, reversed, open."""
        of: dict[str, list[str]] = {"shown": [], "excluded": [], "reversed": [], "open": []}
        states = ["reversed" if outcome.reversed else outcome.state for outcome in self.outcomes]
        for outcome, state in zip(self.outcomes, states):
            of[state] += [outcome.name] if outcome.name else []
        return {state: cases for state, cases in of.items() if state in states}

    @property
    def _became(self) -> str:
        """The cases of each kind, in a sentence."""
        words = {
            "shown": "it is shown",
            "excluded": "it is excluded",
            "reversed": "the opposite is shown",
            "open": "the data leave it open",
        }
        cases = {state: [f'"{case}"' if " " in case else case for case in of] for state, of in self._cases.items()}
        said = "; ".join(f"{words[state]} for {listed(of)}" if of else words[state] for state, of in cases.items())
        return f"{said[:1].upper()}{said[1:]}."

    @property
    def parts(self) -> tuple[tuple[str, Interval], ...]:
        """The effect in each case that the claim speaks of."""
        return tuple((outcome.name, outcome.effect) for outcome in self.outcomes if outcome.name)


def decide(
    cases: Sequence[Case],
    sample: str = "",
    effect: Interval | None = None,
    at_l0: tuple[tuple[float, Interval], ...] = (),
    beside: tuple[tuple[str, Interval], ...] = (),
    measured: str = "",
    over: str = "seeds",
) -> Finding:
    """The verdict on a claim with these cases.

    Where the cases do not agree, a case counts as shown or excluded only if its interval, widened for so many cases
    (Bonferroni), says so too.

    Args:
        cases: at least one.
        sample, effect, at_l0, beside, measured, over: of the finding; with one case, its effect is the finding's.
    """
    effects = [case.at(LEVEL) for case in cases]
    shown = [case.test.shown(found, case.least.size) for case, found in zip(cases, effects)]
    level = LEVEL
    if len(set(shown)) > 1:
        level = 1 - (1 - LEVEL) / len(cases)
        wider = [case.test.shown(case.at(level), case.least.size) for case in cases]
        shown = [at_95 if at_95 == at_level else None for at_95, at_level in zip(shown, wider)]
    verdict: Verdict = "holds in part" if True in shown else "undecided"
    if len(set(shown)) == 1 and shown[0] is not None:
        verdict = "holds" if shown[0] else "does not hold"
    outcomes = tuple(
        Outcome(
            case.name,
            found,
            case.least,
            state,
            _says(case, found, state, level),
            state is False and case.test.reversed(case.at(level), case.least.size),
            case.test.asks(case.least),
            None if level == LEVEL else case.at(level),
        )
        for case, found, state in zip(cases, effects, shown)
    )
    if effect is None and len(cases) == 1:
        effect = effects[0]
    return Finding(verdict, effect, at_l0, outcomes, "", sample, beside, level, measured, over)


def _percent(level: float) -> str:
    return f"{100 * level:.3g} %"


def _says(case: Case, effect: Interval, state: bool | None, level: float) -> str:
    """What became of a case, in words that agree with the 95 % interval beside them."""
    at_95 = case.test.shown(effect, case.least.size)
    says = case.test.says(at_95, effect, case.least.size)
    return (
        says
        if at_95 == state
        else f"{says} by the 95 % interval, but not by the {_percent(level)} one, which decides here"
    )
