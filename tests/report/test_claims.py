"""Verdicts on records whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from aligned.evals.intervals import Interval, interval, interval_of_pairs, interval_of_shares
from aligned.report.claims import (
    NO_RECORD,
    at_equal_l0,
    bimodal,
    by_l0,
    correlates,
    difference,
    effects,
    holds_everywhere,
    leaves_few_dead,
    more_stable,
    needs_no_tuning,
    no_added_compute,
    partial,
    pearson,
    recovers_more,
    recovers_more_where_dense,
    separates_better,
    tying_costs,
    with_l0,
)
from aligned.report.low_mode import low_mode
from aligned.report.rules import AtMost, Case, Finding, Gain, Least, Loss, NoLoss, decide
from aligned.training.loop import SCORES


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


def test_what_only_some_curves_cover_is_not_compared() -> None:
    table = records(0.01)
    one = (table.seed == 0) & (table.constraint == "none") & (table.l0 == 80)
    table.loc[one, "l0"] = 100  # this seed goes further than the others of its arm
    found = at_equal_l0(table, "ce_recovered", ("none", "projected"))
    assert found.l0.max() == pytest.approx(80)
    steps = np.diff(np.log(found[found.seed == 0].l0))
    assert np.allclose(steps, np.log(80 / 13) / 8)  # even in log L0
    with pytest.raises(ValueError, match=r"SAEs of seed 1 have one value of L0, and .* needs at least 2 sparsities"):
        at_equal_l0(table[(table.seed != 1) | (table.sparsity == 0.3)], "ce_recovered", ("none", "projected"))


def spread(of_pairs: bool = False) -> pd.DataFrame:
    """Seeds whose gains are 0.01, 0.02 and 0.03; or the pairs of these seeds, each with the mean of its two."""
    table = records(0.01)
    table["ce_recovered"] += np.where(table.constraint == "projected", 0.01 * table.seed, 0)
    if not of_pairs:
        return table
    pairs = []
    for _, rows in table.groupby(["constraint", "sparsity"]):
        for i, j in combinations(range(3), 2):
            value = rows[rows.seed.isin([i, j])].ce_recovered.mean()
            pairs.append({**rows.iloc[0], "seed": i, "other_seed": j, "ce_recovered": value})
    return pd.DataFrame(pairs)


HALF = 4.30265 * 0.01 / 3**0.5  # of Student's interval of those three gains


@pytest.mark.parametrize("of_pairs", [False, True])
def test_an_interval_is_over_seeds_at_each_l0_and_over_all(of_pairs: bool) -> None:
    """Of pairs, whose values lie closer together, the interval is none the narrower."""
    table = spread(of_pairs)
    at_each = by_l0(at_equal_l0(table, "ce_recovered", ("none", "projected")))
    assert [l0 for l0, _ in at_each] == pytest.approx(np.geomspace(13, 80, 9))
    overall = difference(table, "ce_recovered", ("none", "projected"))
    for found in (overall, *(i for _, i in at_each)):
        assert (found.mean, found.low, found.high) == pytest.approx((0.02, 0.02 - HALF, 0.02 + HALF), rel=1e-4)


def test_effects_of_several_arms_are_differences_from_one_or_why_there_is_none() -> None:
    table = records(0.01).assign(activation="relu", alive=0.5)
    tied = table[table.constraint == "projected"].assign(constraint="tied", alive=0.75)
    apart = tied.assign(constraint="soft", l0=tied.l0 * 1000)
    found = effects(pd.concat([table, tied, apart]), ["projected", "tied", "soft", "rescaled"])
    assert list(found.index) == [("relu", arm) for arm in ("projected", "tied", "soft", "rescaled")]
    assert found.ce_recovered["relu", "projected"].mean == pytest.approx(0.01)
    assert found.alive["relu", "projected"].mean == pytest.approx(0)
    assert found.alive["relu", "tied"].mean == pytest.approx(0.25)
    assert "so there is none at which to compare them" in found.alive["relu", "soft"]
    assert found.alive["relu", "rescaled"] == NO_RECORD


@pytest.mark.parametrize(
    ("gain", "noise", "verdict"),
    [
        (0.01, 1e-4, "holds"),
        (-0.01, 1e-4, "does not hold"),
        (0.0, 1e-3, "does not hold"),
        (0.002, 1e-4, "does not hold"),  # a gain, but a smaller one than 0.005
        (0.0001, 0.01, "undecided"),
        (0.01, 0.05, "undecided"),
    ],
)
def test_verdicts(gain: float, noise: float, verdict: str) -> None:
    assert recovers_more(records(gain, noise)).verdict == verdict


def test_a_gain_at_some_sparsities_alone_is_shown_and_decides_nothing() -> None:
    table = records(0.0, 1e-5)
    aligned = table.constraint == "projected"
    table.loc[aligned, "ce_recovered"] += np.where(table[aligned].l0 > 40, 0.02, -0.03)
    found = recovers_more(table)
    assert found.verdict == "does not hold"
    assert found.at_l0[0][1].high < 0 < found.at_l0[-1][1].low


def pairs_of(*seeds: tuple[int, int]) -> pd.DataFrame:
    """Records of these pairs alone, for C5."""
    table = spread(of_pairs=True).assign(activation="topk", d_sae=64, init="unit")
    table["pw_mcc_alive"] = table.ce_recovered
    return table[[pair in seeds for pair in zip(table.seed, table.other_seed)]]


def apart(**l0: float) -> pd.DataFrame:
    """Two arms with these L0 and twice as much."""
    table = records(0.01)
    kept = table.sparsity.isin([0.3, 0.2])
    return table.assign(l0=table.constraint.map(l0) * table.sparsity.map({0.3: 1.0, 0.2: 2.0}))[kept]


def of_seed(table: pd.DataFrame, constraint: str, seed: int, **columns: float) -> pd.DataFrame:
    """The records with other values for this SAE at each sparsity."""
    return table.assign(**{
        name: table[name].where((table.constraint != constraint) | (table.seed != seed), value)
        for name, value in columns.items()
    })  # fmt: skip


NOT_TESTABLE: dict[str, tuple[Callable[[], Finding], str]] = {
    "one seed": (
        lambda: recovers_more(records(0.01, seeds=1)),
        "the rule asks for at least 3 seeds with all that it compares, and there is 1 (0): add seeds",
    ),
    "two seeds, in one of two activations": (
        lambda: needs_no_tuning(pd.concat([records(0.01).assign(activation="topk"),
                                           records(0.01, seeds=2).assign(activation="p_anneal")])),
        "for p_anneal, the rule asks for at least 3 seeds with all that it compares, and there are 2 (0 and 1)",
    ),
    "two seeds of scores": (
        lambda: bimodal(scores(relu=0.3)[:2]), "for relu, the rule asks for at least 3 seeds",
    ),
    "the pairs of two seeds": (
        lambda: more_stable(pairs_of((0, 1))), "for topk, the rule asks for at least 3 seeds",
    ),
    "pairs that share a seed": (
        lambda: more_stable(pairs_of((0, 1), (0, 2))),
        "seed 0 is in every pair: add pairs without it, such as 1 and 2",
    ),
    "seeds that have one arm each": (
        lambda: recovers_more(records(0.01).query("(constraint == 'none') == (seed == 0)")),
        "no seed has both arms; there are standard ones of seed 0 and aligned ones of seed 1 and seed 2: train both",
    ),
    "one arm": (
        lambda: recovers_more(records(0.01).query("constraint == 'none'")),
        "there is no aligned SAE: both arms are needed, with the same seeds",
    ),
    "another arm": (
        lambda: recovers_more(records(0.01), "rescaled"), "there is no aligned (rescaled) SAE"
    ),
    "neither arm": (
        lambda: recovers_more(records(0.01).assign(constraint="tied")), "there is no standard and no aligned SAE"
    ),
    "L0 apart, by lambda": (
        lambda: recovers_more(apart(none=12, projected=55).assign(activation="relu")),
        "standard SAEs have an L0 of 12.0 to 24.0 and aligned ones of 55.0 to 110.0, so there is none at which to "
        "compare them: train standard SAEs with a smaller lambda, or aligned ones with a larger lambda",
    ),
    "L0 apart the other way, by k": (
        lambda: recovers_more_where_dense(apart(none=55, projected=12).assign(activation="topk")),
        "for topk, aligned SAEs have an L0 of 12.0 to 24.0 and standard ones of 55.0 to 110.0, so there is none at "
        "which to compare them: train aligned SAEs with a larger k, or standard ones with a smaller k",
    ),
    "L0 apart, of SAEs of whatever kind": (
        lambda: recovers_more(apart(none=12, projected=55)),
        "standard SAEs with a smaller lambda or a larger k, or aligned ones with a larger lambda or a smaller k",
    ),
    "seeds of an arm apart": (
        lambda: recovers_more(of_seed(apart(none=10, projected=10), "none", 1, l0=30.0).assign(
            l0=lambda t: t.l0 + 10 * (t.sparsity == 0.2) * (t.l0 == 30.0))),
        "the seeds of the standard SAEs do not overlap in L0 (seed 0: 10.0 to 20.0; seed 1: 30.0 to 40.0; seed 2: "
        "10.0 to 20.0): give each seed the same sparsities, and more of them",
    ),
    "one sparsity": (
        lambda: recovers_more(records(0.01).query("sparsity == 0.1")),
        "the standard SAEs of seed 0 have one value of L0, and comparing at equal L0 needs at least 2 sparsities",
    ),
    "an L0 of 0": (
        lambda: recovers_more(of_seed(records(0.01), "none", 1, l0=0.0).assign(activation="relu")),
        "4 of 24 SAEs have an L0 of 0, which no curve in log L0 has: leave them out, or make them less sparse "
        "(a smaller lambda)",
    ),
    "a value that is not finite": (
        lambda: recovers_more(of_seed(records(0.01), "none", 1, ce_recovered=np.nan)),
        "4 of 24 values of ce_recovered are no finite numbers: leave these rows out",
    ),
    "two activations as one": (
        lambda: recovers_more(cases("activation", relu=0.1, topk=0.1)),
        "SAEs of relu and topk have no curve in common: give those of one activation",
    ),
    "one width": (
        lambda: holds_everywhere(records(0.01).assign(activation="relu", d_sae=512)),
        "there is one width alone, 512, and the claim compares widths: add SAEs of another",
    ),
    "none dead without alignment": (
        lambda: leaves_few_dead(records(0.01).assign(activation="relu", alive=0.999)),
        "the standard SAEs too have hardly a dead feature (1 % or less), so nothing is there to be improved: look",
    ),
    "no scores of standard SAEs": (
        lambda: bimodal(scores(relu=0.3).assign(constraint="projected")),
        "there is no SAE of the kind that the rule asks about: train some",
    ),
    "small shapes alone": (
        lambda: no_added_compute(costs()), "none of the shapes M, L and XL was measured: `aligned bench speed`"
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", NOT_TESTABLE)
def test_where_a_claim_is_not_testable_a_sentence_says_why_and_what_to_do(state: str) -> None:
    find, reason = NOT_TESTABLE[state]
    found = find()
    assert found.verdict == UNTESTABLE
    assert reason in found.reason
    assert found.told == f"This is **not testable here**, because {found.reason}."


LOSE, WIN, NEITHER, UNSURE = (-0.02, 1e-4), (0.02, 1e-4), (0.0, 1e-4), (0.0, 0.05)


def of_kinds(**gains: tuple[float, float]) -> pd.DataFrame:
    return pd.concat([records(*of).assign(activation=kind) for kind, of in gains.items()])


TOLD: dict[str, tuple[Callable[[], Finding], list[str]]] = {
    "holds": (
        lambda: recovers_more(records(*WIN)),
        ["This **holds**. It is shown. Measured, with 95 % intervals over seeds: CE recovered, aligned minus standard "
         "at equal L0.", "- a gain is shown, +0.0", "From 3 seeds, 24 SAEs.",
         "shown if all of the interval is above 0 and its upper end is 0.005 or more in CE recovered, and excluded if"],
    ),
    "does not hold": (
        lambda: recovers_more(records(*NEITHER)),
        ["This **does not hold**. It is excluded.", "- a gain of 0.005 or more is excluded, "],
    ),
    "a gain that is too small": (
        lambda: recovers_more(records(0.002)), ["- a gain is shown, but it is smaller than 0.005, +0.0020"]
    ),
    "a loss that is too small to matter": (
        lambda: recovers_more(records(-0.002)), ["It is excluded.", "- a loss is shown, smaller than 0.005, -0.0020"]
    ),
    "the other way round": (
        lambda: recovers_more(records(*LOSE)),
        ["This **does not hold**. The opposite is shown.", "- a loss is shown, -"],
    ),
    "undecided": (
        lambda: recovers_more(records(*UNSURE)),
        ["This is **undecided**. The data leave it open.", "- the data cannot tell whether there is a gain, ",
         "Where the data leave it open, more seeds may decide."],
    ),
    "in part": (
        lambda: recovers_more_where_dense(of_kinds(topk=WIN, batchtopk=LOSE)),
        ["This **holds in part**. It is shown for topk; the opposite is shown for batchtopk.",
         "CE recovered in the upper half of the L0 that both arms cover, aligned minus standard", "- batchtopk: a loss",
         "The cases do not agree, so each is judged by its 97.5 % interval; the numbers show the 95 % one."],
    ),
    "another constraint": (
        lambda: recovers_more(records(*WIN).replace("projected", "rescaled"), "rescaled"),
        ["CE recovered, aligned (rescaled) minus standard at equal L0"],
    ),
    "no harm": (
        lambda: needs_no_tuning(of_kinds(topk=NEITHER, p_anneal=LOSE)),
        ["It is shown for topk; it is excluded for p_anneal.", "- topk: a loss of 0.005 or more is excluded, ",
         "- p_anneal: a loss is shown, -",
         "shown if all of the interval is above a loss of 0.005 in CE recovered, and excluded if all of it is below 0"],
    ),
    "dead features": (
        lambda: leaves_few_dead(records(0.0).assign(
            activation="relu", alive=lambda t: np.where(t.constraint == "none", 0.7, 0.9) + 1e-4 * t.seed)),
        ['It is shown for "relu, more alive"; it is excluded for "relu, few dead".',
         "for *few dead*, the share of the aligned SAEs' features that never fired",
         "- relu, few dead: the share of dead features is more than 0.01, +0.0999",
         "shown if the upper end of the interval is 0.01 or less in the share of dead features, and excluded if its"],
    ),
    "modes": (
        lambda: bimodal(scores(relu=0.3)),
        ["the share of a standard SAE's features in a low mode, averaged over sparsities",
         "- relu: a low mode is shown",
         "- beside it, not judged: relu, share of SAEs with more than one peak by the dip test, +0.0000"],
    ),
    "cost": (
        lambda: no_added_compute(costs((0.01, 0.0, 0.02), (0.02, 0.0, 0.04))),
        ["with 95 % intervals over pairs of steps: how much longer an aligned step takes",
         "the data cannot tell whether the cost is above or below 0.03", "more pairs of steps may decide"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", TOLD)
def test_a_verdict_is_told_in_whole_sentences(state: str) -> None:
    find, parts = TOLD[state]
    told = find().told
    assert [part for part in parts if part not in told] == []
    before, lines, after = told.split("\n\n")
    assert before.endswith(".")
    assert after.endswith(".")
    assert all(line.startswith("- ") and line.endswith("]") for line in lines.splitlines())


def test_interval_is_students() -> None:
    i = interval(np.array([1.0, 2.0, 3.0]))
    assert (i.mean, i.low, i.high) == pytest.approx((2, 2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-5)
    assert -i == Interval(-2, -i.high, -i.low, 3)
    with pytest.raises(ValueError, match="1 of these 3 values are not finite"):
        interval(np.array([1.0, np.nan, 3.0]))


def test_an_interval_of_shares_reaches_further_up_and_stays_a_share() -> None:
    """Of 0, 0 and 0.03: Student's lower end is below 0; the upper one is that of 99.5 %."""
    found = interval_of_shares(np.array([0.0, 0.0, 0.03]))
    assert (found.mean, found.low, found.seeds) == (0.01, 0, 3)
    assert found.high == pytest.approx(0.01 + 14.0890 * 0.01, rel=1e-4)
    assert interval_of_shares(np.array([0.0, 0.5, 1.0])).high == 1
    above = interval_of_shares(np.array([0.3, 0.31, 0.32]))
    assert above.low == pytest.approx(0.31 - 4.30265 * 0.01 / 3**0.5)


