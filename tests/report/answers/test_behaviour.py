"""Which numbers of the behaviour differ between arms, on records whose answer is known."""

from __future__ import annotations

import pandas as pd

from aligned.report.answers.behaviour import that_differ


def of_seeds(
    activation: str, dead: tuple[float, ...], error: tuple[float, ...], arm: str = "projected"
) -> pd.DataFrame:
    """A standard SAE and an aligned one for each seed; aligned ones have so many more dead features, and more error."""
    rows = [
        {"activation": activation, "constraint": of, "seed": seed}
        | {"dead": 0.1 + (of == arm) * more, "error": 0.3 + (of == arm) * worse}
        for seed, (more, worse) in enumerate(zip(dead, error))
        for of in ("none", arm)
    ]
    return pd.DataFrame(rows)


def test_the_numbers_whose_interval_lies_on_one_side_of_0_are_told_kind_by_kind() -> None:
    both = of_seeds("relu", (-0.05, -0.06, -0.07), (0.010, 0.011, 0.012))
    one = of_seeds("topk", (-0.1, 0.0, 0.1), (0.010, 0.011, 0.012))
    none = of_seeds("batchtopk", (-0.1, 0.0, 0.1), (-0.1, 0.0, 0.1))
    few = of_seeds("p_anneal", (-0.05, -0.06), (0.010, 0.011))
    lead, nothing, *lines = that_differ(
        [pd.concat([both, one]), pd.concat([none, few])], ["dead", "error"]
    ).splitlines()
    assert lead == "Aligned minus standard, where the 95 % interval over seeds lies on one side of 0:"
    assert not nothing
    assert lines == [
        "- relu: `dead` -0.0600, `error` +0.0110",
        "- topk: `error` +0.0110",
        "- batchtopk: none is shown",
        "- p_anneal: too few seeds have both arms",
    ]


def test_a_seed_or_a_number_that_lacks_an_arm_does_not_count() -> None:
    four = of_seeds("relu", (-0.05, -0.06, -0.07, -0.5), (0.010, 0.011, 0.012, 0.5))
    lacking = four[(four.seed < 3) | (four.constraint == "none")]
    assert that_differ([lacking], ["dead"]).endswith("- relu: `dead` -0.0600")
    assert that_differ([lacking], ["dead"], "tied").endswith("- relu: too few seeds have both arms")


def test_without_a_table_nothing_is_said() -> None:
    assert that_differ([], ["dead"]) == ""
