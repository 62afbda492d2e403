"""SCR beside SAEBench's, on the same activations and labels, each with probes of its own training.

    python -m benchmarks.scr_agreement               # five pairs of attributes, five seeds; half an hour on two cores

Both choose the probes' epoch on the test windows, as SAEBench does. Differences come from the probes' random starts and
orders alone, so they are set against the spread over those. With the same probes the scores are the same to rounding:
`tests/test_scr.py` asserts that.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

import pandas as pd
import torch

import aligned
from aligned import text
from aligned.checkpoint import write_json
from aligned.evals.attributes import pairs
from aligned.evals.scr import ABLATED, scr, train_probes
from aligned.labels import labelled_windows
from aligned.model import LanguageModel
from aligned.provenance import commit
from tests.peer import by_saebench

RESULT = Path(__file__).parents[1] / "results" / "scr-agreement.json"
SPEC = aligned.RunSpec(sparsity=16, constraint="none", lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="trainings of the probes")
    seeds = parser.parse_args().seeds
    run, model = aligned.run(SPEC), LanguageModel(SPEC.model)
    windows = labelled_windows(text.documents(SPEC.text, "held_out"), model.tokenizer)
    rows = []
    for pair in pairs(model, SPEC.layer, windows, epoch_on_test=True):
        for seed in range(seeds):
            found = scr(run.sae, train_probes(pair.train, pair.test, seed), pair.train, pair.test)
            rows += [("ours", pair.name, seed, row.n, row.scr) for row in found[found.harder].itertuples()]
            torch.manual_seed(seed)
            with contextlib.redirect_stdout(io.StringIO()):
                _, theirs = by_saebench(run.sae, pair.train, pair.test, pair.test, list(ABLATED), epochs=20)
            rows += [("SAEBench", pair.name, seed, n, theirs[f"scr_metric_threshold_{n}"]) for n in ABLATED]
        table = pd.DataFrame(rows, columns=["by", "pair", "seed", "n", "scr"])
        print(
            table[table.pair == pair.name].groupby(["n", "by"]).scr.agg(["mean", "std"]).unstack().round(3), flush=True
        )
        write_json(RESULT, {"commit": commit(), "spec": SPEC.name, "rows": table.to_dict("records")})


if __name__ == "__main__":
    main()
