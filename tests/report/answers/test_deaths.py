"""What is said of the mean and of the start, on shares of dead features whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from aligned.evals.intervals import Interval, interval
from aligned.report import results
from aligned.report.answers import deaths

LIKE = pd.DataFrame(json.loads((results.RESULTS / "residuals.json").read_text())["rows"]).set_index("model")
NAN = float("nan")


def _dead(*rows: tuple[str, str, dict[str, float]]) -> pd.DataFrame:
    columns = ["gamma", "expected", "none", "projected", "none centred", "projected centred", "none unit"]
    columns += ["none saved", "projected saved"]
    return pd.DataFrame.from_dict({(kind, model): of for kind, model, of in rows}, orient="index").reindex(
        columns=columns
    )


def test_a_row_is_of_the_sparsities_that_all_its_columns_have() -> None:
    dead = deaths.table(["relu", "topk"], LIKE.loc[["embedded"]])
    grid = results.of_parts("embedded", "relu", measure="scores")
    unit = results.of_parts("embedded", "unit", measure="scores")
    few = grid[grid.sparsity.isin(unit.sparsity) & (grid.constraint == "none")]
    assert set(few.sparsity) < set(grid.sparsity)
    ends = [log[-1] for log in few.log_dead]
    assert dead.loc[("relu", "embedded"), "none"] == pytest.approx(sum(ends) / len(ends))
    topk = results.of_parts("embedded", "topk", measure="scores")
    of_k = topk[(topk.sparsity == LIKE.k["embedded"]) & (topk.constraint == "projected")]
    ends = [log[-1] for log in of_k.log_dead]
    assert dead.loc[("topk", "embedded"), "projected"] == pytest.approx(sum(ends) / len(ends))
    assert dead.loc[("topk", "embedded"), "expected"] == LIKE.expected_dead_topk["embedded"]


def test_what_is_not_published_is_not_a_number_and_has_a_dash_in_words() -> None:
    dead = deaths.table(["topk"], LIKE)
    assert dead["none unit"].isna().all()  # TopK SAEs have one start
    assert "start" not in deaths.in_words(dead)
    assert deaths.table(["jumprelu"], LIKE).empty


@pytest.mark.parametrize(
    ("centred", "said"),
    [
        (0.05, "subtracting it saves 83% [73%, 93%] of them"),
        (0.25, "subtracting it saves 17% [7%, 27%] of them"),
        (0.28, "whether subtracting it saves any is open: 7% [-3%, 17%] of them"),
        (0.295, "a change of less than 0.01"),
        (0.35, "they do not die of the mean"),
    ],
)
def test_the_mean_is_blamed_as_far_as_features_live_without_it(centred: float, said: str) -> None:
    share = 1 - centred / 0.3
    row = {"gamma": 5.0, "none": 0.3, "projected": 0.2, "none centred": centred, "projected centred": 0.1}
    dead = _dead(("topk", "m", row)).astype(object)
    dead["none saved"], dead["projected saved"] = Interval(share, share - 0.1, share + 0.1, 3), None
    (line,) = deaths.in_words(dead).splitlines()
    assert f"30.0% dead features with the mean and {centred:.1%} without it: {said}" in line
    assert (
        "Aligned SAEs have 20.0% with it and 10.0% without: for a share that is saved there are too few seeds" in line
    )


def test_the_share_that_is_saved_is_that_of_each_seed() -> None:
    before, after = (
        pd.DataFrame([{"constraint": "none", "seed": seed, "log_dead": [1.0, end]} for seed, end in enumerate(ends)])
        for ends in ((0.5, 0.25, 0.25), (0.25, 0.125, 0.1875))
    )
    assert deaths.saved(before, after, "none") == interval(np.array([0.5, 0.5, 0.25]))
    assert deaths.saved(before[:1], after[:1], "none") is None
    assert deaths.saved(before.assign(log_dead=[[0.0]] * 3), after, "none") is None


def test_hardly_a_dead_feature_teaches_nothing_about_the_mean() -> None:
    row = {"gamma": 5.0, "none": 0.001, "none centred": 0.0}
    (line,) = deaths.in_words(_dead(("topk", "m", row))).splitlines()
    assert "nothing can be learned" in line
    assert "Aligned SAEs without it are not published yet" in line


@pytest.mark.parametrize(
    ("small", "unit", "said"),
    [
        (0.3, 0.001, "they die of the small start"),
        (0.3, 0.1, "most of them die of the small start"),
        (0.3, 0.28, "the small start alone does not explain it"),
        (0.001, 0.002, "hardly a feature is dead from either"),
        (0.001, 0.2, "the small start keeps more alive"),
        (0.3, NAN, "not published yet"),
    ],
)
def test_the_start_is_blamed_as_far_as_features_live_from_the_other(small: float, unit: float, said: str) -> None:
    (line,) = deaths.in_words(_dead(("relu", "m", {"gamma": 5.0, "none": small, "none unit": unit}))).splitlines()
    assert said in line


def test_the_largest_mean_and_the_most_dead_features_may_be_two_models() -> None:
    one, two = {"gamma": 5.0, "none": 0.1}, {"gamma": 1.0, "none": 0.3}
    (line,) = deaths.in_words(_dead(("topk", "a", one), ("topk", "b", two))).splitlines()
    assert "largest on a (5.00; at most 1.00 on the others)" in line
    assert "the most dead features on b (10.0% on a, 30.0% on b)" in line
    (line,) = deaths.in_words(_dead(("topk", "a", two), ("topk", "b", one))).splitlines()
    assert "largest on b" in line
    assert "Whether the mean is the cause on b is not known" in line
    two |= {"gamma": 6.0, "none centred": 0.2}
    line, *_ = deaths.in_words(_dead(("topk", "a", one), ("topk", "b", two))).splitlines()
    assert "the most dead features there, too" in line
    assert "not known" not in line


def test_what_the_constraint_can_save_follows_from_the_start() -> None:
    saved = {"none": 0.3, "projected": 0.0, "none unit": 0.001, "projected unit": 0.0}
    still = {"none": 0.3, "projected": 0.4, "none unit": 0.28, "projected unit": 0.25}
    dead = pd.DataFrame.from_dict({("relu", "a"): saved, ("relu", "b"): still}, orient="index")
    told = deaths.what_is_left(dead)
    assert "So on a alignment saves the features that the small start kills" in told
    assert "on b 28.0% of the standard SAEs' features and 25.0% of the aligned ones'" in told
    few = pd.DataFrame.from_dict({("relu", "c"): saved | {"none": 0.002}}, orient="index")
    assert "So on" not in deaths.what_is_left(few)
    lost = pd.DataFrame.from_dict({("relu", "e"): saved | {"projected": 0.4}}, orient="index")
    assert "So on" not in deaths.what_is_left(lost)
    unknown = pd.DataFrame.from_dict({("relu", "d"): saved | {"none unit": NAN}}, orient="index")
    assert deaths.what_is_left(unknown).strip().endswith("are not published yet.")


def test_models_with_nearly_the_same_mean_say_nothing_of_it() -> None:
    alike = _dead(("topk", "a", {"gamma": 0.95, "none": 0.3}), ("topk", "b", {"gamma": 0.99, "none": 0.1}))
    line, *_ = deaths.in_words(alike).splitlines()
    assert "Gamma is nearly the same on all models (0.95 to 0.99)" in line
    assert "30.0% on a, 10.0% on b" in line
