"""What is said of other formulas of the constraint, and of a penalty, on records whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from aligned.report import claims
from aligned.report.answers.formulas import compared_at, one_by_one, so
from tests.report.answers.arms import LESS, MORE, of_arms

SAME, WIDE, RAN_AWAY = (0.0, 0.0001, -0.0001), (-0.02, 0.0, 0.02), (0.001, 0.002, -0.4)


def of_several(init: str = "small", **gains: tuple[float, ...]) -> pd.DataFrame:
    """A standard SAE, an aligned one that is the same, and other arms with these gains."""
    arms = {"projected": SAME, **gains}
    records = pd.concat([of_arms(*gain, arm=arm) for arm, gain in arms.items()]).drop_duplicates()
    return records.assign(init=init, score_min=0.9, score_max=1.1)


def effects(records: pd.DataFrame, *arms: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the aligned arm and these from the standard one; of these from the aligned one."""
    return claims.effects(records, ["projected", *arms]), claims.effects(records, arms, "projected")


@pytest.mark.parametrize(
    ("arm", "gains", "line"),
    [
        ("detached", MORE, "- topk, `detached`: more, +0.0110 ["),
        ("tied", LESS, "- topk, `tied`: less, -0.0210 ["),
        ("householder", SAME, "- topk, `householder`: the same within 0.005, +0.0000 ["),
        ("post_step", WIDE, "] (seed by seed -0.0200, -0.0001, +0.0201)"),
        ("rescaled", WIDE, "] (seed by seed -0.0200, -0.0001, +0.0201)"),
        ("post_step", RAN_AWAY, "; of these, seed 2 ran away)"),
        ("rescaled", RAN_AWAY, "; of these, seed 2 ran away); near its pole encoders get very long"),
        ("rescaled", (0.1,), "- topk, `rescaled`: not comparable, the rule asks for at least 3 seeds"),
    ],
)
def test_an_arm_beside_the_aligned_one_has_its_word(arm: str, gains: tuple[float, ...], line: str) -> None:
    records = of_several(**{arm: gains})
    lead, _, told = one_by_one(records, effects(records, arm)[1]).partition("\n\n")
    assert lead.startswith("The other arms against `projected`: ")
    assert line in told
    assert told.endswith(line) is line.startswith(("]", ";"))
    assert "no record" not in told


def test_arms_without_a_record_are_named_at_the_end() -> None:
    records = of_several(detached=MORE)
    told = one_by_one(records, effects(records, "soft", "detached", "tied")[1])
    *_, line, nothing, without = told.splitlines()
    assert line.startswith("- topk, `detached`: more")
    assert not nothing
    assert without == "There is no record yet of topk `soft`, topk `tied`."


def test_arms_are_sorted_by_what_became_of_them() -> None:
    records = of_several(detached=MORE, post_step=LESS, rescaled=WIDE, tied=LESS, householder=(0.1,))
    arms = ("detached", "post_step", "rescaled", "tied", "householder", "soft")
    first, *_ = so(records, *effects(records, *arms)).split("\n\n")
    assert first == (
        "**topk.** Against the standard SAE, CE recovered is less with `post_step`, `tied`; more with `detached`; not "
        "comparable with `householder`; open with `rescaled`; the same within 0.005 with `projected`. The share of "
        "alive features is not comparable with `householder`; the same within 0.01 with `projected`, `detached`, "
        "`post_step`, `rescaled`, `tied`."
    )


@pytest.mark.parametrize(
    ("arm", "gains", "says"),
    [
        (
            "detached",
            MORE,
            "How the score is kept at 1 matters: against `projected`, CE recovered differs with `detached`",
        ),
        ("rescaled", LESS, "CE recovered differs with `rescaled` -0.0210 ["),
        (
            "rescaled",
            WIDE,
            "No other formula of the constraint, tied weights aside, is shown to differ from `projected` by ",
        ),
        ("tied", LESS, "No other formula could be compared in CE recovered."),
        ("post_step", LESS, "No other formula could be compared in CE recovered."),
        ("detached", (0.1,), "No other formula could be compared in CE recovered."),
    ],
)
def test_whether_the_formula_matters_is_said(arm: str, gains: tuple[float, ...], says: str) -> None:
    records = of_several(**{arm: gains})
    _, second = so(records, *effects(records, arm)).split("\n\n")
    assert says in second


@pytest.mark.parametrize(("init", "says"), [("small", True), ("unit", False)])
def test_a_penalty_is_compared_with_both(init: str, says: bool) -> None:
    records = of_several(init, soft=MORE)
    *_, third = so(records, *effects(records, "soft")).split("\n\n")
    assert third.startswith("`soft` is no constraint: with this penalty scores lie between 0.90 and 1.10. ")
    assert ("As the standard SAE does, it starts with scores near 0; `projected` starts with 1. CE" in third) is says
    assert "CE recovered is +0.0110 [" in third
    assert " against the standard SAE, and +0.0110 [" in third
    assert third.endswith(" against `projected`.")


@pytest.mark.parametrize("gains", [{}, {"soft": (0.1,)}])
def test_of_a_penalty_that_cannot_be_compared_nothing_is_said(gains: dict[str, tuple[float, ...]]) -> None:
    records = of_several(**gains)
    assert "is no constraint" not in so(records, *effects(records, "soft"))


def test_each_activation_has_its_own_paragraphs() -> None:
    other = of_several(detached=LESS).assign(activation="relu")
    records = pd.concat([of_several(detached=MORE), other])
    topk, with_more, relu, with_less = so(records, *effects(records, "detached")).split("\n\n")
    assert topk.startswith("**topk.**")
    assert "`detached` +0.0110" in with_more
    assert relu.startswith("**relu.**")
    assert "`detached` -0.0210" in with_less


def test_the_range_that_two_arms_share_is_told() -> None:
    records = of_several(tied=SAME)
    records.loc[records.constraint == "tied", "l0"] *= 2  # 8 to 32 becomes 16 to 64
    low, high = records[records.constraint == "tied"].l0.min(), records[records.constraint == "none"].l0.max()
    said = compared_at(records, "tied", ["none", "soft"])  # of `soft` there is no record
    assert (
        said
        == f"Two arms are compared at the L0 that both reach: tied and standard SAEs at {low:.0f} to {high:.0f} (topk)."
    )
    assert compared_at(records, "soft", ["none"]) == ""