HOLDS, PART, NOT, UNTESTABLE = "holds", "holds in part", "does not hold", "not testable here"


def cases(column: str, **gains: float) -> pd.DataFrame:
    """Records of several cases, each with its gain."""
    return pd.concat([records(gain, 1e-4).assign(**{column: case}) for case, gain in gains.items()])


def scores(**low: float) -> pd.DataFrame:
    """Standard SAEs of each architecture with that share of features in a low mode."""
    random, rows = np.random.default_rng(0), []
    for name, share in low.items():
        for seed in range(4):
            high, of_low = random.normal(0.9, 0.1, 2048), random.normal(0.2, 0.08, 2048)
            a = np.where(np.arange(2048) < 2048 * share * (1 + 0.02 * seed), of_low, high)
            of = {"histogram": shares(a), "dip_p": 0.5, "below_half": (a < 0.5).mean()}
            rows.append({"activation": name, "constraint": "none", "seed": seed} | of)
    return pd.DataFrame(rows)


def shares(a: np.ndarray) -> list[float]:
    bins, low, high = SCORES
    return (np.histogram(np.clip(a, low, high), bins, (low, high))[0] / len(a)).tolist()


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        ({"relu": 0.3, "topk": 0.05}, HOLDS),
        ({"relu": 0.3, "topk": 0.0}, PART),
        ({"relu": 0.0, "topk": 0.0}, NOT),
    ],
)
def test_c1_asks_every_architecture(low: dict[str, float], verdict: str) -> None:
    table = scores(**low)
    found = bimodal(
        pd.concat([table, table.assign(constraint="projected", histogram=[[1.0] + 40 * [0.0]] * len(table))])
    )
    assert found.verdict == verdict
    for (_, effect), share in zip(found.parts, low.values()):
        assert effect.mean == pytest.approx(1.03 * share, abs=0.002)
    under_half, dips = found.beside[::2], found.beside[1::2]
    assert [share.mean for _, share in under_half] == pytest.approx([1.03 * share for share in low.values()], abs=0.002)
    assert [dip.mean for _, dip in dips] == [0, 0]
    assert bimodal(table[:2]).verdict == UNTESTABLE


