"""Where there is a low mode, and whether the start brings it, on shares whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from aligned.report import results
from aligned.report.answers import low_mode
from aligned.report.low_mode import low_mode as share


def test_the_share_of_a_sparsity_is_the_mean_over_standard_saes() -> None:
    records = results.of_parts("embedded", "relu", measure="scores")
    shares = low_mode.over_sparsities(records)
    at = shares.index[0]
    of = records[(records.constraint == "none") & (records.sparsity == at)]
    assert shares[at] == pytest.approx(sum(map(share, of.histogram)) / len(of))
    assert set(shares.index) == set(records.sparsity)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({8: 0.3, 16: 0.001}, "at k = 8 (30.0%); not at k = 16"),
        ({8: 0.3, 16: 0.02}, "at k = 8 (30.0%), k = 16 (2.0%)"),
        ({8: 0.001}, "at no sparsity"),
    ],
)
def test_it_is_told_at_which_sparsities_there_is_a_low_mode(shares: dict[int, float], said: str) -> None:
    assert low_mode.where(pd.Series(shares), "k", 0.01) == said


@pytest.mark.parametrize(
    ("small", "unit", "said"),
    [
        (
            {0.1: 0.3, 0.2: 0.4},
            {0.1: 0.0},
            "At λ = 0.1, ReLU SAEs from rows of norm 1 have no low mode: there it comes",
        ),
        ({0.1: 0.3, 0.2: 0.4}, {0.1: 0.2}, "have a low mode, too: the small start alone does not bring it"),
        (
            {0.1: 0.0, 0.2: 0.4},
            {0.1: 0.0},
            "At λ = 0.1, ReLU SAEs have no low mode from either start, so they do not say",
        ),
        ({0.2: 0.4}, {0.1: 0.0}, "No sparsity was trained from both starts"),
    ],
)
def test_the_start_is_judged_at_the_sparsities_that_both_starts_have(
    small: dict[float, float], unit: dict[float, float], said: str
) -> None:
    assert said in low_mode.of_the_start(pd.Series(small), pd.Series(unit), 0.01)


def test_a_language_model_is_told_by_its_published_standard_saes() -> None:
    records = results.of_parts("embedded", "topk", measure="scores")
    told = low_mode.of_model("embedded", ["topk", "jumprelu"], 0.01)
    assert told.endswith(f": topk ({low_mode.where(low_mode.over_sparsities(records), 'k', 0.01)}).")
    assert low_mode.of_model("mine", ["topk"], 0.01) == ""
