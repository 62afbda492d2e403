"""Measures by name: what their answers hold, and that they are those of `aligned.evals`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aligned
from aligned import evals
from aligned.evals.attributes import PAIRS
from aligned.evals.probing import KS
from tests.conftest import SMALL


def test_stability_is_given_by_raw_and_by_centred_cosines(place: Path) -> None:
    specs = [replace(SMALL, seed=seed) for seed in (0, 1)]
    row = aligned.records(specs, 4096, measure="stability").iloc[0]
    a, b = (aligned.run(spec).sae for spec in specs)
    for suffix, centre in (("", False), ("_centred", True)):
        for measure, value in evals.stability(a, b, centre=centre).items():
            assert row[f"{measure}_all{suffix}"] == value
        start = evals.stability(*(spec.start(a.d_in) for spec in specs), centre=centre)
        assert row[f"pw_mcc_start{suffix}"] == pytest.approx(start["pw_mcc"])
        assert 0 < row[f"pw_mcc_alive{suffix}"] <= 1


def test_probing_is_of_both_attributes_of_every_pair(place: Path) -> None:
    specs = [replace(SMALL, d_sae=128), replace(SMALL, d_sae=12)]
    table = aligned.records(specs, 160, measure="probing")
    row, few = (table.iloc[i] for i in range(2))
    classes = [attribute.name for pair in PAIRS for attribute in pair]
    assert row["attribute"] == [name for name in classes for _ in KS]
    assert list(dict.fromkeys(row["pair"])) == [f"{a.name} / {b.name}" for a, b in PAIRS]
    assert row["k"] == list(KS) * len(classes)
    assert all(0 <= accuracy <= 1 for accuracy in row["accuracy"])
    assert np.mean(row["full"]) > 0.6
    assert set(few["k"]) == {1, 2, 5}  # 16 features are more than there are
    assert few["full"][::3] == row["full"][::4]
