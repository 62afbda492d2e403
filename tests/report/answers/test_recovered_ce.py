"""Where aligned SAEs recover more and where less, on records whose answer is known."""

from __future__ import annotations

from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.answers.recovered_ce import over_widths
from aligned.report.rules import Finding, Outcome


def test_the_widths_at_which_arms_differ_are_named() -> None:
    less, same = Interval(-0.02, -0.021, -0.019, 3), Interval(0.0, -0.001, 0.001, 3)
    of = {"relu, 512": same, "relu, 2048": less, "topk, 512": same, "topk, 2048": same, "p_anneal, 512": less}
    cases = tuple(Outcome(name, effect, claims.RECOVERED, None, "") for name, effect in of.items())
    assert over_widths(Finding("undecided", outcomes=cases)) == (
        "**At which width?** CE recovered of aligned SAEs beside standard ones: relu less at width 2048 alone, the "
        "same within 0.005 at width 512; topk the same within 0.005 at width 512 and 2048; p_anneal less at width 512."
    )
    assert over_widths(Finding("not testable here")) == ""