def test_c1_has_an_interval_of_shares_and_beside_it_the_dip_tests_share_with_wilsons() -> None:
    table = pd.concat([scores(relu=0.3)] * 2).assign(dip_p=[0.001, 0.04, 0.06, 0.5, 0.01, 0.02, 0.03, 0.049])
    found = bimodal(table)
    _, (name, dip) = found.beside
    assert name.startswith("relu")
    assert dip.mean == 6 / 8
    assert (dip.low, dip.high, dip.seeds) == pytest.approx((0.40928, 0.92852, 8), abs=1e-4)  # Wilson's formula
    of_seed = np.array([low_mode(histogram) for histogram in table.histogram[:4]])
    assert found.effect == interval_of_shares(of_seed)


@pytest.mark.parametrize("width", [512, 2048, 8192])
def test_the_width_does_not_decide_the_share_in_a_low_mode(width: int) -> None:
    random = np.random.default_rng(0)

    def mean_share(low: float, draw: Callable[[], np.ndarray]) -> float:
        chosen = (np.where(random.random(width) < low, random.normal(0.2, 0.1, width), draw()) for _ in range(100))
        return float(np.mean([low_mode(shares(a)) for a in chosen]))

    for share in (0.02, 0.1, 0.6):
        assert mean_share(share, lambda: random.normal(0.9, 0.1, width)) == pytest.approx(share, rel=0.1)
    for one_mode in (
        lambda: random.normal(0.5, 0.35, width),  # broad, and beyond the histogram on the left
        lambda: random.normal(1.4, 0.4, width),  # beyond it on the right
        lambda: 1.1 - random.gamma(1.5, 0.15, width),  # a long tail of low scores
        lambda: random.uniform(0, 1, width),
        lambda: random.normal(0.1, 0.01, width),  # all where they started
    ):
        assert mean_share(0.0, one_mode) < 0.001


