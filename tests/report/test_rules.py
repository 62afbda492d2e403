"""How often the rules err, on simulated records: a small version of `benchmarks/rules.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aligned.report.scorecard import CLAIMS
from benchmarks.rules import RULES, simulate


def test_every_claim_has_its_simulation() -> None:
    assert list(RULES) == list(CLAIMS)


@pytest.mark.parametrize("claim", RULES)
def test_a_rule_is_seldom_wrong_and_sees_what_is_large(claim: str) -> None:
    """40 draws of which 5 % may be wrong: 8 or more in one setting would be one chance in thousands."""
    rows = list(simulate([claim], 40, (0.01,)))
    assert all(row["wrong"] < 8 for row in rows)
    assert sum(row["wrong"] for row in rows) <= 0.05 * sum(row["draws"] for row in rows)
    assert all(row["not testable here"] == 0 for row in rows)
    alike = simulate([claim], 10, (0.001,))  # seeds that hardly differ
    assert any(row["undecided"] < row["draws"] / 2 for row in alike)


def test_help_says_what_is_simulated_and_simulates_nothing() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.rules", "--help"], capture_output=True, text=True, check=True
    )
    assert "smallest of interest" in told.stdout
