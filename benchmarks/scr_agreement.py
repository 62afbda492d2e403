"""SCR beside SAEBench's, on the same activations and labels, each with probes of its own training.

    aligned bench scr_agreement               # five pairs of attributes, five seeds; half an hour on two cores
    aligned bench scr_agreement --pairs 4     # the last of them anew; the record's other rows stay

Both choose the probes' epoch on the test windows, as SAEBench does. Differences come from the probes' random starts and
orders alone, so they are set against the spread over those. With the same probes the scores are the same to rounding:
`tests/evals/test_spurious.py` asserts that.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from pathlib import Path

import pandas as pd
import torch

import aligned
from aligned.evals.attributes import PAIRS, pairs
from aligned.evals.spurious import ABLATED, scr, train_probes
from aligned.files import write_json
from aligned.language import text
from aligned.language.labels import labelled_windows
from aligned.language.model import LanguageModel
from aligned.provenance import commit
from tests.peer import by_saebench

RESULT = Path(__file__).parents[1] / "results" / "scr-agreement.json"
SPEC = aligned.RunSpec(sparsity=16, constraint="none", lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="trainings of the probes")
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=range(len(PAIRS)), help="numbers of pairs of attributes"
    )
    options = parser.parse_args()
    run, model = aligned.run(SPEC), LanguageModel(SPEC.model)
    windows = labelled_windows(text.documents(SPEC.text, "held_out"), model.tokenizer)
    chosen = [PAIRS[i] for i in options.pairs]
    for pair in pairs(model, SPEC.layer, windows, chosen, epoch_on_test=True):
        rows = []
        for seed in range(options.seeds):
            found = scr(run.sae, train_probes(pair.train, pair.test, seed), pair.train, pair.test)
            rows += [("ours", pair.name, seed, row.n, row.scr) for row in found[found.harder].itertuples()]
            torch.manual_seed(seed)
            with contextlib.redirect_stdout(io.StringIO()):
                _, theirs = by_saebench(run.sae, pair.train, pair.test, pair.test, list(ABLATED), epochs=20)
            rows += [("SAEBench", pair.name, seed, n, theirs[f"scr_metric_threshold_{n}"]) for n in ABLATED]
        table = pd.DataFrame(rows, columns=["by", "pair", "seed", "n", "scr"]).assign(commit=commit())
        print(table.groupby(["n", "by"]).scr.agg(["mean", "std"]).unstack().round(3), flush=True)
        before = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
        others = [row for row in before if row["pair"] != pair.name]
        write_json(RESULT, {"spec": SPEC.name, "rows": others + table.to_dict("records")})


if __name__ == "__main__":
    main()