def test_c3_looks_at_large_k_alone() -> None:
    table = records(0.0, 1e-5).assign(activation="topk")
    dense = (table.constraint == "projected") & (table.l0 > 25)
    table["ce_recovered"] += np.where(dense, 0.02, np.where(table.constraint == "projected", -0.2, 0))
    assert recovers_more(table).verdict != HOLDS
    assert recovers_more_where_dense(table).verdict == HOLDS
    both = pd.concat([table, records(-0.01, 1e-4).assign(activation="batchtopk")])
    assert recovers_more_where_dense(both).verdict == PART
    assert [name for name, _ in recovers_more_where_dense(both).parts] == ["topk", "batchtopk"]


@pytest.mark.parametrize(
    ("standard", "aligned", "verdict"),
    [(0.3, 0.005, HOLDS), (0.3, 0.1, PART), (0.3, 0.4, NOT), (0.3, 0.3, NOT), (0.005, 0.0, UNTESTABLE)],
)
def test_c4_asks_for_nearly_none(standard: float, aligned: float, verdict: str) -> None:
    table = records(0.0).assign(activation="relu")
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(table))
    table["alive"] = np.where(table.constraint == "none", 1 - standard, 1 - aligned) + noise
    assert leaves_few_dead(table).verdict == verdict


def test_c4_leaves_out_an_activation_without_dead_features_and_says_so() -> None:
    table = records(0.0).assign(activation="relu")
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(table))
    table["alive"] = np.where(table.constraint == "none", 0.7, 0.999) + noise
    found = leaves_few_dead(pd.concat([table, table.assign(activation="topk", alive=0.999 + noise)]))
    assert found.verdict == HOLDS
    assert [name for name, _ in found.parts] == ["relu, more alive", "relu, few dead"]
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(0.299, abs=1e-3)  # of the first
    assert found.sample.startswith("3 seeds, 24 SAEs; left out")
    assert found.sample.endswith("topk")


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [({"relu": 0.1, "topk": 0.1}, HOLDS), ({"relu": 0.1, "topk": -0.1}, PART), ({"relu": -0.1, "topk": 0.0}, NOT)],
)
def test_c5_compares_pairs_of_seeds_at_equal_l0(gains: dict[str, float], verdict: str) -> None:
    table = cases("activation", **gains).assign(d_sae=64, init="unit")
    pairs = []
    for (_, _, _), rows in table.groupby(["activation", "constraint", "sparsity"]):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            pair = rows.iloc[0].copy()
            pair["seed"], pair["other_seed"] = i, j
            pair["pw_mcc_alive"] = rows.ce_recovered.iloc[[i, j]].mean()
            pairs.append(pair.drop(["l0", "ce_recovered"]))
    found = with_l0(pd.DataFrame(pairs), table)
    assert found.l0.iloc[0] == pytest.approx(80)
    assert more_stable(found).verdict == verdict


