"""How much of a difference between arms comes from the choice of the held-out text?

    aligned bench held_out                      # a few minutes, and the training of 12 SAEs that the store lacks
    aligned bench held_out --model smollm2-135m --sparsities 64 0.06    # a model's own; the record's others stay

The held-out text of the published measure of CE recovered is cut in eight. For each seed, aligned minus standard varies
over the eighths: that gives the standard error of the difference on all of them (paired, since both arms read the same
tokens). It is compared with how much the difference varies between seeds. Where it is under a fifth of that, more text
would hardly make an interval over seeds narrower. Writes `results/held-out.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from aligned.evals.cross_entropy import recoveries
from aligned.files import write_json
from aligned.language.model import EMBEDDED
from aligned.provenance import commit, device
from aligned.report.published import PLANS, Plan
from aligned.report.results import RESULTS
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import run

NAME = "held-out"
SLICES = 8


def chosen(plan: Plan, sparsities: list[float]) -> list[RunSpec]:
    """Standard and aligned SAEs of the plan's grid with these sparsities; without any, those of its features.

    Raises:
        ValueError: a sparsity that the grid does not have, or several of one activation.
    """
    if not sparsities:
        return plan.parts["features"].specs
    grid = [spec for name in ("topk", "relu") for spec in plan.parts[name].specs]
    if unknown := set(sparsities) - {spec.sparsity for spec in grid}:
        raise ValueError(f"the plan has no sparsity {unknown}; it has {sorted({spec.sparsity for spec in grid})}")
    specs = [spec for spec in grid if spec.sparsity in sparsities]
    if len({(spec.activation, spec.sparsity) for spec in specs}) > len({spec.activation for spec in specs}):
        raise ValueError(f"{sparsities} has several sparsities of one activation: give one of each")
    return specs


def measured(specs: list[RunSpec], tokens: int) -> list[dict[str, Any]]:
    """A row for each activation: the text's standard error, and the spread between seeds."""
    first = specs[0]
    lm = runs.language_model(first.model)
    saes = [run(spec).sae for spec in specs]
    found: dict[RunSpec, list[float]] = {spec: [] for spec in specs}
    for part in runs.held_out_blocks(first.model, first.text, first.context, tokens).chunk(SLICES):
        for spec, answer in zip(specs, recoveries(saes, lm, part, outliers=first.outliers)):
            found[spec].append(answer["ce_recovered"])
    rows = []
    for activation in dict.fromkeys(spec.activation for spec in specs):
        arms = {(s.constraint, s.seed): of for s, of in found.items() if s.activation == activation}
        seeds = sorted({seed for _, seed in arms})
        differences = [[a - b for a, b in zip(arms["projected", seed], arms["none", seed])] for seed in seeds]
        error = statistics.fmean(statistics.stdev(of) / SLICES**0.5 for of in differences)
        between = statistics.stdev(map(statistics.fmean, differences))
        sparsity = next(spec.sparsity for spec in specs if spec.activation == activation)
        rows.append({"model": first.model, "activation": activation, "sparsity": sparsity, "tokens": tokens,
                     "error": error, "between_seeds": between, "commit": commit(), "device": device()})  # fmt: skip
        print(f"{activation}: standard error of the text {error:.5f}, spread between seeds {between:.5f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PLANS, default=EMBEDDED)
    parser.add_argument("--sparsities", type=float, nargs="*", default=[], help="one of each activation")
    options = parser.parse_args()
    plan = PLANS[options.model]
    rows = measured(chosen(plan, options.sparsities), plan.quick)
    place = RESULTS / f"{NAME}.json"
    before = json.loads(place.read_text())["rows"] if place.is_file() else []
    others = [row for row in before if row["model"] != options.model]
    write_json(place, {"slices": SLICES, "rows": sorted([*others, *rows], key=lambda row: row["model"])})


if __name__ == "__main__":
    main()
