"""What alignment does at another learning rate, on published records."""

from __future__ import annotations

import pytest

from aligned.report import claims, results
from aligned.report.answers import rates
from aligned.report.published import ARMS


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


def test_without_another_learning_rate_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "published", dict)
    assert rates.of_the_rate(["embedded"]) == ""
