"""What a difference is called, on intervals and records whose answer is known."""

from __future__ import annotations

import pytest

from aligned.evals.intervals import Interval
from aligned.report import claims
from aligned.report.answers.words import became, in_words, seed_by_seed
from tests.report.answers.arms import LESS, of_arms


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-0.004, 0.004, "the same within 0.005"),
        (0.001, 0.02, "more"),
        (-0.02, -0.001, "less"),
        (-0.02, 0.02, "open"),
    ],
)
def test_a_difference_is_told_in_a_word(low: float, high: float, says: str) -> None:
    assert became(Interval((low + high) / 2, low, high, 3), claims.RECOVERED) == says


def test_differences_are_told_in_a_word_and_a_number() -> None:
    told = in_words({"a": of_arms(*LESS), "b": of_arms(*LESS[:2])}, "ce_recovered", ("none", "projected"))
    first, second = told.splitlines()
    assert first.startswith("- a: less, -0.0210 [")
    assert second.startswith("- b: can't be said (")


def test_a_seed_that_ran_away_is_named() -> None:
    arms = ("none", "projected")
    assert seed_by_seed(of_arms(0.01, 0.012, -0.4), "ce_recovered", arms) == (
        "seed by seed +0.0100, +0.0120, -0.4000; of these, seed 2 ran away"
    )
    assert seed_by_seed(of_arms(0.01, 0.012, 0.02), "ce_recovered", arms).endswith("+0.0200")
    assert seed_by_seed(of_arms(0.01, -0.4), "ce_recovered", arms).endswith("-0.4000")
