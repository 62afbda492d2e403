"""Where aligned SAEs recover more and where less, on records whose answer is known."""

from __future__ import annotations

import pytest

from aligned.evals.intervals import Interval
from aligned.report import claims, results
from aligned.report.answers.recovered_ce import of_published, over_widths
from aligned.report.rules import Finding, Outcome
from aligned.spec import RunSpec
from tests.report.answers.arms import LESS, MORE, of_arms

ARMS = ("none", "projected")


def test_the_widths_at_which_arms_differ_are_named() -> None:
    less, same = Interval(-0.02, -0.021, -0.019, 3), Interval(0.0, -0.001, 0.001, 3)
    of = {"relu, 512": same, "relu, 2048": less, "topk, 512": same, "topk, 2048": same, "p_anneal, 512": less}
    cases = tuple(Outcome(name, effect, claims.RECOVERED, None, "") for name, effect in of.items())
    assert over_widths(Finding("undecided", outcomes=cases)) == (
        "**At which width?** CE recovered of aligned SAEs beside standard ones: relu less at width 2048 alone, the "
        "same within 0.005 at width 512; topk the same within 0.005 at width 512 and 2048; p_anneal less at width 512."
    )
    assert over_widths(Finding("not testable here")) == ""


@pytest.mark.parametrize(
    ("gains", "alive", "says"),
    [
        (
            MORE,
            (-0.1, -0.11, -0.12),
            ("+0.0110 [", "] in CE recovered (more), -0.1100 [", "] in the share alive (less)"),
        ),
        (LESS, (0.1, 0.11, 0.12), ("-0.0210 [", "] in CE recovered (less), +0.1100 [", "] in the share alive (more)")),
        ((0.0,) * 3, (-0.1, 0.0, 0.1), ("in CE recovered (the same within 0.005), ", "] in the share alive (open)")),
        (
            (0.01, 0.012, -0.4),
            (0.0,) * 3,
            (
                "in CE recovered (open: seed by seed +0.0100, +0.0120, -0.4000; of these, seed 2 ran away), ",
                "in the share alive (the same within 0.01)",
            ),
        ),
    ],
)
def test_published_arms_are_compared_in_numbers_and_words(
    monkeypatch: pytest.MonkeyPatch, gains: tuple[float, ...], alive: tuple[float, ...], says: tuple[str, ...]
) -> None:
    monkeypatch.setattr(results, "drawn", lambda *asked: of_arms(*gains, alive=alive))
    told = of_published([], 1, ARMS)
    for said in says:
        assert said in told


def test_what_cannot_be_said_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "drawn", lambda *asked: of_arms(*LESS[:2]))
    assert of_published([], 1, ARMS).startswith("can't be said yet (the rule asks for at least 3 seeds")
    monkeypatch.undo()
    unpublished = RunSpec(seed=10_000)
    with pytest.raises(ValueError, match=r".") as error:
        results.drawn([unpublished], 1, "recovery")
    assert of_published([unpublished], 1, ARMS) == f"can't be said yet ({error.value})"
