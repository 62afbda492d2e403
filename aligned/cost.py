"""What a training step costs: tables from the record that `benchmarks/speed.py` writes."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligned.results import RESULTS

if TYPE_CHECKING:
    import pandas as pd


def record(name: str) -> dict[str, Any]:
    """A record of the benchmark, by its name under `results/` or its path.

    Raises:
        FileNotFoundError: there is none; says how to make one.
    """
    for place in (Path(name), RESULTS / f"{name}.json"):
        if place.is_file():
            return json.loads(place.read_text())
    raise FileNotFoundError(f"no record {name} here or in {RESULTS}; `python -m benchmarks.speed` makes one")


def speed_ups(record: dict[str, Any]) -> pd.DataFrame:
    """For each shape and activation: the aligned arm's milliseconds a step and tokens/s, and how many times longer the
    peers' step takes: SAELens as it comes and at its fastest options, `dictionary_learning` as it comes and under bf16
    autocast. NaN where a peer failed."""
    import pandas as pd

    rows = pd.DataFrame(record["rows"])
    seconds = rows[~rows.arm.str.contains(r"\+")].set_index(["shape", "activation", "arm"]).seconds
    seconds = seconds.unstack().reindex(rows[["shape", "activation"]].drop_duplicates().itertuples(index=False))
    saelens = seconds[[arm for arm in seconds if arm.startswith("SAELens")]]
    return pd.DataFrame(
        {
            "ms/step": 1000 * seconds.aligned,
            "tokens/s": record["batch"] / seconds.aligned,
            "SAELens ×": seconds["SAELens"] / seconds.aligned,
            "fastest ×": saelens.min(axis=1) / seconds.aligned,
            "dictionary_ learning ×": seconds["dictionary_learning"] / seconds.aligned,
            "bf16 ×": seconds["dictionary_learning, autocast"] / seconds.aligned,
        }
    )


def in_turns(record: dict[str, Any], other: str) -> pd.DataFrame:
    """How much longer an aligned step takes than one of another arm that took turns with it: `cost`, the median over
    pairs of steps of (ratio - 1), with its 95 % interval `low`, `high` (from order statistics)."""
    import pandas as pd
    from scipy import stats

    found = []
    for row in record["rows"]:
        if other in row.get("turns", {}):
            ratios = [a / b - 1 for a, b in zip(row["turns"]["aligned"], row["turns"][other])]
            low, high = stats.quantile_test(ratios, p=0.5).confidence_interval()
            median = statistics.median(ratios)
            found.append((row["shape"], row["activation"], median, low, high, len(ratios)))
    return pd.DataFrame(found, columns=["shape", "activation", "cost", "low", "high", "pairs"])
