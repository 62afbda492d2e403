"""Records of two arms whose differences are known."""

from __future__ import annotations

import pandas as pd

LESS, MORE = (-0.020, -0.021, -0.022), (0.010, 0.011, 0.012)


def of_arms(
    *gains: float, activation: str = "topk", alive: tuple[float, ...] = (0.0, 0.0, 0.0), arm: str = "projected"
) -> pd.DataFrame:
    """A standard SAE and an aligned one for each seed, at two values of L0; the aligned ones have these gains."""
    rows = [
        {"activation": activation, "constraint": of, "seed": seed, "l0": l0}
        | {"ce_recovered": 0.9 + (gain if of == arm else 0), "alive": 0.5 + (more if of == arm else 0)}
        for seed, (gain, more) in enumerate(zip(gains, alive))
        for of in ("none", arm)
        for l0 in (8.0, 64.0)
    ]
    return pd.DataFrame(rows)
