"""How alike two seeds are, on pairs whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from aligned.report.answers import stability


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
    assert says in stability.over_all(pd.DataFrame(pairs))
    assert "can't be said (" in stability.over_all(pd.DataFrame(pairs[:6]))


@pytest.mark.parametrize(
    ("end", "own", "rises", "converged"), [(0.5, 0.2, True, True), (0.5, 0.9, True, False), (0.405, 0.2, False, True)]
)
def test_whether_training_was_long_enough_is_said(end: float, own: float, rises: bool, converged: bool) -> None:
    along = pd.DataFrame(
        {"activation": "relu", "constraint": "none", "moments": [[0, 10, 50, 100]] * 3}
        | {"pw_mcc": [[0.2, 0.3, 0.4, end]] * 3, "own_start": [[1.0, 0.99, 0.95, own]] * 3}
    )
    told = stability.settled(along)
    assert ("still rises for standard relu (+0.10)" in told) is rises
    assert ("it has settled" in told) is not rises
    assert ("have not converged" in told) is not converged


PAIRS = pd.DataFrame({"constraint": ["none", "projected"], "pw_mcc_alive": [0.4, 0.15], "pw_mcc_start": [0.14, 0.14]})


def test_saes_that_are_as_alike_as_their_starts_are_named() -> None:
    assert "So it is with aligned relu, m: less than 0.02" in stability.as_alike_as_random({"relu, m": PAIRS})
    assert "None of these SAEs" in stability.as_alike_as_random({"relu, m": PAIRS[:1]})


def test_a_page_of_other_measures_names_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    of = {("relu", "m"): PAIRS, ("topk", "m"): PAIRS[:1]}
    monkeypatch.setattr(stability, "facets", lambda *_: of)
    assert "two seeds of the aligned relu SAEs on m have no more in common than random" in stability.with_care("m")
    del of["relu", "m"]
    assert stability.with_care("m") == ""
