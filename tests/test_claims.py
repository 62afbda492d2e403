"""Verdicts on records whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aligned.claims import (
    at_equal_l0,
    bimodal,
    correlates,
    holds_everywhere,
    leaves_few_dead,
    more_stable,
    needs_no_tuning,
    pearson,
    recovers_more,
    recovers_more_where_dense,
    separates_better,
    tying_costs,
    with_l0,
)
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


HOLDS, PART, NOT, UNTESTABLE = "holds", "holds in part", "does not hold", "not testable here"


def cases(column: str, **gains: float) -> pd.DataFrame:
    """Records of several cases, each with its gain."""
    return pd.concat([records(gain, 1e-4).assign(**{column: case}) for case, gain in gains.items()])


@pytest.mark.parametrize(
    ("bimodal_of", "verdict"),
    [({"relu": 3, "topk": 2}, HOLDS), ({"relu": 3, "topk": 1}, PART), ({"relu": 1, "topk": 0}, NOT)],
)
def test_c1_asks_every_architecture(bimodal_of: dict[str, int], verdict: str) -> None:
    table = pd.DataFrame(
        {"activation": name, "constraint": "none", "dip_p": 0.01 if i < count else 0.9}
        for name, count in bimodal_of.items()
        for i in range(4)
    )
    aligned = table.assign(constraint="projected", dip_p=1.0)
    found = bimodal(pd.concat([table, aligned]))
    assert found.verdict == verdict
    assert found.effect is not None
    assert found.effect.mean == sum(bimodal_of.values()) / 8
    assert bimodal(table[:2]).verdict == UNTESTABLE


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
    [(0.3, 0.005, HOLDS), (0.3, 0.1, PART), (0.3, 0.4, NOT), (0.005, 0.0, UNTESTABLE)],
)
def test_c4_asks_for_nearly_none(standard: float, aligned: float, verdict: str) -> None:
    table = records(0.0).assign(activation="relu")
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(table))
    table["alive"] = np.where(table.constraint == "none", 1 - standard, 1 - aligned) + noise
    assert leaves_few_dead(table).verdict == verdict


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


@pytest.mark.parametrize(("slope", "verdict"), [(1.0, HOLDS), (0.25, PART), (0.0, NOT), (-1.0, NOT)])
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


@pytest.mark.parametrize(
    ("alive", "recovered", "verdict"), [(0.2, -0.1, HOLDS), (0.2, 0.1, PART), (-0.2, -0.1, PART), (-0.2, 0.1, NOT)]
)
def test_c9_is_about_both_what_tying_gives_and_what_it_costs(alive: float, recovered: float, verdict: str) -> None:
    table = records(0.0, 1e-4).assign(alive=0.7)
    tied = table[table.constraint == "none"].assign(constraint="tied")
    random = np.random.default_rng(1)
    tied["alive"] += alive + 1e-3 * random.standard_normal(len(tied))
    tied["ce_recovered"] += recovered
    assert tying_costs(pd.concat([table, tied])).verdict == verdict


def test_c11_is_met_where_alignment_does_no_harm() -> None:
    assert needs_no_tuning(cases("activation", p_anneal=0.0, topk=0.01)).verdict == HOLDS
    assert needs_no_tuning(cases("activation", p_anneal=-0.01, topk=0.01)).verdict == PART
    assert needs_no_tuning(cases("activation", p_anneal=-0.01, topk=-0.01)).verdict == NOT


def test_c12_is_about_several_widths() -> None:
    def widths(*gains: float) -> pd.DataFrame:
        return pd.concat(
            [records(gain, 1e-4).assign(activation="relu", d_sae=512 * 4**i) for i, gain in enumerate(gains)]
        )

    assert holds_everywhere(widths(0.01, 0.01, 0.01)).verdict == HOLDS
    assert holds_everywhere(widths(0.01, -0.01, 0.01)).verdict == PART
    assert holds_everywhere(widths(-0.01, -0.01)).verdict == NOT
    assert holds_everywhere(widths(0.01)).verdict == UNTESTABLE
