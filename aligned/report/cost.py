"""What a training step costs, and what the presets do: tables from the record that `benchmarks/speed.py` writes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligned.checks import said
from aligned.methods import METHODS
from aligned.report.results import RESULTS, precision, published
from aligned.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

D_IN = {  # of those that a preset names, so that no model is loaded
    "embedded": 128,
    "smollm2-135m": 576,
    "gemma-3-270m": 640,
    "EleutherAI/pythia-160m": 768,
    "google/gemma-2-2b": 2304,
}


def record(name: str) -> dict[str, Any]:
    """A record of the benchmark, by its name under `results/` or its path.

    Raises:
        FileNotFoundError: there is none; says how to make one.
        ValueError: a file that is none; names it.
    """
    for place in (Path(name), RESULTS / f"{name}.json"):
        if place.is_file():
            try:
                found = json.loads(place.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{place} is no record: it is not JSON ({error})") from error
            if not isinstance(found, dict):
                raise ValueError(f"{place} is no record: it holds {said(found)}, and an object {{...}} is needed")
            return found
    raise FileNotFoundError(f"no record {name} here or in {RESULTS}; `aligned bench speed` makes one")


def speed_ups(record: dict[str, Any]) -> pd.DataFrame:
    """For each shape and activation: the aligned arm's milliseconds a step and tokens/s, and how many times longer the
    peers' step takes: SAELens as it comes and at its fastest options, `dictionary_learning` as it comes and under bf16
    autocast. NaN where a peer failed.

    Raises:
        ValueError: the record is not one of the speed of training steps.
    """
    import pandas as pd

    rows = pd.DataFrame(record.get("rows", []))
    if missing := {"shape", "activation", "arm", "seconds"} - set(rows):
        raise ValueError(
            f"this record has no {', '.join(sorted(missing))}, so it is not one of training steps; give one that "
            "`aligned bench speed` made, such as cost-cpu"
        )
    seconds = rows[~rows.arm.str.contains(r"\+")].set_index(["shape", "activation", "arm"]).seconds
    seconds = seconds.unstack().reindex(rows[["shape", "activation"]].drop_duplicates().itertuples(index=False))
    peers = ["SAELens", "dictionary_learning", "dictionary_learning, autocast"]
    seconds = seconds.reindex(columns=seconds.columns.union(peers))
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
    """How much longer an aligned step takes than a step of another arm, the two being timed in turns: `cost`, the
    median over pairs of steps of (ratio - 1), with its 95 % interval `low`, `high` (from order statistics)."""
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


def taken() -> pd.DataFrame:
    """What the training of the published SAEs took, by their own records: one row for each combination of language
    model, activation, budget of tokens and precision, with the seconds that one SAE took (median, least and most). They
    ran beside other work, and on several machines, so that the least is the nearest to what a quiet one takes."""
    import pandas as pd

    rows = [
        {
            "model": spec.model,
            "activation": spec.activation,
            "width": spec.d_sae,
            "M tokens": round(spec.tokens / 1e6),
            "precision": precision(made["provenance"]),
            "seconds": made["provenance"]["seconds"],
        }
        for spec, made in published().items()
    ]
    table = pd.DataFrame(rows)
    by = [column for column in table if column != "seconds"]
    return table.groupby(by).seconds.agg(SAEs="count", median="median", least="min", most="max").round()


def reading() -> pd.DataFrame:
    """How fast each language model reads: its activations for training, and CE recovered on 65,536 held-out tokens, by
    the record of `benchmarks/residuals.py`."""
    import pandas as pd

    rows = pd.DataFrame(record("residuals")["rows"]).set_index("model")
    to_measure = 65_536 / rows.tokens / 60
    return pd.DataFrame(
        {
            "layer": rows.layer,
            "tokens/s": rows.tokens_per_second,
            "minutes a million tokens": (1e6 / rows.tokens_per_second / 60).round(1),
            "minutes CE recovered, first SAE": (to_measure * rows.recovery_seconds_first).round(1),
            "each other SAE": (to_measure * rows.recovery_seconds_each).round(1),
            "peak GB": rows.peak_gb,
            "precision": rows.precision,
            "threads": rows.threads,
            "device": rows.device,
        }
    )


def in_about(specs: Sequence[RunSpec]) -> str:
    """In about what time two cores train these SAEs: by `cost-cpu`, and by what the published
    SAEs of the same language model took, if that is longer. Of a language model that no preset names this is not
    known."""
    if (model := specs[0].model) not in D_IN:
        return f" (how long that takes is not known of {model}; a line says it when training begins)"
    by_record = round(60 * training(record("cost-cpu"), list(specs), D_IN[model])["hours"])
    by_published = round(_as_published(specs, model) / 60 / CORES)
    about = _spanned(by_record, max(by_record, by_published))
    return f", in about {about} on two cores"


def measuring(model: str, recovered: Collection[tuple[RunSpec, int]], others: bool) -> str:
    """In about what time CE recovered is measured, by the record `residuals` of one core; "" where nothing is measured.

    Args:
        model: the language model.
        recovered: SAEs, each with the number of tokens.
        others: whether other measures are taken, too, whose time is not told.
    """
    by = {row["model"]: row for row in record("residuals")["rows"]}.get(model)
    parts = []
    if recovered and by:
        first = max(tokens for _, tokens in recovered) * (by["recovery_seconds_first"] - by["recovery_seconds_each"])
        each = sum(tokens for _, tokens in recovered) * by["recovery_seconds_each"]
        about = round((first + each) / by["tokens"] / 60)
        parts.append(
            f"CE recovered of {len({spec for spec, _ in recovered})} takes about {_spanned(about, about)} more"
        )
    elif recovered:
        parts.append(f"how long CE recovered takes then is not known of {model}")
    if others:
        parts.append("other measures come on top (page 'Cost')")
    return f"; {', and '.join(parts)}" if parts else ""


CORES = 2


def _as_published(specs: Sequence[RunSpec], model: str) -> float:
    """Seconds on one core, by the median of the published SAEs of this language model; 0 if there are none."""
    each = [
        made["provenance"]["seconds"] / (spec.tokens * spec.d_sae)
        for spec, made in published().items()
        if spec.model == model
    ]
    return statistics.median(each) * sum(spec.tokens * spec.d_sae for spec in specs) if each else 0.0


def _spanned(low: int, high: int) -> str:
    """A time in minutes, or in hours if it is long; both ends if they differ by more than a fifth."""
    if high <= 1:
        return "a minute"
    unit, by = ("hours", 60) if high >= 120 else ("minutes", 1)
    ends = [f"{end / by:.0f}" for end in (low, high)]
    return f"{high / by:,.0f} {unit}" if high <= 1.2 * low or ends[0] == ends[1] else f"{ends[0]} to {ends[1]} {unit}"


def training(record: dict[str, Any], specs: list[RunSpec], d_in: int) -> dict[str, float]:
    """What it takes to train some SAEs from nothing, by a record of the benchmark: `SAEs`, `hours` on the record's
    machine, `memory GB` (the largest SAE's peak), `disk GB` (weights, and the activations in bf16). For shapes that
    were not measured, the cost of a step is taken to be linear in d_in d_sae."""
    import numpy as np

    def at(activation: str, size: int, what: str) -> float:
        like = METHODS[activation].costs_like
        rows = [r for r in record["rows"] if r["arm"] == "aligned" and r["activation"] == like]
        sizes, costs = zip(*sorted((r["d_in"] * r["d_sae"], r[what]) for r in rows))
        if size <= sizes[-1]:
            return float(np.interp(size, sizes, costs))
        slope = (costs[-1] - costs[-2]) / (sizes[-1] - sizes[-2])
        return float(costs[-1] + slope * (size - sizes[-1]))

    shapes = [(spec.activation, d_in * spec.d_sae) for spec in specs]
    pools = {(s.model, s.layer, s.text, s.context, s.tokens) for s in specs}
    seconds = sum(s.steps * at(*shape, "seconds") * s.batch / record["batch"] for s, shape in zip(specs, shapes))
    weights = sum(8 * size for _, size in shapes)  # two matrices of float32
    return {
        "SAEs": len(specs),
        "hours": seconds / 3600,
        "memory GB": max(at(*shape, "peak_gb") for shape in shapes),
        "disk GB": (weights + sum(2 * d_in * tokens for *_, tokens in pools)) / 1e9,
    }


def presets(record: dict[str, Any], names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`training` for every preset, all its pages together; and the hours for every page alone."""
    import pandas as pd

    from aligned.report.parameters import NOTEBOOKS, parameters, preset
    from aligned.report.wanted import asked

    pages = {page: parameters(page) for page in sorted(NOTEBOOKS.glob("*.ipynb"))}
    pages = {page: known for page, known in pages.items() if "use_published" in known}
    whole, each = {}, {}
    for name in names:
        given = {page: known | preset(name, page) for page, known in pages.items()}
        d_in = D_IN[next(iter(given.values()))["model"]]
        specs = {page.stem: asked(page.stem, p) for page, p in given.items()}
        whole[name] = training(record, list(dict.fromkeys(s for of in specs.values() for s in of)), d_in)
        each[name] = {page: training(record, of, d_in)["hours"] for page, of in specs.items()}
    return pd.DataFrame(whole).T, pd.DataFrame(each)
