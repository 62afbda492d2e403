"""Is a quarter of the held-out text enough? The error of a difference between arms that comes from the text.

    aligned bench held_out    # a few minutes, and the training of 12 SAEs if the store does not have them

CE recovered is measured on eight parts of 262,144 tokens. For each seed, aligned minus standard varies over the parts:
that gives the standard error of the difference on all of them (paired, since both arms read the same tokens). It is
compared with how much the difference varies between seeds. Where it is under a fifth of that, more text would hardly
make an interval over seeds narrower. Writes `results/held-out.json`.
"""

from __future__ import annotations

import statistics

from aligned.evals.cross_entropy import recoveries
from aligned.files import write_json
from aligned.provenance import commit, device
from aligned.report.published import PARTS, READ
from aligned.report.results import RESULTS
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import run

NAME = "held-out"
SLICES = 8


def main() -> None:
    specs = PARTS["features"].specs
    first = specs[0]
    blocks = runs.held_out_blocks(first.model, first.text, first.context, READ)
    lm = runs.language_model(first.model)
    found: dict[RunSpec, list[float]] = {spec: [] for spec in specs}
    for part in blocks.chunk(SLICES):
        for spec, answer in zip(specs, recoveries([run(spec).sae for spec in specs], lm, part)):
            found[spec].append(answer["ce_recovered"])
    rows = []
    for activation in dict.fromkeys(spec.activation for spec in specs):
        arms = {(s.constraint, s.seed): of for s, of in found.items() if s.activation == activation}
        seeds = sorted({seed for _, seed in arms})
        differences = [[a - b for a, b in zip(arms["projected", seed], arms["none", seed])] for seed in seeds]
        errors = [statistics.stdev(of) / SLICES**0.5 for of in differences]
        between = statistics.stdev(map(statistics.fmean, differences))
        rows.append({"activation": activation, "error": statistics.fmean(errors), "between_seeds": between})
        print(f"{activation}: standard error of the text {rows[-1]['error']:.5f}, spread between seeds {between:.5f}")
    record = {"tokens": READ, "slices": SLICES, "commit": commit(), "device": device(), "rows": rows}
    write_json(RESULTS / f"{NAME}.json", record)


if __name__ == "__main__":
    main()
