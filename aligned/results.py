"""Records: one row a run, measured now or published before.

`results/` holds the records of the published runs, one JSON object a line: spec, metrics, provenance. A figure that
asks for specs which are all there is drawn in seconds, from them; what its parameters make missing is trained.

    python -m aligned.results    # writes the records of every measured run in the store to results/
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligned import checkpoint, runs
from aligned.activations import store
from aligned.evals import recovery
from aligned.runs import Run
from aligned.spec import RunSpec
from aligned.sweeps import sweep

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path(__file__).parents[1] / "results"


def records(asked: Iterable[Run | RunSpec], eval_tokens: int, use_published: bool = True) -> pd.DataFrame:
    """One row a run: its spec's fields, its alignment scores and `recovery` on that many held-out tokens.

    A spec may stand for its run: then its published record (`results/`) is used if there is one and `use_published`
    allows it, and nothing is trained; what is not there is swept first. Evaluations are cached in the runs' folders.
    The table's `attrs["provenance"]` says what made each row, and `attrs["published"]` how many are published records.
    """
    import pandas as pd
    from tqdm import tqdm

    if not isinstance(eval_tokens, int) or eval_tokens < 1:
        raise ValueError(f"eval_tokens is {eval_tokens!r}; it is a whole number of at least 1")
    key = f"recovery, {eval_tokens} tokens of held-out text"
    asked = list(asked)
    found = {r.spec: r for r in asked if isinstance(r, Run)}
    specs = [r.spec if isinstance(r, Run) else r for r in asked]
    known = {s: r for s, r in published().items() if use_published and s not in found and key in r["metrics"]}
    found |= {r.spec: r for r in sweep([spec for spec in specs if spec not in found and spec not in known])}
    new = any(key not in run.metrics for run in found.values())
    rows, made = [], []
    for spec in tqdm(specs, desc="evaluating", unit="run") if new else specs:
        record = known[spec] if spec in known else _measured(found[spec], key, eval_tokens)
        rows.append({**record["metrics"][key], **record["metrics"]["alignment"], **asdict(spec)})
        made.append(record["provenance"])
    table = pd.DataFrame(rows)
    table.attrs = {"provenance": made, "published": sum(spec in known for spec in specs)}
    return table


def published() -> dict[RunSpec, dict[str, Any]]:
    """The published records: spec, metrics, provenance."""
    lines = [line for place in sorted(RESULTS.glob("*.jsonl")) for line in place.read_text().splitlines()]
    return {RunSpec(**record["spec"]): record for record in map(json.loads, lines)}


def publish() -> int:
    """Write the records of every measured run in the store to `results/<model>-layer<layer>.jsonl`, beside those that
    are there; runs of code that was not committed are left out. Returns how many there are now."""
    known = published()
    for place in sorted(store().glob("*/metrics.json")):
        run = runs.finished(RunSpec(**json.loads((place.parent / "spec.json").read_text())))
        if run is None or len(run.metrics) < 2:
            continue
        if run.provenance["dirty"] or run.provenance["commit"] is None:
            print(f"left out, since its code was not committed: {run.spec.name}")
            continue
        known[run.spec] = _record(run)
    lines: dict[str, list[str]] = {}
    for spec in sorted(known, key=lambda spec: spec.name):
        file = f"{Path(spec.model).name}-layer{spec.layer}.jsonl"
        lines.setdefault(file, []).append(json.dumps(known[spec]) + "\n")
    for file, text in lines.items():
        checkpoint.write_text(RESULTS / file, "".join(text))
    return len(known)


def _record(run: Run) -> dict[str, Any]:
    made = {k: v for k, v in run.provenance.items() if k != "checksums"}
    return {"spec": asdict(run.spec), "metrics": run.metrics, "provenance": made}


def _measured(run: Run, key: str, eval_tokens: int) -> dict[str, Any]:
    """The run's record, with `recovery` and the alignment scores in it."""
    measured = run.evaluated(key, lambda: _recovery(run, eval_tokens))
    record = _record(run)
    record["metrics"] |= {key: measured, "alignment": run.scores}
    return record


def _recovery(run: Run, eval_tokens: int) -> dict[str, float]:
    spec, model = run.spec, runs.language_model(run.spec.model)
    if model.fingerprint != run.provenance["model_fingerprint"]:
        raise ValueError(
            f"{spec.name} was trained on other weights than {spec.model} has now: "
            f"`python -m aligned.runs remove {spec.name}`, and it is trained again"
        )
    return recovery(run.sae, model, runs.held_out_blocks(spec.model, spec.text, spec.context, eval_tokens))


def provenance(table: pd.DataFrame) -> str:
    """What a page says under its figure, in Markdown: which model and text, how many tokens, made by what.

    Args:
        table: from `records`.
    """
    made, published = table.attrs["provenance"], table.attrs["published"]
    trained_on = [f"{t // b * b:,}" for t, b in zip(table.tokens, table.batch)]
    source = f"the published records of {published} SAEs" if published else "runs in the store"
    if 0 < published < len(table):
        source += f", and {len(table) - published} runs in the store"
    return "\n".join(
        (
            f"- language model: {_all(table.model)}, layer {_all(table.layer)}, "
            f"weights {_all(m['model_fingerprint'] for m in made)}",
            f"- SAEs: {len(table)}, width {_all(table.d_sae)}, {_all(trained_on)} tokens of {_all(table.text)} each",
            f"- drawn from {source}{'; nothing was trained for this page' if published == len(table) else ''}",
            f"- trained on: {_all(m['device'] for m in made)}, {_all(m['threads'] for m in made)} threads a run, "
            f"{sum(m['seconds'] for m in made) / 60:.0f} minutes in all",
            f"- commit: {_all(str(m['commit'])[:10] for m in made)}",
            f"- versions: {_all(', '.join(f'{k} {v}' for k, v in m['versions'].items()) for m in made)}",
        )
    )


def _all(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(v) for v in values}))


if __name__ == "__main__":
    print(f"{publish()} records in {RESULTS}")
