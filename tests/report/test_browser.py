"""The feature browser: what it shows of each feature, and what its measure finds."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import aligned
from aligned.alignment import alignment_score
from aligned.report.browser import browser
from aligned.report.measures import BROWSED
from tests.conftest import SMALL


def row(feature: int, concept: str | None, f1: float, text: str = "x = 1") -> dict[str, Any]:
    context = {"tokens": ["a ", text], "values": [0, 2.5], "at": 1}
    page = {"feature": feature, "score": 0.5, "density": 0.01, "contexts": [context], "concept": concept, "f1": f1}
    return {"page": page, "mcs": 0.75, "nearest": 9, "raises": ["\n", "def"]}


def test_a_feature_shows_all_that_is_known_of_it() -> None:
    shown = browser({"standard": [row(3, "comment", 0.9), row(4, "comma", 0.1)], "aligned": [row(5, None, 0.0)]})
    assert shown.count("<details") == 3
    first, second, third = re.findall(r"<details.*?</details>", shown, re.DOTALL)
    assert "score 0.50 · fires on 1.00% · comment (F1 0.90) · other seed 0.75" in first
    assert "feature 9, with a cosine of 0.75" in first
    assert "<code>\\n</code>, <code>def</code>" in first
    assert "no concept" in second  # an F1 below 0.2 says nothing
    assert "comma" not in second
    assert 'data-arm="aligned"' in third
    assert "://" not in shown  # it works from a file, with no network


def test_without_features_a_sentence_says_so() -> None:
    assert browser({}).startswith("<p>No features of these SAEs are published")


def test_text_of_a_model_cannot_become_markup() -> None:
    shown = browser({"standard": [row(3, None, 0.0, "<script>alert(1)</script>")]})
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown


def test_the_measure_finds_features_evenly_spaced_by_density(place: object) -> None:
    runs = [aligned.run(spec) for spec in aligned.grid(SMALL, seed=[0, 1], d_sae=[64])]
    table = aligned.records(runs, 4096, measure="browser")
    found = table.features[0]
    assert 0 < len(found) <= BROWSED
    density = [of["page"]["density"] for of in found]
    assert density == sorted(density)
    assert len({of["page"]["feature"] for of in found}) == len(found)
    sae, other = (run.sae for run in runs)
    cosines = torch.nn.functional.normalize(sae.W_dec) @ torch.nn.functional.normalize(other.W_dec).T
    for of in found[:5]:
        feature = of["page"]["feature"]
        assert of["page"]["score"] == pytest.approx(alignment_score(sae)[feature].item())
        assert of["nearest"] == cosines[feature].argmax()
        assert of["mcs"] == pytest.approx(cosines[feature].max().item(), abs=1e-3)
        assert len(of["raises"]) == 5
