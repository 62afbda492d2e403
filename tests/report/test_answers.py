"""What pages conclude, on records whose answer is known: each sentence comes out both ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aligned.evals.intervals import Interval
from aligned.report import answers, claims, results
from aligned.report.rules import Finding, Outcome
from aligned.report.starts import Starts

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
    told = answers.low_scores([of_features(20, fire=False, mcs=0.2)])
    assert "Of the features of standard SAEs with a score under 1/2 are dead: 100% in relu (λ = 0.1) on m." in told
    assert "In relu (λ = 0.1) on m no feature that fires has a score under 1/2" in told
    assert "left out" not in told


@pytest.mark.parametrize(("low", "mcs", "says"), [(2, 0.1, "found again less"), (2, 1.6, "found again more")])
def test_low_scores_that_fire_are_compared_with_the_others(low: int, mcs: float, says: str) -> None:
    told = answers.low_scores([of_features(low, fire=True, mcs=mcs)])
    assert "are dead: 0% in relu" in told
    assert "Those that fire in relu (λ = 0.1) on m, 2.0% of its features that fire, are" in told
    assert says in told
    assert "not shown to differ in F1" in told


def test_whether_r_rests_on_low_scores_is_said() -> None:
    assert "r changes if those with low scores are left out" in answers.low_scores(
        [of_features(40, fire=True, mcs=1.6)]
    )
    alike = of_features(1, fire=True, mcs=0.12)
    alike["f1"] = alike.mcs
    assert "r hardly changes" in answers.low_scores([alike])


def test_of_too_few_seeds_nothing_is_shown_and_of_no_record_nothing_is_said() -> None:
    assert "not shown to differ in MCS" in answers.low_scores([of_features(2, fire=True, mcs=0.1, seeds=1)])
    assert answers.low_scores([]) == ""
    assert "No feature of these" in answers.low_scores([of_features(0, fire=True, mcs=0.1)])


def test_more_low_scores_than_dead_features_leave_some_alive() -> None:
    rows = pd.DataFrame(
        {"activation": "relu", "model": "m", "constraint": "none", "below_half": [0.8, 0.6], "log_dead": [[0, 0.2]] * 2}
    )
    told = answers.low_that_fire([rows, rows.assign(activation="topk", below_half=0.1)])
    assert "at least 71% in relu on m (70.0% of the scores are under 1/2, 20.0% of the features are dead). So" in told
    assert "topk" not in told
    assert answers.low_that_fire([rows.assign(below_half=0.1)]) == ""


def test_each_seeds_correlation_is_that_of_its_alive_features() -> None:
    records = results.of_parts("embedded", "features", measure="features")
    first = records[(records.constraint == "none") & (records.activation == "relu")].iloc[0]
    r = claims.pearson(first.score, first.mcs, first.density)
    assert f"- relu, MCS: {r:+.2f} (seed {first.seed}), " in answers.correlations(records)


def test_a_correlation_that_ranks_contradict_is_named() -> None:
    records = results.of_parts("embedded", "features", measure="features")
    told = answers.against_ranks(claims.correlates(records, "f1", 0.32))
    assert "another sign than r in relu (+0." in told
    assert answers.against_ranks(claims.correlates(records, "mcs", 0.65)) == ""


def of_arms(
    *gains: float, activation: str = "topk", alive: tuple[float, ...] = (0.0, 0.0, 0.0), arm: str = "projected"
) -> pd.DataFrame:
    """A standard SAE and an aligned one for each seed, at two values of L0; the aligned ones have these gains."""
    rows = [
        {"activation": activation, "constraint": of, "seed": seed, "l0": l0}
        | {"ce_recovered": 0.9 + (gain if of == arm else 0), "alive": 0.5 + (more if of == arm else 0)}
        for seed, (gain, more) in enumerate(zip(gains, alive))
        for of in ("none", arm)
        for l0 in (8.0, 64.0)
    ]
    return pd.DataFrame(rows)


LESS, MORE = (-0.020, -0.021, -0.022), (0.010, 0.011, 0.012)


@pytest.mark.parametrize(
    ("unit", "centred", "says"),
    [
        (MORE, LESS, ("the start decides; the mean hardly matters", "the difference is: more (")),
        (
            LESS,
            (-0.010, -0.011, -0.012),
            ("the start hardly matters; the mean brings a part of it", "the difference is: less ("),
        ),
        (
            (-0.2, 0.0, 0.2),
            (-0.040, -0.041, -0.042),
            ("the start may matter or not; the mean hides a part", "the difference is: open ("),
        ),
        (
            (0.0, 0.0, 0.0),
            (0.0, 0.005, 0.010),
            ("the start decides; the mean matters", "the difference is: the same within 0.005 ("),
        ),
    ],
)
def test_what_decides_a_difference_follows_from_how_it_changes(
    unit: tuple[float, ...], centred: tuple[float, ...], says: tuple[str, str]
) -> None:
    told = answers.of_settings(of_arms(*LESS), {"init unit": of_arms(*unit), "center True": of_arms(*centred)})
    assert "topk, CE recovered: less as above; " in told
    *_, answer, of_alive = told.splitlines()
    assert (
        of_alive == "- topk, the share of alive features: none to explain, it is the same within 0.01, also from "
        "rows of norm 1 and with the mean subtracted."
    )
    for said in says:
        assert said in answer


def test_differences_are_told_in_a_word_and_a_number() -> None:
    told = answers.in_words({"a": of_arms(*LESS), "b": of_arms(*LESS[:2])}, "ce_recovered", ("none", "projected"))
    first, second = told.splitlines()
    assert first.startswith("- a: less, -0.0210 [")
    assert second.startswith("- b: can't be said (")


def test_where_arms_do_not_differ_there_is_nothing_to_explain() -> None:
    same = of_arms(0.0, 0.0001, 0.0002)
    told = answers.of_settings(same, {"center True": same, "d_sae 512": of_arms(*LESS)})
    assert "- topk, CE recovered: none to explain, it is the same within 0.005, also with the mean subtracted." in told
    unclear = answers.of_settings(of_arms(-0.2, 0.0, 0.2), {})
    assert "- topk, CE recovered: whether there is one is open." in unclear
    assert "can't be said (" in answers.of_settings(of_arms(*LESS[:2]), {})


@pytest.mark.parametrize(
    ("effect", "says"),
    [
        (Interval(0.003, 0.001, 0.006, 3), "recover more, but the mean difference, +0.0030, is smaller than 0.005"),
        (Interval(-0.003, -0.006, -0.001, 3), "recover less, but the mean difference, -0.0030"),
        (Interval(0.02, 0.01, 0.03, 3), ""),
        (Interval(0.001, -0.002, 0.004, 3), ""),
        (Interval(0.003, -0.01, 0.02, 3), ""),
    ],
)
def test_a_gain_that_is_shown_and_small_is_called_so(effect: Interval, says: str) -> None:
    both = Starts("m", {}, {"CE recovered": effect}, (effect, effect), effect, 1.0, "undecided", "holds")
    told = answers.small_gains([both, "Of another model nothing is published."])
    assert says in told
    assert bool(told) is bool(says)


def test_a_seed_that_ran_away_is_named() -> None:
    arms = ("none", "projected")
    assert answers.seed_by_seed(of_arms(0.01, 0.012, -0.4), "ce_recovered", arms) == (
        "seed by seed +0.0100, +0.0120, -0.4000; of these, seed 2 ran away"
    )
    assert answers.seed_by_seed(of_arms(0.01, 0.012, 0.02), "ce_recovered", arms).endswith("+0.0200")
    assert answers.seed_by_seed(of_arms(0.01, -0.4), "ce_recovered", arms).endswith("-0.4000")


@pytest.mark.parametrize(
    ("gain", "says"), [(-0.2, "relu less, -0.2000"), (0.2, "relu more, +0.2000"), (0.0, "relu the same within 0.02")]
)
def test_the_difference_over_all_features_is_told(gain: float, says: str) -> None:
    pairs = [
        {"activation": "relu", "constraint": arm, "seed": a, "other_seed": b, "l0": l0}
        | {"pw_mcc_all": 0.5 + (gain if arm == "projected" else 0) + 0.001 * a}
        for arm in ("none", "projected")
        for a, b in ((0, 1), (0, 2), (1, 2))
        for l0 in (8.0, 64.0)
    ]
    assert says in answers.over_all(pd.DataFrame(pairs))
    assert "can't be said (" in answers.over_all(pd.DataFrame(pairs[:6]))


@pytest.mark.parametrize(
    ("end", "own", "rises", "converged"), [(0.5, 0.2, True, True), (0.5, 0.9, True, False), (0.405, 0.2, False, True)]
)
def test_whether_training_was_long_enough_is_said(end: float, own: float, rises: bool, converged: bool) -> None:
    along = pd.DataFrame(
        {"activation": "relu", "constraint": "none", "moments": [[0, 10, 50, 100]] * 3}
        | {"pw_mcc": [[0.2, 0.3, 0.4, end]] * 3, "own_start": [[1.0, 0.99, 0.95, own]] * 3}
    )
    told = answers.settled(along)
    assert ("still rises for standard relu (+0.10)" in told) is rises
    assert ("it has settled" in told) is not rises
    assert ("have not converged" in told) is not converged


def test_saes_that_are_as_alike_as_their_starts_are_named() -> None:
    pairs = pd.DataFrame(
        {"constraint": ["none", "projected"], "pw_mcc_alive": [0.4, 0.15], "pw_mcc_start": [0.14, 0.14]}
    )
    assert "So it is with aligned relu, m: less than 0.02" in answers.as_alike_as_random({"relu, m": pairs})
    assert "None of these SAEs" in answers.as_alike_as_random({"relu, m": pairs[:1]})


def test_the_widths_at_which_arms_differ_are_named() -> None:
    less, same = Interval(-0.02, -0.021, -0.019, 3), Interval(0.0, -0.001, 0.001, 3)
    of = {"relu, 512": same, "relu, 2048": less, "topk, 512": same, "topk, 2048": same, "p_anneal, 512": less}
    cases = tuple(Outcome(name, effect, claims.RECOVERED, None, "") for name, effect in of.items())
    assert answers.over_widths(Finding("undecided", outcomes=cases)) == (
        "**At which width?** CE recovered of aligned SAEs beside standard ones: relu less at width 2048 alone, the "
        "same within 0.005 at width 512; topk the same within 0.005 at width 512 and 2048; p_anneal less at width 512."
    )
    assert answers.over_widths(Finding("not testable here")) == ""