def test_l0_of_a_pair_is_the_mean_of_its_two() -> None:
    saes = pd.DataFrame({"activation": "relu", "d_sae": 64, "init": "unit", "constraint": "none", "sparsity": 0.1,
                         "seed": [0, 1, 2], "l0": [10.0, 20.0, 60.0]})  # fmt: skip
    pairs = pd.concat([saes[:2].drop(columns="l0").assign(other_seed=2)])
    assert with_l0(pairs, saes).l0.tolist() == [35, 40]


def test_c5s_interval_is_over_seeds() -> None:
    pairs = spread(of_pairs=True).assign(activation="relu", d_sae=64, init="unit")
    ((_, effect),) = more_stable(pairs.assign(pw_mcc_alive=pairs.ce_recovered)).parts
    assert (effect.mean, effect.low, effect.high) == pytest.approx((0.02, 0.02 - HALF, 0.02 + HALF), rel=1e-4)
    assert effect.seeds == 3


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, HOLDS), (-0.1, NOT)])
def test_c6_is_of_the_harder_direction_alone(gain: float, verdict: str) -> None:
    table = records(gain, 1e-4).assign(activation="topk", d_sae=64, init="unit")
    scr = table.drop(columns="l0")
    scr["scr"] = [[value, -9.0 if i % 2 else 9.0] for i, value in enumerate(table.ce_recovered)]
    scr["harder"] = [[True, False]] * len(scr)
    found = separates_better(with_l0(scr, table))
    assert found.verdict == verdict
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(gain, abs=1e-3)


