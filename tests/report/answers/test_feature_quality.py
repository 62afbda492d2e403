"""What low scores say of features, on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aligned.report import claims, results
from aligned.report.answers import feature_quality


def of_features(low: int, fire: bool, mcs: float, seeds: int = 3) -> pd.DataFrame:
    """Standard SAEs with some low scores, which fire or not, and a hundred high scores of an MCS of about 0.8."""
    rows = []
    for seed in range(seeds):
        noise = np.random.default_rng(seed)
        high = noise.uniform(0.9, 1.1, 100)
        rows.append(
            {
                "model": "m",
                "activation": "relu",
                "sparsity": 0.1,
                "constraint": "none",
                "seed": seed,
                "other_seed": (seed + 1) % seeds,
            }
            | {"score": [*noise.uniform(0.1, 0.2, low), *high], "density": [0.1 * fire] * low + [0.1] * 100}
            | {"mcs": [*noise.uniform(mcs - 0.01, mcs + 0.01, low), *(0.8 * high)]}
            | {"f1": noise.uniform(0, 1, low + 100).tolist()}
        )
    return pd.DataFrame(rows)


def test_low_scores_of_features_that_are_dead_say_nothing_of_those_that_fire() -> None:
    told = feature_quality.low_scores([of_features(20, fire=False, mcs=0.2)])
    assert (
        "So many of the features of standard SAEs with a score under 1/2 are dead: 100% in relu (λ = 0.1) on m." in told
    )
    assert "In relu (λ = 0.1) on m no feature that fires has a score under 1/2" in told
    assert "left out" not in told


@pytest.mark.parametrize(("low", "mcs", "says"), [(2, 0.1, "found again less"), (2, 1.6, "found again more")])
def test_low_scores_that_fire_are_compared_with_the_others(low: int, mcs: float, says: str) -> None:
    told = feature_quality.low_scores([of_features(low, fire=True, mcs=mcs)])
    assert "are dead: 0% in relu" in told
    assert "Those that fire in relu (λ = 0.1) on m, 2.0% of its features that fire, are" in told
    assert says in told
    assert "not shown to differ in F1" in told


def test_whether_r_rests_on_low_scores_is_said() -> None:
    assert "r changes if those with low scores are left out" in feature_quality.low_scores(
        [of_features(40, fire=True, mcs=1.6)]
    )
    alike = of_features(1, fire=True, mcs=0.12)
    alike["f1"] = alike.mcs
    assert "r hardly changes" in feature_quality.low_scores([alike])


def test_of_too_few_seeds_nothing_is_shown_and_of_no_record_nothing_is_said() -> None:
    assert "not shown to differ in MCS" in feature_quality.low_scores([of_features(2, fire=True, mcs=0.1, seeds=1)])
    assert feature_quality.low_scores([]) == ""
    assert "No feature of these" in feature_quality.low_scores([of_features(0, fire=True, mcs=0.1)])


def test_more_low_scores_than_dead_features_leave_some_alive() -> None:
    rows = pd.DataFrame(
        {"activation": "relu", "model": "m", "constraint": "none", "below_half": [0.8, 0.6], "log_dead": [[0, 0.2]] * 2}
    )
    told = feature_quality.low_that_fire([rows, rows.assign(activation="topk", below_half=0.1)])
    assert "at least 71% in relu on m (70.0% of the scores are under 1/2, 20.0% of the features are dead). So" in told
    assert "topk" not in told
    assert feature_quality.low_that_fire([rows.assign(below_half=0.1)]) == ""


def test_each_seeds_correlation_is_that_of_its_alive_features() -> None:
    records = results.of_parts("embedded", "features", measure="features")
    first = records[(records.constraint == "none") & (records.activation == "relu")].iloc[0]
    r = claims.pearson(first.score, first.mcs, first.density)
    assert f"- relu, MCS: {r:+.2f} (seed {first.seed}), " in feature_quality.correlations(records)


def test_a_correlation_that_ranks_contradict_is_named() -> None:
    records = results.of_parts("embedded", "features", measure="features")
    told = feature_quality.against_ranks(claims.correlates(records, "f1", 0.32))
    assert "another sign than r in relu (+0." in told
    assert feature_quality.against_ranks(claims.correlates(records, "mcs", 0.65)) == ""
