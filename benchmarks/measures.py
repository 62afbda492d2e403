"""How long each measure takes: at (128, 2048) on a million tokens, and stability up to 65536 features.

    aligned bench measures                    # all; a quarter of an hour on two cores
    aligned bench measures --only concepts scr

Each is measured in a process of its own, with its peak of memory. Activations and labels are random, with as many
active features and concepts as real ones have; the matchings are also measured on two dictionaries that have half of
their features in common, since a matching's time depends on them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from aligned.files import write_json
from aligned.provenance import commit, device
from aligned.sae import SAE

TOKENS, D_IN, D_SAE, K = 1_000_000, 128, 2048, 32
RESULT = Path(__file__).parents[1] / "results" / "measures-cpu.json"


def sae(seed: int = 0, d_in: int = D_IN, d_sae: int = D_SAE) -> SAE:
    return SAE(d_in, d_sae, "topk", K, "projected", seed=seed).requires_grad_(False)


def tokens(count: int = TOKENS) -> torch.Tensor:
    return torch.randn(count, D_IN, generator=torch.Generator().manual_seed(0))


def two_dictionaries(d_in: int, d_sae: int) -> tuple[SAE, SAE]:
    """Half of the second one's features are the first one's, a little turned, in another order."""
    a, b = (SAE(d_in, d_sae, "topk", K, "none", seed=seed).requires_grad_(False) for seed in (0, 1))
    order = torch.randperm(d_sae, generator=torch.Generator().manual_seed(2))[: d_sae // 2]
    noise = torch.randn(len(order), d_in, generator=torch.Generator().manual_seed(3)) * 0.3 / d_in**0.5
    for mine, other in ((a.W_dec, b.W_dec), (a.free, b.free)):
        other[: len(order)] = mine[order] + noise
    return a, b


def scores() -> Callable[[], object]:
    from aligned.alignment import alignment_score
    from aligned.evals.scores import modes

    a, _ = two_dictionaries(D_IN, 65536)
    a.free += torch.randn_like(a.free) / 10
    return lambda: modes(alignment_score(a))


def concepts() -> Callable[[], object]:
    from aligned.evals.meaning import concepts as measure
    from aligned.language.labels import CONCEPTS

    x, generator = tokens(), np.random.default_rng(0)
    words = np.zeros(TOKENS, np.uint64)
    for bit in range(len(CONCEPTS)):  # some five concepts a token, as in Python text
        words |= (generator.random(TOKENS) < 0.08).astype(np.uint64) << np.uint64(bit)
    measure(sae(), x[:4096], words[:4096], CONCEPTS)  # compiles
    return lambda: measure(sae(), x, words, CONCEPTS)


def pages() -> Callable[[], object]:
    from aligned.evals.contexts import pages as measure

    x = tokens().view(-1, 250, D_IN)
    ids = torch.randint(0, 1000, x.shape[:2])
    return lambda: measure(
        sae(), range(128), ids, x, torch.ones_like(ids, dtype=torch.bool), list(map(str, range(1000)))
    )


def scr() -> Callable[[], object]:
    """One pair of attributes: 4000 + 1000 windows of 128 tokens are 640,000 tokens; 6500 + 1300 make a million."""
    from aligned.evals.spurious import Texts, train_probes
    from aligned.evals.spurious import scr as measure

    def texts(count: int) -> Texts:
        a, b = torch.arange(count) % 2 > 0, torch.arange(count) % 4 > 1
        x = tokens(count * 128).view(count, 128, D_IN)
        return Texts(x, torch.ones(count, 128, dtype=torch.bool), a, b)

    train, test = texts(6500), texts(1300)
    probes = train_probes(texts(100), texts(100))
    return lambda: measure(sae(), probes, train, test)


def behaviour() -> Callable[[], object]:
    from aligned.evals.activity import behaviour as measure

    x = tokens()
    return lambda: measure(sae(), x)


def stability(d_sae: int, d_in: int = 768) -> Callable[[], Callable[[], object]]:
    def prepared() -> Callable[[], object]:
        from aligned.evals.matching import stability as measure

        a, b = two_dictionaries(d_in, d_sae)
        return lambda: measure(a, b)

    return prepared


def recovery() -> Callable[[], object]:
    from aligned.evals import recovery as measure
    from aligned.evals.cross_entropy import baselines
    from aligned.language import text
    from aligned.language.model import LanguageModel

    model = LanguageModel("embedded")
    blocks = text.token_blocks(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 256, blocks=TOKENS // 256)
    baselines(model, blocks, 3)  # the same for all SAEs
    return lambda: measure(sae(), model, blocks, 3)


def steering() -> Callable[[], object]:
    """Ten features: what they cost does not depend on a number of tokens read, but on that of tokens written."""
    from aligned.evals.pushes import steering as measure
    from aligned.language import text
    from aligned.language.model import LanguageModel

    model = LanguageModel("embedded")
    blocks = text.token_blocks(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 64, blocks=64)
    return lambda: measure(sae(), model, list(range(10)), ["comma"] * 10, blocks, layer=3)


MEASURES: dict[str, Callable[[], Callable[[], object]]] = {
    "scores, 65536 features": scores,
    "concepts": concepts,
    "pages, 128 features": pages,
    "scr": scr,
    "behaviour": behaviour,
    "recovery": recovery,
    "steering, 10 features": steering,
    "stability, 2048 features": stability(2048, D_IN),
    "stability, 16384 features": stability(16384),
    "stability, 65536 features": stability(65536),
}


def alone(name: str) -> dict[str, object]:
    run = MEASURES[name]()
    start = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row: dict[str, object] = {"measure": name, "seconds": round(seconds, 1), "peak_gib": round(peak, 2)}
    if isinstance(found, dict) and "bound" in found:
        row |= {"bound": found["bound"], "pw_mcc": found["pw_mcc"]}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="measures whose names begin so")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options.alone)))
        return
    chosen = [name for name in MEASURES if not options.only or name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"there is no such measure; there are {', '.join(MEASURES)}")
    known = {row["measure"]: row for row in json.loads(RESULT.read_text())["rows"]} if RESULT.exists() else {}
    for name in chosen:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.measures", "--alone", name], capture_output=True, text=True, check=True
        )
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:32s} {row['seconds']:7.1f} s {row['peak_gib']:6.2f} GiB {row.get('bound', '')}", flush=True)
        known[name] = {**row, "commit": commit(), "device": device(), "cores": os.cpu_count()}
        write_json(
            RESULT, {"tokens": TOKENS, "d_in": D_IN, "d_sae": D_SAE, "rows": [known[n] for n in MEASURES if n in known]}
        )


if __name__ == "__main__":
    main()