@pytest.mark.parametrize(("slope", "verdict"), [(1.0, HOLDS), (0.25, NOT), (0.0, NOT), (-1.0, NOT)])
def test_c7_and_c8_are_pearsons_r_over_alive_features(slope: float, verdict: str) -> None:
    random = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        score, noise = random.standard_normal((2, 4000))
        density = np.where(np.arange(4000) < 3000, 0.1, 0.0)
        mcs = np.where(density > 0, slope * score + noise, -score)  # what is dead would say the opposite
        rows.append({"activation": "relu", "d_sae": 4000, "init": "unit", "constraint": "none", "sparsity": 1.0,
                     "seed": seed, "score": score, "mcs": mcs, "density": density})  # fmt: skip
    found = correlates(pd.DataFrame(rows), "mcs", 0.65)
    assert found.verdict == verdict
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(slope / (1 + slope**2) ** 0.5, abs=0.04)
    assert correlates(pd.DataFrame(rows[:2]), "mcs", 0.65).verdict == UNTESTABLE
    with pytest.raises(ValueError, match="all the same"):
        pearson([1.0, 1.0], [0.1, 0.2], [0.1, 0.1])


def test_c7_is_of_standard_saes_by_seed_with_the_partial_r_beside_it() -> None:
    random = np.random.default_rng(0)
    rows, z = [], np.zeros((3, 2))
    for seed in range(3):
        for i, noise in enumerate((0.5, 2.0)):  # of two sparsities
            often, a, b = random.standard_normal((3, 20_000))
            score, mcs = often + 0.5 * a, often + noise * b
            z[seed, i] = np.arctanh(np.corrcoef(score, mcs)[0, 1])
            rows.append({"activation": "relu", "d_sae": 20_000, "init": "unit", "constraint": "none", "sparsity": noise,
                         "seed": seed, "score": score, "mcs": mcs, "density": np.exp(often - 6)})  # fmt: skip
    standard = pd.DataFrame(rows)
    found = correlates(pd.concat([standard, standard.assign(constraint="soft", mcs=-standard.mcs)]), "mcs", 0.65)
    ((_, effect),) = found.parts
    of_z = interval(z.mean(1))
    assert (effect.mean, effect.low, effect.high) == pytest.approx(tuple(np.tanh([of_z.mean, of_z.low, of_z.high])))
    (name, given), (other, ranks) = found.beside
    assert name == "relu, partial r given firing density"
    assert given.mean == pytest.approx(0, abs=0.02)
    assert other == "relu, correlation of ranks (Spearman)"
    of_ranks = [np.corrcoef(rankdata(row["score"]), rankdata(row["mcs"]))[0, 1] for row in rows]
    assert ranks.mean == pytest.approx(np.tanh(np.mean(np.arctanh(of_ranks))))
    of_pairs = standard[standard.sparsity == 0.5].assign(other_seed=[1, 2, 0])  # each measured against another's
    ((_, of_pair),) = correlates(of_pairs, "mcs", 0.65).parts
    jackknife = interval_of_pairs(z[:, 0], np.array([(0, 1), (1, 2), (2, 0)]))
    assert (of_pair.low, of_pair.high) == pytest.approx(tuple(np.tanh([jackknife.low, jackknife.high])))
    with np.errstate(invalid="ignore"):
        same = correlates(standard.assign(mcs=[[1.0] * 20_000] * 6), "mcs", 0.65)
    assert same.verdict == UNTESTABLE
    assert "for relu, the MCS is the same for all features" in same.reason


