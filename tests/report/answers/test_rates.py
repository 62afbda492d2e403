"""What alignment does at another learning rate, on published records."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from aligned.report import claims, results
from aligned.report.answers import rates
from aligned.report.published import ARMS, PLANS, Part, Plan


def test_another_learning_rate_is_compared_at_the_sparsities_of_the_chosen_one() -> None:
    found = rates.rates("embedded")
    assert found is not None
    assert found.rate != found.chosen
    earlier = results.of_parts("embedded", "earlier")
    topk = earlier[earlier.activation == "topk"]
    assert found.other["share of alive features, TopK"] == claims.difference(topk, "alive", ARMS)
    assert f"({found.rate:g} in place of {found.chosen:g} on embedded)" in rates.of_the_rate(
        ["embedded", "gemma-3-270m"]
    )


@pytest.mark.parametrize(
    ("fvu", "says"),
    [
        ({1e-3: (0.2, 0.2, 0.2), 1e-2: (0.1, 0.1, 0.1)}, "it is 0.01, which leaves the least"),
        (
            {1e-3: (0.1, 0.1, 0.3), 1e-2: (0.09, 0.25, 0.35)},
            "it is 0.01, as the first seed alone has it. Over 3 seeds 0.001 leaves less variance unexplained (FVU "
            "0.1667, and 0.2300 at 0.01; difference +0.0633",
        ),
        ({1e-3: (0.1, 0.101, 0.102), 1e-2: (0.2, 0.201, 0.202)}, "it is 0.01. Over 3 seeds 0.001 leaves less"),
        ({1e-2: (0.1, 0.1, 0.1)}, "can't be checked: not all SAEs"),
        ({1e-3: (0.1, 0.1), 1e-2: (0.2, 0.2)}, "can't be checked: not all SAEs"),
    ],
)
def test_the_choice_of_the_rate_is_checked_on_the_search(
    fvu: dict[float, tuple[float, ...]], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"lr": lr, "seed": seed, "fvu": value} for lr, of in fvu.items() for seed, value in enumerate(of)]
    spec = PLANS["embedded"].parts["topk"].specs[0]
    tried = [replace(spec, lr=lr) for lr in (1e-3, 1e-2)]
    parts = {"topk": Part([spec], ()), "rates": Part(tried, ())}
    monkeypatch.setattr(rates, "PLANS", {"toy": Plan(parts, 1, 1)})
    monkeypatch.setattr(rates, "of_parts", lambda *asked, **where: pd.DataFrame(rows))
    said = rates.of_the_choice("toy")
    assert says in said
    assert ("is open" in said) is ("+0.0633" in said)
    assert said.endswith("It is the largest that was tried, so another may do better.")


def test_without_another_learning_rate_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "published", dict)
    assert rates.of_the_rate(["embedded"]) == ""


def test_the_correlations_at_another_rate_are_means_over_its_standard_saes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANS["embedded"].parts
    rate = plan["earlier"].specs[0].lr
    specs = [replace(s, lr=rate) for s in plan["features"].specs if s.constraint == "none" and s.activation == "relu"]
    of = results.drawn(specs, dict(plan["features"].measures)["features"], "features")
    r = [claims.pearson(sae.score, sae.mcs, sae.density) for sae in of.itertuples()]
    told = rates.correlations("embedded", "mcs")
    assert f"{sum(r) / len(r):+.2f} (relu)" in told
    assert f"over {len(r)} seeds" in told
    monkeypatch.setattr(results, "published", dict)
    assert rates.correlations("embedded", "mcs") == ""
