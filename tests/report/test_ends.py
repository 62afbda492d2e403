"""The differences at both ends of the range of L0, on records whose answer is known."""

from __future__ import annotations

import pandas as pd

from aligned.report.ends import at_both_ends


def test_both_ends_have_the_difference_that_the_records_have_there() -> None:
    rows = [
        {"constraint": arm, "seed": seed, "l0": l0, "alive": 0.5 + seed / 100 + (gain if arm == "projected" else 0)}
        for arm in ("none", "projected")
        for seed in range(3)
        for l0, gain in ((8.0, 0.1), (64.0, -0.2))
    ]
    both = pd.DataFrame(rows)
    few = both[both.l0 == 8]
    found = at_both_ends({"topk": both, "relu": few}, "alive", ("none", "projected"))
    topk, relu = found.splitlines()
    assert topk.startswith("- topk: +0.1000 [")
    assert " at an L0 of 8.0, -0.2000 [" in topk
    assert topk.endswith("at 64.0")
    assert relu.startswith("- relu: ")
    assert "sparsities" in relu
