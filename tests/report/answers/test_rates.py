"""What alignment does at another learning rate, on published records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aligned.report import claims, results
from aligned.report.answers import rates
from aligned.report.published import ARMS, PLANS


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


def test_a_rate_at_the_end_of_those_that_were_tried_is_called_so() -> None:
    tried = {model: {spec.lr for spec in plan.parts["rates"].specs} for model, plan in PLANS.items()}
    ends = [model for model, plan in PLANS.items() if plan.parts["topk"].specs[0].lr == max(tried[model])]
    assert ends
    said = rates.of_the_rate(list(PLANS))
    assert all((f"On {model} it is the largest" in said) is (model in ends) for model in PLANS)


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
