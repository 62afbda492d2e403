"""Verdicts on records whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aligned.claims import at_equal_l0, recovers_more
from aligned.intervals import interval


def records(gain: float, noise: float = 0.0, seeds: int = 3, shift: float = 1.3) -> pd.DataFrame:
    """CE recovered is a function of log L0, plus `gain` for the aligned arm, which has another L0 at each sparsity."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "constraint": constraint,
            "seed": seed,
            "sparsity": sparsity,
            "l0": l0 * (shift if constraint == "projected" else 1),
            "ce_recovered": 0.7
            + 0.05 * np.log(l0 * (shift if constraint == "projected" else 1))
            + (gain if constraint == "projected" else 0)
            + noise * random.standard_normal(),
        }
        for constraint in ("none", "projected")
        for seed in range(seeds)
        for sparsity, l0 in ((0.3, 10), (0.2, 20), (0.1, 40), (0.05, 80))
    )


def test_a_planted_gain_is_recovered_at_equal_l0() -> None:
    table = at_equal_l0(records(0.01), "ce_recovered", ("none", "projected"))
    assert np.allclose(table.difference, 0.01)
    assert table.l0.min() == pytest.approx(13)
    assert table.l0.max() == pytest.approx(80)


@pytest.mark.parametrize(
    ("gain", "noise", "verdict"),
    [
        (0.01, 1e-4, "holds"),
        (-0.01, 1e-4, "does not hold"),
        (0.0, 1e-3, "does not hold"),
        (0.0001, 0.01, "does not hold"),
    ],
)
def test_verdicts(gain: float, noise: float, verdict: str) -> None:
    assert recovers_more(records(gain, noise)).verdict == verdict


def test_a_gain_at_some_sparsities_alone_holds_in_part() -> None:
    table = records(0.0, 1e-5)
    aligned = table.constraint == "projected"
    table.loc[aligned, "ce_recovered"] += np.where(table[aligned].l0 > 40, 0.02, -0.03)
    assert recovers_more(table).verdict == "holds in part"


def test_too_few_seeds_and_no_overlap_are_not_testable() -> None:
    assert recovers_more(records(0.01, seeds=2)).verdict == "not testable here"
    assert "at least 2" in recovers_more(records(0.01, seeds=1)).reason
    assert "do not overlap" in recovers_more(records(0.01, shift=100)).reason


def test_interval_is_students() -> None:
    i = interval(np.array([1.0, 2.0, 3.0]))
    assert (i.mean, i.low, i.high) == pytest.approx((2, 2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-5)
