"""The differences at both ends of the range of L0, on records whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.answers import ends
from aligned.report.answers.ends import at_both_ends, of_l0_and_width, reached
from aligned.report.results import NothingPublished
from aligned.report.rules import Finding, Least, Outcome


def test_both_ends_have_the_difference_that_the_records_have_there() -> None:
    rows = [
        {"constraint": arm, "seed": seed, "l0": l0, "alive": 0.5 + seed / 100 + (gain if arm == "projected" else 0)}
        for arm in ("none", "projected")
        for seed in range(3)
        for l0, gain in ((8.0, 0.1), (64.0, -0.2))
    ]
    both = pd.DataFrame(rows)
    few = both[both.l0 == 8]
    found = at_both_ends({"topk": both, "relu": few}, "alive", ("none", "projected"))
    topk, relu = found.splitlines()
    assert topk.startswith("- topk: +0.1000 [")
    assert " at an L0 of 8.0, -0.2000 [" in topk
    assert topk.endswith("at 64.0")
    assert relu.startswith("- relu: ")
    assert "sparsities" in relu


@pytest.mark.parametrize(
    ("gains", "says"),
    [
        ((-0.01, -0.01, -0.2), "at 4 of 9 values of L0, 29.3 to 64.0 (from the SAEs of sparsity 22 and 64)"),
        ((0.2, 0.0, 0.0), "at 3 of 9 values of L0, 8.0 to 13.5 (from the SAEs of sparsity 8 and 22)"),
        ((0.0, 0.01, 0.0), "smaller than 0.05 at every L0"),
        ((-0.1, -0.1, -0.2), "0.05 or more at every L0"),
    ],
)
def test_where_a_difference_is_of_interest_is_said(gains: tuple[float, ...], says: str) -> None:
    rows = [
        {"constraint": arm, "seed": seed, "sparsity": k, "l0": k, "alive": 0.5 + (gain if arm == "projected" else 0)}
        for arm in ("none", "projected")
        for seed in range(3)
        for k, gain in zip((8.0, 22.0, 64.0), gains)
    ]
    least = Least(0.05, "alive", "for this test")
    assert says in reached({"topk": pd.DataFrame(rows)}, "alive", ("none", "projected"), least)


def test_the_first_screen_says_how_a_difference_depends_on_l0_and_on_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"constraint": arm, "seed": seed, "l0": l0, "d_sae": 64, "ce_recovered": 0.5 + gain * (arm == "projected")}
        for arm in ("none", "projected")
        for seed in range(3)
        for l0, gain in ((8.0, 0.1), (64.0, -0.2))
    ]

    def of_parts(model: str, *parts: str) -> pd.DataFrame:
        if model == "bare":
            raise NothingPublished("no record")
        return pd.DataFrame(rows)

    monkeypatch.setattr(ends, "of_parts", of_parts)
    of_width = [
        Outcome(name, Interval(mean, mean - 0.01, mean + 0.01, 3), claims.RECOVERED, None, "")
        for name, mean in (("relu, 64", -0.05), ("relu, 256", 0.001), ("topk, 256", 0.3))
    ]
    found = {"toy": {"C12": Finding("undecided", outcomes=tuple(of_width))}, "bare": {"C12": Finding("undecided")}}
    said = of_l0_and_width(found)
    assert "it is on toy +0.100 at an L0 of 8 and -0.200 at 64, and at width 256 +0.001 (open). The pages" in said
    assert "bare" not in said
