"""What is measured of runs, by name. `aligned.records` keeps each result in its run's folder, and publishes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from aligned import evals, runs, text
from aligned.alignment import alignment_score
from aligned.evals.attributes import pairs
from aligned.evals.codes import codes
from aligned.evals.scr import ABLATED
from aligned.evals.stability import max_cosine
from aligned.held_out import HeldOut, held_out
from aligned.labels import labelled_windows
from aligned.runs import Run
from aligned.spec import RunSpec
from aligned.train import SCORES

Row = dict[str, Any]
Together = Sequence[tuple[Run, ...]]


@dataclass(frozen=True)
class Measure:
    """A question to runs, all of one language model, layer and text.

    Attributes:
        of: from runs and a size to an answer for each, in their order; where `seeds` is 2, from pairs of runs that
            differ in their seeds alone.
        unit: of the size; none, where the answer does not depend on text.
        seeds: runs that one answer is about, 1 or 2.
    """

    of: Callable[[Together, int], Iterator[Row]]
    unit: str = ""
    seeds: int = 1

    def key(self, name: str, size: int, specs: tuple[RunSpec, ...]) -> str:
        """Under what the answer stands in the first run's `metrics.json`."""
        other = "".join(f" with seed {spec.seed}" for spec in specs[1:])
        return f"{name}{other}" + (f", {size} {self.unit}" if self.unit else "")


def recovery(together: Together, tokens: int) -> Iterator[Row]:
    """`evals.recovery`."""
    for (run,) in together:
        spec = run.spec
        blocks = runs.held_out_blocks(spec.model, spec.text, spec.context, tokens)
        yield evals.recovery(run.sae, runs.language_model(spec.model), blocks)


def scores(together: Together, _: int) -> Iterator[Row]:
    """The shape of the alignment scores (`evals.modes`), their `histogram` (shares, in the bins of
    `aligned.train.SCORES`), and the training log: `log_tokens`, `log_dead` and `log_scores` (counts)."""
    bins, low, high = SCORES
    for (run,) in together:
        a = alignment_score(run.sae).detach()
        log = run.log
        yield {
            **evals.modes(a),
            "histogram": (torch.histc(a.clamp(low, high), bins, low, high) / len(a)).tolist(),
            "log_tokens": log.tokens.tolist(),
            "log_dead": log.dead.tolist(),
            "log_scores": [[int(count) for count in row.split()] for row in log.scores],
        }


def behaviour(together: Together, tokens: int) -> Iterator[Row]:
    """`evals.behaviour`."""
    for (run,) in together:
        yield evals.behaviour(run.sae, _read(run.spec, tokens).kept[0])


def stability(together: Together, tokens: int) -> Iterator[Row]:
    """`evals.stability` of two seeds: over `all` features, over those `alive` on the text, and at initialisation
    (`start`)."""
    fires: dict[RunSpec, Bool[Tensor, " d_sae"]] = {}
    for pair in together:
        for run in pair:
            if run.spec not in fires:
                x = _read(run.spec, tokens).kept[0]
                fires[run.spec] = torch.from_numpy(codes(run.sae, x).sum(0) > 0)
        (a, b), (alive_a, alive_b) = (run.sae for run in pair), (fires[run.spec] for run in pair)
        found = {
            "all": evals.stability(a, b),
            "alive": evals.stability(a, b, (alive_a, alive_b)),
            "start": evals.stability(*(run.spec.start(a.d_in) for run in pair)),
        }
        yield {f"{measure}_{of}": value for of, row in found.items() for measure, value in row.items()}


def features(together: Together, tokens: int) -> Iterator[Row]:
    """Of every feature of the first of two seeds: alignment `score`, `mcs` with the other seed's features, `f1` on its
    `concept`, and the `density` of its activity; to four digits. And how good the dictionary is on the whole."""
    for run, other in together:
        read = _read(run.spec, tokens)
        table = evals.concepts(run.sae, *read.kept, read.names)
        mcs = max_cosine(run.sae.W_dec, other.sae.W_dec)
        alive = table.density > 0
        yield {
            "score": _short(alignment_score(run.sae)),
            "mcs": _short(mcs),
            "f1": _short(torch.from_numpy(table.f1.to_numpy())),
            "density": _short(torch.from_numpy(table.density.to_numpy())),
            "concept": [read.names.index(c) if c else -1 for c in table.concept],
            "f1_mean": float(table.f1[alive].mean()),
            "f1_chance": float(table.chance[alive].mean()),
            "f1_over_half": float((table.f1 > 0.5).mean()),
            "concepts_found": int(table.concept[table.f1 > 0.5].nunique()),
        }


def scr(together: Together, windows: int) -> Iterator[Row]:
    """`evals.scr` on every pair of attributes (`evals.attributes`), with an eighth as many windows to choose a probe's
    epoch on, and a quarter as many to test: the columns of its table, and `pair`."""
    import pandas as pd

    spec = together[0][0].spec
    lm = runs.language_model(spec.model)
    cut = labelled_windows(text.documents(spec.text, "held_out"), lm.tokenizer)
    ablated = [n for n in ABLATED if n <= min(run.spec.d_sae for (run,) in together)]
    tables: list[list[pd.DataFrame]] = [[] for _ in together]
    for pair in pairs(lm, spec.layer, cut, train=windows, validation=windows // 8, test=windows // 4):
        for (run,), of_run in zip(together, tables):
            found = evals.scr(run.sae, pair.probes, pair.train, pair.test, ablated)
            of_run.append(found.assign(pair=pair.name))
    for of_run in tables:
        yield pd.concat(of_run).to_dict("list")


TEXT, CODE = "tokens of held-out text", "windows of held-out code"
MEASURES = {
    "recovery": Measure(recovery, TEXT),
    "scores": Measure(scores),
    "behaviour": Measure(behaviour, TEXT),
    "stability": Measure(stability, TEXT, seeds=2),
    "features": Measure(features, TEXT, seeds=2),
    "scr": Measure(scr, CODE),
}


def _read(spec: RunSpec, tokens: int) -> HeldOut:
    return _held_out(spec.model, spec.layer, tokens, spec.context, spec.text)


@lru_cache(maxsize=1)
def _held_out(model: str, layer: int, tokens: int, context: int, source: str) -> HeldOut:
    return held_out(runs.language_model(model), layer, tokens, context, source)


def _short(values: Tensor) -> list[float]:
    return [round(v, 4) for v in values.detach().tolist()]