@pytest.mark.parametrize(
    ("alive", "recovered", "verdict"), [(0.2, -0.1, HOLDS), (0.2, 0.1, PART), (-0.2, -0.1, PART), (-0.2, 0.1, NOT)]
)
def test_c9_is_about_both_what_tying_gives_and_what_it_costs(alive: float, recovered: float, verdict: str) -> None:
    table = records(0.3, 1e-4)
    table["alive"] = np.where(table.constraint == "none", 0.5, 0.9)
    tied = table[table.constraint == "none"].assign(constraint="tied")
    random = np.random.default_rng(1)
    tied["alive"] += alive + 1e-3 * random.standard_normal(len(tied))  # than the standard ones
    tied["ce_recovered"] += 0.3 + recovered  # than the aligned ones
    found = tying_costs(pd.concat([table, tied]))
    assert found.verdict == verdict
    assert [name for name, _ in found.parts] == ["more alive", "less recovered"]
    assert [effect.mean for _, effect in found.parts] == pytest.approx([alive, recovered], abs=1e-3)
    assert found.effect == found.parts[1][1]
    assert [effect.mean for _, effect in found.at_l0] == pytest.approx([recovered] * 9, abs=1e-3)


def test_c11_is_met_where_alignment_does_no_harm() -> None:
    assert needs_no_tuning(cases("activation", p_anneal=0.0, topk=0.01)).verdict == HOLDS
    assert needs_no_tuning(cases("activation", p_anneal=-0.01, topk=0.01)).verdict == PART
    assert needs_no_tuning(cases("activation", p_anneal=-0.01, topk=-0.01)).verdict == NOT


def test_c5s_interval_covers_the_truth_though_pairs_share_seeds() -> None:
    random = np.random.default_rng(0)
    for n in (3, 5):
        pairs = np.array(list(combinations(range(n), 2)))
        for of_seed, of_pair in ((1.0, 0.0), (1.0, 0.3), (1.0, 1.0), (0.3, 1.0), (0.0, 1.0)):
            a, e = of_seed * random.standard_normal((1500, n)), of_pair * random.standard_normal((1500, len(pairs)))
            found = [interval_of_pairs(row, pairs) for row in a[:, pairs[:, 0]] + a[:, pairs[:, 1]] + e]
            assert np.mean([i.low <= 0 <= i.high for i in found]) >= 0.93


def test_an_interval_of_pairs_is_the_jackknifes() -> None:
    values, pairs = np.array([1.0, 2.0, 4.0]), np.array([(0, 1), (0, 2), (1, 2)])
    pseudo = [3 * 7 / 3 - 2 * 4, 3 * 7 / 3 - 2 * 2, 3 * 7 / 3 - 2 * 1]
    assert interval_of_pairs(values, pairs).low == pytest.approx(interval(np.array(pseudo)).low)
    assert interval_of_pairs(values, pairs).seeds == 3
    with pytest.raises(ValueError, match="at least 3 seeds, and there are 2"):
        interval_of_pairs(values[:1], pairs[:1])
    with pytest.raises(ValueError, match="seed 0 is in every pair: add pairs without it, such as 1 and 2"):
        interval_of_pairs(values[:2], pairs[:2])


def test_partial_correlation_takes_out_what_firing_often_brings_along() -> None:
    random = np.random.default_rng(0)
    often, a, b = random.standard_normal((3, 20000))
    density = np.exp(often - 6)
    score, metric = often + 0.5 * a, often + 0.5 * b
    assert pearson(score, metric, density) == pytest.approx(0.8, abs=0.02)
    assert partial(score, metric, density) == pytest.approx(0, abs=0.02)
    r = np.corrcoef([score, metric, often])
    formula = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert partial(score, metric, density) == pytest.approx(formula)


def costs(*of: tuple[float, float, float]) -> pd.DataFrame:
    rows = [("M", f"activation {i}", *row, 61) for i, row in enumerate(of)]
    return pd.DataFrame([*rows, ("S", "relu", 9.0, 8.0, 10.0, 61)],
                        columns=["shape", "activation", "cost", "low", "high", "pairs"])  # fmt: skip


def test_c10_takes_three_percent_for_no_cost() -> None:
    little, much, unclear = (0.01, 0.0, 0.02), (0.06, 0.05, 0.07), (0.02, 0.0, 0.04)
    assert no_added_compute(costs(little, little)).verdict == HOLDS
    assert no_added_compute(costs(little, much)).verdict == PART
    assert no_added_compute(costs(much, much)).verdict == NOT
    assert no_added_compute(costs(unclear, unclear)).verdict == "undecided"
    assert no_added_compute(costs()).verdict == UNTESTABLE
    for found in (no_added_compute(costs(little, much)), no_added_compute(costs(much, little))):
        assert found.effect == Interval(*much, 61)
    assert no_added_compute(costs((0.01, 0.0, 0.029), little)).verdict == HOLDS
    assert no_added_compute(costs((0.01, 0.0, 0.029), much)).verdict == "undecided"  # at 97.5 % it ends at 0.032


