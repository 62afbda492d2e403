"""What pages conclude, on records whose answer is known: each sentence comes out both ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aligned.evals.intervals import Interval
from aligned.report import answers, claims

ARMS = ("none", "projected")


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
    assert answers.became(Interval((low + high) / 2, low, high, 3), claims.RECOVERED) == says


def of_features(low: int, fire: bool, mcs: float, seeds: int = 3) -> pd.DataFrame:
    """Standard SAEs with some low scores, which fire or not, and a hundred high scores of an MCS of about 0.8."""
    rows = []
    for seed in range(seeds):
        noise = np.random.default_rng(seed)
        high = noise.uniform(0.9, 1.1, 100)
        rows.append(
            {"model": "m", "activation": "relu", "constraint": "none", "seed": seed, "other_seed": (seed + 1) % seeds}
            | {"score": [*noise.uniform(0.1, 0.2, low), *high], "density": [0.1 * fire] * low + [0.1] * 100}
            | {"mcs": [*noise.uniform(mcs - 0.01, mcs + 0.01, low), *(0.8 * high)]}
            | {"f1": noise.uniform(0, 1, low + 100).tolist()}
        )
    return pd.DataFrame(rows)


def test_low_scores_of_features_that_are_dead_say_nothing_of_those_that_fire() -> None:
    told = answers.low_scores([of_features(20, fire=False, mcs=0.2)])
    assert "Most features of standard SAEs with a score under 1/2 are dead (100% in relu on m)." in told
    assert "none in relu on m: there the correlations below can say nothing of low scores" in told
    assert "left out" not in told


@pytest.mark.parametrize(("low", "mcs", "says"), [(2, 0.1, "found again less"), (2, 1.6, "found again more")])
def test_low_scores_that_fire_are_compared_with_the_others(low: int, mcs: float, says: str) -> None:
    told = answers.low_scores([of_features(low, fire=True, mcs=mcs)])
    assert "Not all features" in told
    assert "2.0% in relu on m" in told
    assert says in told
    assert "not shown to differ in F1" in told


def test_whether_r_rests_on_low_scores_is_said() -> None:
    assert "r changes" in answers.low_scores([of_features(40, fire=True, mcs=1.6)])
    alike = of_features(1, fire=True, mcs=0.12)
    alike["f1"] = alike.mcs
    assert "r hardly changes" in answers.low_scores([alike])


def test_of_too_few_seeds_nothing_is_shown_and_of_no_record_nothing_is_said() -> None:
    assert "not shown to differ in MCS" in answers.low_scores([of_features(2, fire=True, mcs=0.1, seeds=1)])
    assert answers.low_scores([]) == ""
