"""What the activations of each language model are like, and how many features should die of it.

    aligned bench residuals                  # the embedded model; and of those that `make real` installs
    aligned bench residuals gemma-3-270m     # one of them; the others' rows stay

On held-out text, at the layer of the plan (`aligned.report.published`): the mean's share of the activations' square,
with the outliers (norms above ten times the median) and without; gamma; and the share of features at random directions
that arXiv 2605.31518 expects to be dead (`aligned.evals.onset`). And what the model costs (run it on a quiet machine):
how many tokens it reads in a second, up to that layer, as for a pool; and how long CE recovered takes on this text, of
the first SAE, for which the model's own losses are computed, and of each SAE after it. Writes `results/residuals.json`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from aligned.evals.cross_entropy import recovery
from aligned.evals.onset import expected_dead, gamma, mean_share
from aligned.files import write_json
from aligned.language.activations import OUTLIER
from aligned.language.model import LanguageModel
from aligned.precision import autocast, precision
from aligned.provenance import commit, device
from aligned.report.published import PLANS
from aligned.report.results import RESULTS
from aligned.sae import SAE
from aligned.store import runs

PLACE = RESULTS / "residuals.json"
TOKENS = 16_384
K = 16
TIMED = 16  # blocks


def tokens_per_second(lm: LanguageModel, layer: int, blocks: Tensor) -> float:
    with autocast(lm.device):
        lm.residual(blocks[:8], layer)  # the first blocks also warm up
        started = time.perf_counter()
        for part in blocks[:TIMED].split(8):
            lm.residual(part, layer).cpu()
    return blocks[:TIMED].numel() / (time.perf_counter() - started)


def recovery_seconds(lm: LanguageModel, layer: int, blocks: Tensor, d_in: int, d_sae: int) -> tuple[float, float]:
    """Of an untrained SAE, first without and then with the model's own losses in the store."""
    took = []
    with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, ALIGNED_STORE=empty):
        for seed in (0, 1):
            sae = SAE(d_in, d_sae, "topk", K, "projected", seed=seed).requires_grad_(False)
            started = time.perf_counter()
            recovery(sae, lm, blocks, layer)
            took.append(time.perf_counter() - started)
    return took[0], took[1]


def measured(model: str) -> dict[str, Any]:
    spec = PLANS[model].specs[0]
    lm = runs.language_model(model)
    blocks = runs.held_out_blocks(model, spec.text, spec.context, TOKENS)
    x = torch.cat([lm.residual(part, spec.layer).cpu() for part in blocks.split(8)])[~lm.is_special(blocks).cpu()]
    norms = x.norm(dim=1)
    usual = norms <= OUTLIER * norms.median()
    of = gamma(x[usual])
    square = norms.double().square()
    first, each = recovery_seconds(lm, spec.layer, blocks, x.shape[1], spec.d_sae)
    return {
        "model": model,
        "layer": spec.layer,
        "d_in": x.shape[1],
        "d_sae": spec.d_sae,
        "tokens": len(x),
        "outliers": int((~usual).sum()),
        "greatest_norm": (norms.max() / norms.median()).item(),  # in medians
        "outliers_share": (square[~usual].sum() / square.sum()).item(),
        "mean_share": mean_share(x),
        "mean_share_usual": mean_share(x[usual]),
        "gamma": of,
        "expected_dead_relu": expected_dead(of, spec.d_sae, n=len(x)),
        "expected_dead_topk": expected_dead(of, spec.d_sae, K, n=len(x)),
        "k": K,
        "tokens_per_second": round(tokens_per_second(lm, spec.layer, blocks)),
        "recovery_seconds_first": round(first, 1),
        "recovery_seconds_each": round(each, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),  # of the process so far
        "precision": precision(lm.device),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "device": device(),
    }


def main(models: list[str]) -> None:
    rows = {row["model"]: row for row in json.loads(PLACE.read_text())["rows"]} if PLACE.exists() else {}
    for model in models or PLANS:
        rows[model] = measured(model)
        print(rows[model], flush=True)
        write_json(PLACE, {"rows": list(rows.values())})


if __name__ == "__main__":
    main(sys.argv[1:])
