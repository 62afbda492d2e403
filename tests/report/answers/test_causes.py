"""Whether the start or the mean decides a difference, on records whose answer is known."""

from __future__ import annotations

import pytest

from aligned.report import claims, results
from aligned.report.answers.causes import ALONE, of_settings, without_the_mean
from tests.report.answers.arms import LESS, MORE, of_arms


@pytest.mark.parametrize(
    ("unit", "centred", "says"),
    [
        (MORE, LESS, ("the start decides; the mean hardly matters", "the difference is: more (")),
        (
            LESS,
            (-0.010, -0.011, -0.012),
            ("the start hardly matters; without the mean 48% [42%, 53%] of it is gone", "the difference is: less ("),
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
    whole = told = of_settings(of_arms(*LESS), {"init unit": of_arms(*unit), "center True": of_arms(*centred)})
    assert "topk, CE recovered: less as above; " in told
    told, _, _ = told.partition(f"\n\n{ALONE}")
    *_, answer, of_alive = told.splitlines()
    assert (f"\n\n{ALONE}" in whole) is (" is gone" in answer)
    assert (
        of_alive == "- topk, the share of alive features: none to explain, it is the same within 0.01, also from "
        "rows of norm 1 and with the mean subtracted."
    )
    for said in says:
        assert said in answer


def test_where_arms_do_not_differ_there_is_nothing_to_explain() -> None:
    same = of_arms(0.0, 0.0001, 0.0002)
    told = of_settings(same, {"center True": same, "d_sae 512": of_arms(*LESS)})
    assert "- topk, CE recovered: none to explain, it is the same within 0.005, also with the mean subtracted." in told
    unclear = of_settings(of_arms(-0.2, 0.0, 0.2), {})
    assert "- topk, CE recovered: whether there is one is open." in unclear
    assert "can't be said (" in of_settings(of_arms(*LESS[:2]), {})


def test_what_is_left_without_the_mean_is_that_of_the_published_records() -> None:
    told = without_the_mean(["topk", "jumprelu"], ["embedded", "gemma-3-270m"])
    assert told.count("- topk on embedded, ") == told.count("- topk on gemma-3-270m, ") == 2
    assert "jumprelu" not in told
    centred = results.of_parts("embedded", "centred", where=lambda spec: spec.activation == "topk")
    effect = claims.difference(centred, "alive", ("none", "projected"))
    assert f"{effect} without it (" in told
