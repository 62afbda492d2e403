"""Measures by name: what their answers hold, and that they are those of `aligned.evals`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import aligned
from aligned import evals
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