def test_cases_that_disagree_are_judged_at_the_level_that_so_many_ask_for() -> None:
    """Of two intervals at 95 % one lies above 0, but not at 97.5 %."""
    values = {"a": np.array([0.01, 0.011, 0.0175]), "b": np.array([-0.03, 0.0, 0.03])}
    assert interval(values["a"]).low > 0 > interval(values["a"], 0.975).low

    def case(name: str) -> Case:
        return Case(name, lambda level: interval(values[name], level), Least(0.005, "CE recovered", ""))

    assert decide([case("a")]).verdict == HOLDS
    both = decide([case("a"), case("b")])
    assert both.verdict == "undecided"
    assert both.level == pytest.approx(0.975)
    assert (
        both.outcomes[0].says == "a gain is shown by the 95 % interval, but not by the 97.5 % one, which decides here"
    )
    assert "each is judged by its 97.5 % interval" in both.told
    assert decide([case("a"), case("b"), case("b")]).level == pytest.approx(1 - 0.05 / 3)
    assert decide([case("a"), case("a")]).level == 0.95  # they agree


@pytest.mark.parametrize(
    ("test", "low", "high", "shown", "opposite"),
    [
        (Gain(), 0.001, 0.02, True, False),
        (Gain(), 0.001, 0.004, False, False),  # too small
        (Gain(), -0.001, 0.02, None, False),
        (Gain(), -0.02, 0.001, False, False),
        (Gain(), -0.004, -0.001, False, False),  # a loss, but too small
        (Gain(), -0.02, -0.001, False, True),
        (Loss(), -0.02, -0.001, True, False),
        (Loss(), -0.02, 0.001, None, False),
        (Loss(), 0.001, 0.02, False, True),
        (Loss(), 0.001, 0.004, False, False),
        (NoLoss(), -0.004, -0.001, True, False),
        (NoLoss(), -0.02, 0.001, None, False),
        (NoLoss(), -0.02, -0.001, False, False),
        (AtMost("it"), -0.02, 0.005, True, False),
        (AtMost("it"), 0.004, 0.02, None, False),
        (AtMost("it"), 0.006, 0.02, False, False),
    ],
)
def test_what_an_interval_shows(
    test: Gain | Loss | NoLoss | AtMost, low: float, high: float, shown: bool | None, opposite: bool
) -> None:
    effect = Interval((low + high) / 2, low, high, 3)
    assert test.shown(effect, 0.005) is shown
    assert test.reversed(effect, 0.005) is opposite


def test_a_finding_names_the_cases_that_go_the_other_way_round() -> None:
    def finding(**values: list[float]) -> Finding:
        return decide(
            [
                Case(name.strip("_"), lambda level, of=of: interval(np.array(of), level), Least(0.005, "CE", ""))
                for name, of in values.items()
            ],
            "3 seeds",
        )

    gain, loss, nothing = [0.02, 0.0201, 0.0199], [-0.02, -0.0201, -0.0199], [0.001, -0.001, 0.0]
    found = finding(relu=gain, topk=loss, batchtopk=nothing)
    assert found.short == "holds in part (shown: relu; excluded: batchtopk; the other way round: topk)"
    assert "shown for relu; it is excluded for batchtopk; the opposite is shown for topk." in found.told
    assert finding(relu=loss, topk=loss).short == "does not hold (the other way round: relu, topk)"
    assert "The opposite is shown for relu and topk." in finding(relu=loss, topk=loss).told
    assert finding(_=loss).short == "does not hold (the other way round)"
    assert finding(relu=gain, topk=gain).short == "holds"
    hardly = [-0.01 - 0.003824, -0.01, -0.01 + 0.003824]  # below 0 at 95 %, and not at 97.5 %
    assert finding(_=hardly).outcomes[0].reversed
    assert finding(relu=gain, topk=hardly).short == "holds in part (shown: relu; excluded: topk)"


def test_c12_is_about_several_widths() -> None:
    def widths(*gains: float) -> pd.DataFrame:
        return pd.concat(
            [records(gain, 1e-4).assign(activation="relu", d_sae=512 * 4**i) for i, gain in enumerate(gains)]
        )

    assert holds_everywhere(widths(0.01, 0.01, 0.01)).verdict == HOLDS
    assert holds_everywhere(widths(0.01, -0.01, 0.01)).verdict == PART
    assert holds_everywhere(widths(-0.01, -0.01)).verdict == NOT
    assert holds_everywhere(widths(0.01)).verdict == UNTESTABLE
    both = pd.concat([widths(0.01, 0.01), widths(-0.01, 0.01).assign(activation="topk")])
    assert [name for name, _ in holds_everywhere(both).parts] == ["relu, 512", "relu, 2048", "topk, 512", "topk, 2048"]
    assert holds_everywhere(both).verdict == PART
