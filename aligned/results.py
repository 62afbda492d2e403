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


def records(asked: Iterable[Run | RunSpec], eval_tokens: int) -> pd.DataFrame:
    """One row a run: its spec's fields, its alignment scores and `recovery` on that many held-out tokens.

    A spec may stand for its run: then the published record is used if there is one (`results/`), and nothing is
    trained; what is not there is swept first. The table's `attrs["provenance"]` says what made each row, and
    `attrs["published"]` how many were taken from records. Evaluations are cached in the run's folder.
    """
    import pandas as pd
    from tqdm import tqdm

    asked = list(asked)
    key = f"recovery, {eval_tokens} tokens of held-out text"
    known = published()
    ready = {
        r.name: known[r.name]
        for r in asked
        if isinstance(r, RunSpec) and key in known.get(r.name, {"metrics": ()})["metrics"]
    }
    here = iter(sweep([r for r in asked if isinstance(r, RunSpec) and r.name not in ready]))
    opened = [r if isinstance(r, Run) else None if r.name in ready else next(here) for r in asked]
    rows, made = [], []
    for wanted, r in zip(
        asked, tqdm(opened, desc="evaluating", disable=all(r is None or key in r.metrics for r in opened))
    ):
        if r is None:
            record = ready[wanted.name]  # type: ignore[union-attr]  # a spec, where there is no run
            rows.append({**record["metrics"][key], **record["metrics"]["alignment"], **record["spec"]})
            made.append(record["provenance"])
        else:
            measured = r.evaluated(key, lambda r=r: _recovery(r, eval_tokens))
            rows.append({**measured, **r.scores, **asdict(r.spec)})
            made.append(r.provenance)
    table = pd.DataFrame(rows)
    table.attrs = {"provenance": made, "published": len(ready)}
    return table


def published() -> dict[str, dict[str, Any]]:
    """The published records, by the name of their run."""
    lines = [line for place in sorted(RESULTS.glob("*.jsonl")) for line in place.read_text().splitlines()]
    return {record["name"]: record for record in map(json.loads, lines)}


def publish() -> int:
    """Write the records of every measured run in the store to `results/<model>-layer<layer>.jsonl`, beside those that
    are there. Returns how many there are now."""
    known = published()
    for place in sorted(store().glob("*/metrics.json")):
        spec = RunSpec(**json.loads((place.parent / "spec.json").read_text()))
        run = runs.finished(spec)
        if run is not None and len(run.metrics) > 1:
            made = {k: v for k, v in run.provenance.items() if k != "checksums"}
            known[spec.name] = {"name": spec.name, "spec": asdict(spec), "metrics": run.metrics, "provenance": made}
    by_file: dict[str, list[str]] = {}
    for name in sorted(known):
        spec = known[name]["spec"]
        file = f"{Path(spec['model']).name}-layer{spec['layer']}.jsonl"
        by_file.setdefault(file, []).append(json.dumps(known[name], sort_keys=True))
    for file, lines in by_file.items():
        checkpoint.write_text(RESULTS / file, "\n".join(lines) + "\n")
    return len(known)


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


def _recovery(run: Run, eval_tokens: int) -> dict[str, float]:
    spec = run.spec
    return recovery(
        run.sae,
        runs.language_model(spec.model),
        runs.held_out_blocks(spec.model, spec.text, spec.context, eval_tokens),
    )


if __name__ == "__main__":
    print(f"{publish()} records in {RESULTS}")
