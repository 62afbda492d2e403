"""What is measured of runs, by name. `aligned.records` keeps each result in its run's folder, and publishes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aligned import evals
from aligned.alignment import Rows, alignment_score
from aligned.checks import whole
from aligned.evals.activity import PER_DIMENSION
from aligned.evals.attributes import Pair, pairs
from aligned.evals.codes import codes
from aligned.evals.cross_entropy import recoveries
from aligned.evals.matching import convergence as along_training
from aligned.evals.matching import max_cosine
from aligned.evals.scores import FEWEST, histogram
from aligned.evals.sparse_probes import KS
from aligned.evals.spurious import ABLATED
from aligned.language import text
from aligned.language.any_text import labelling_of
from aligned.language.contents import local_text
from aligned.language.held_out import HeldOut, held_out
from aligned.language.labels import Windows, labelled_windows
from aligned.report.retrace import moments, retrace
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import Run
from aligned.training.loop import SCORES

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
Together = Sequence[tuple[Run, ...]]
AT_ONCE = 4  # SAEs in memory
STAYED = 0.005  # how far a score may be from its start to count as one that never moved
SHOWN, ACTIVE, CONTEXTS = 3, 1e-4, 4  # features of each kind in `contexts`, how dense at least, and of each so many
BROWSED, RAISED = 80, 5  # features of an SAE in `browser`, and the tokens that each is said to raise


def alone(specs: list[RunSpec]) -> list[tuple[RunSpec, ...]]:
    """Each spec for itself."""
    return [(spec,) for spec in specs]


def every_two(specs: list[RunSpec]) -> list[tuple[RunSpec, ...]]:
    """Every two of the specs that differ in their seeds alone."""
    return [pair for of in _alike(specs) for pair in combinations(of, 2)]


def with_the_next(specs: list[RunSpec]) -> list[tuple[RunSpec, ...]]:
    """Each spec with the one that has the next seed, and the last one with the first."""
    return [pair for of in _alike(specs) for pair in zip(of, [*of[1:], of[0]])]


def _alike(specs: list[RunSpec]) -> list[list[RunSpec]]:
    groups: dict[RunSpec, list[RunSpec]] = {}
    for spec in dict.fromkeys(specs):
        groups.setdefault(replace(spec, seed=0), []).append(spec)
    if single := [of[0].name for of in groups.values() if len(of) < 2]:
        raise ValueError(f"pairs of seeds need at least 2 seeds of each SAE, and there is one of {', '.join(single)}")
    return list(groups.values())


@dataclass(frozen=True)
class Measure:
    """A question to runs, all of one language model, layer and text.

    Attributes:
        of: a function that takes groups of runs and a size, and yields an answer for each group, in their order.
        unit: of the size; none, where the answer does not depend on text.
        groups: from specs to those that one answer is about.
        labelled: whether it rests on the labels of the tokens (`aligned.language.any_text.labelling_of`).
        least: the smallest size with which it can be asked.
        per_dimension: the same, for each dimension of the residual stream.
        fewest: features of an SAE of which it can be asked.
        version: of what it measures. One that is raised is measured again; older answers stay in the records.
    """

    of: Callable[[Together, int], Iterator[Row]]
    unit: str = ""
    groups: Callable[[list[RunSpec]], list[tuple[RunSpec, ...]]] = alone
    labelled: bool = False
    least: int = 1
    per_dimension: int = 0
    fewest: int = 1
    version: int = 1

    def check(self, specs: list[RunSpec], size: int) -> None:
        """Raise a `TypeError` or `ValueError` now for what could not be measured after long training."""
        whole("eval_tokens", size, self.least)
        if narrow := {spec.d_sae for spec in specs if spec.d_sae < self.fewest}:
            raise ValueError(f"d_sae is {min(narrow)}; this can be measured of {self.fewest} features or more")
        for source in {spec.text for spec in specs} if self.unit else ():
            if local_text(source):  # read as far as its first held-out document
                text.documents(source, "held_out")

    def check_model(self, model: str, size: int) -> None:
        """The same, of what the language model decides; for SAEs that are not there yet."""
        if self.per_dimension:
            whole("eval_tokens", size, self.per_dimension * runs.language_model(model).d_in)

    def measured_on(self, size: int, texts: set[str], counted: Sequence[int] = ()) -> str | None:
        """What a page says of the text that was measured on.

        Args:
            size: that was asked for.
            texts: where it is from.
            counted: the tokens that were there, without those that a measure leaves out, if it says so.
        """
        if not self.unit:
            return None
        there = max(counted, default=size)
        much = f"all {there:,}" if there < 0.9 * size else f"{size:,}"  # a text ends; special tokens are a few
        if not self.labelled or texts == {text.INSTALLED}:
            return f"{much} {self.unit}"
        unit = self.unit.replace("code", "text")
        return f"{much} {unit}, with labels that any text has (`aligned.language.any_text`)"

    def key(self, name: str, size: int, specs: tuple[RunSpec, ...]) -> str:
        """The key of the answer in the first run's `metrics.json`."""
        other = "".join(f" with seed {spec.seed}" for spec in specs[1:])
        version = f", version {self.version}" if self.version > 1 else ""
        return f"{name}{other}{version}" + (f", {size} {self.unit}" if self.unit else "")


def recovery(together: Together, tokens: int) -> Iterator[Row]:
    """`evals.recovery`."""
    for outliers, alike in groupby(together, lambda of: of[0].spec.outliers):
        same = list(alike)
        for first in range(0, len(same), AT_ONCE):
            some = same[first : first + AT_ONCE]
            spec = some[0][0].spec
            blocks = runs.held_out_blocks(spec.model, spec.text, spec.context, tokens)
            lm = runs.language_model(spec.model)
            yield from recoveries([run.sae for (run,) in some], lm, blocks, outliers=outliers)


def scores(together: Together, _: int) -> Iterator[Row]:
    """The shape of the alignment scores (`evals.modes`), the share of features whose score is still within `STAYED` of
    where it started (`at_start`), their `histogram` (shares, in the bins of
    `aligned.training.loop.SCORES`), and the training log: `log_tokens`, `log_dead` and `log_scores` (counts)."""
    bins, low, high = SCORES
    for (run,) in together:
        a = alignment_score(run.sae).detach()
        log = run.log
        yield {
            **evals.modes(a),
            "at_start": (a - _start(run.spec, run.sae.d_in)).abs().lt(STAYED).float().mean().item(),
            "histogram": histogram(a, bins, low, high).tolist(),
            "log_tokens": log.tokens.tolist(),
            "log_dead": log.dead.tolist(),
            "log_scores": [[int(count) for count in row.split()] for row in log.scores],
        }


def _start(spec: RunSpec, d_in: int) -> Float[Tensor, " d_sae"]:
    """Each feature's score at initialisation, with decoder rows of norm 1, as they are from the first step on."""
    sae = spec.start(d_in).requires_grad_(False)
    sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return alignment_score(sae)


def behaviour(together: Together, tokens: int) -> Iterator[Row]:
    """`evals.behaviour`."""
    for (run,) in together:
        yield evals.behaviour(run.sae, _read(run.spec, tokens).kept[0])


def stability(together: Together, tokens: int) -> Iterator[Row]:
    """`evals.stability` of two seeds: over `all` features, over those `alive` on the text, and at initialisation
    (`start`). Each is given by raw cosines (`pw_mcc_all`) and by mean-centred ones (`pw_mcc_all_centred`); records of
    before the latter were measured lack them."""
    fires: dict[RunSpec, Bool[Tensor, " d_sae"]] = {}
    for pair in together:
        for run in pair:
            if run.spec not in fires:
                x = _read(run.spec, tokens).kept[0]
                fires[run.spec] = torch.from_numpy(codes(run.sae, x).sum(0) > 0)
        (a, b), (alive_a, alive_b) = (run.sae for run in pair), (fires[run.spec] for run in pair)
        start_a, start_b = (run.spec.start(a.d_in) for run in pair)
        found = {}
        for suffix, centre in (("", False), ("_centred", True)):
            found[f"all{suffix}"] = evals.stability(a, b, centre=centre)
            found[f"alive{suffix}"] = evals.stability(a, b, (alive_a, alive_b), centre)
            found[f"start{suffix}"] = evals.stability(start_a, start_b, centre=centre)
        yield {f"{measure}_{of}": value for of, row in found.items() for measure, value in row.items()}


def convergence(together: Together, _: int) -> Iterator[Row]:
    """Of two seeds, along their training (`evals.stability.convergence`): lists over `moments`, numbers of steps, 0 and
    the last among them. Each SAE is trained again for it (`aligned.report.retrace`), once for all its pairs; `same` and
    `other_same` are the mean cosines of what that gave with what is in the store."""
    for _, pairs_of in groupby(together, lambda pair: replace(pair[0].spec, seed=0)):
        known: dict[RunSpec, tuple[list[Rows], float]] = {}
        for pair in pairs_of:
            for run in pair:
                if run.spec not in known:
                    known[run.spec] = retrace(run)
            (a, same), (b, other_same) = (known[run.spec] for run in pair)
            steps = moments(pair[0].spec.steps)
            yield {"moments": steps, **along_training(a, b), "same": same, "other_same": other_same}


def contexts(together: Together, tokens: int) -> Iterator[Row]:
    """What features of low and of high alignment score fire on: `lowest` and `nearest_1`, each up to 3 features that
    are active on more than 1e-4 of the tokens, as records of pages (`evals.pages.Page.of_record`) with the 4 strongest
    contexts. Where scores are all 1, by a constraint, which features these are is an accident of rounding."""
    for (run,) in together:
        sae, read = run.sae, _read(run.spec, tokens)
        density = (codes(sae, read.kept[0]) > 0).mean(0)
        score = alignment_score(sae).detach()
        active = torch.from_numpy(density > ACTIVE).nonzero().squeeze(1)
        lowest = active[score[active].argsort(stable=True)][:SHOWN]
        others = active[~torch.isin(active, lowest)]
        nearest = others[(score[others] - 1).abs().argsort(stable=True)][:SHOWN]
        found = evals.pages(
            sae,
            [*lowest.tolist(), *nearest.tolist()],
            read.tokens,
            read.x,
            read.keep,
            _vocabulary(run.spec.model),
            CONTEXTS,
        )
        records = [page.record for page in found]
        yield {"lowest": records[: len(lowest)], "nearest_1": records[len(lowest) :]}


def browser(together: Together, tokens: int) -> Iterator[Row]:
    """Features of the first of two seeds to look at: `BROWSED` of those that are active on more than 1e-4 of the
    tokens, evenly spaced in the order of how often they fire. Each is a row of `features`: its `page`
    (`evals.pages.Page.record`, with the 3 strongest contexts), `mcs` with the other seed's features and the `nearest`
    of them, and the tokens that its decoder direction `raises` most, by the unembedding alone."""
    for run, other in together:
        sae, read, lm = run.sae, _read(run.spec, tokens), runs.language_model(run.spec.model)
        table = evals.concepts(sae, *read.kept, read.names)
        active = torch.from_numpy(table.density.to_numpy() > ACTIVE).nonzero().squeeze(1)
        by_density = active[torch.from_numpy(table.density.to_numpy(copy=True))[active].argsort(stable=True)]
        chosen = by_density[torch.linspace(0, len(by_density) - 1, min(BROWSED, len(by_density))).round().long()]
        vocabulary = _vocabulary(run.spec.model)
        pages = evals.pages(sae, chosen.tolist(), read.tokens, read.x, read.keep, vocabulary, SHOWN)
        cosines = (
            torch.nn.functional.normalize(sae.W_dec[chosen], dim=1) @ torch.nn.functional.normalize(other.sae.W_dec).T
        )
        mcs, nearest = cosines.max(1)
        raised = lm.raised(sae.W_dec[chosen], RAISED)
        rows = []
        for page, cosine, partner, tokens_raised in zip(pages, mcs.tolist(), nearest.tolist(), raised.tolist()):
            concept, f1 = table.concept[page.feature], float(table.f1[page.feature])
            known = replace(page, concept=concept if isinstance(concept, str) else None, f1=round(f1, 4))
            rows.append(
                {
                    "page": known.record,
                    "mcs": round(cosine, 4),
                    "nearest": partner,
                    "raises": [vocabulary[i] for i in tokens_raised],
                }
            )
        yield {"features": rows}


def features(together: Together, tokens: int) -> Iterator[Row]:
    """Of every feature of the first of two seeds: alignment `score`, `mcs` with the other seed's features, `f1` on its
    `concept` (its place among the names of the text's labelling, -1 for none), and the `density` of its activity; to
    four digits. And how good the dictionary is on the whole."""
    for run, other in together:
        read = _read(run.spec, tokens)
        table = evals.concepts(run.sae, *read.kept, read.names)
        mcs = max_cosine(run.sae.W_dec, other.sae.W_dec)
        alive = table.density > 0
        yield {
            "score": _short(alignment_score(run.sae)),
            "mcs": _short(mcs),
            "f1": _short(torch.tensor(table.f1.to_numpy(copy=True))),
            "density": _short(torch.tensor(table.density.to_numpy(copy=True))),
            "concept": [read.names.index(c) if isinstance(c, str) else -1 for c in table.concept],
            "f1_mean": float(table.f1[alive].mean()),
            "f1_chance": float(table.chance[alive].mean()),
            "f1_over_half": float((table.f1 > 0.5).mean()),
            "concepts_found": int(table.concept[table.f1 > 0.5].nunique()),
        }


def scr(together: Together, windows: int) -> Iterator[Row]:
    """`evals.scr` on every pair of attributes (`evals.attributes`), with an eighth as many windows to choose a probe's
    epoch on, and a quarter as many to test: the columns of its table, and `pair`."""

    def of_pair(sae: SAE, pair: Pair) -> pd.DataFrame:
        return evals.scr(sae, pair.probes, pair.train, pair.test, [n for n in ABLATED if n <= sae.d_sae])

    return _on_pairs(together, windows, of_pair)


def probing(together: Together, windows: int) -> Iterator[Row]:
    """`evals.probing` on the same windows as `scr`: the columns of its table, `attribute` being the class's name, and
    `pair`."""

    def of_pair(sae: SAE, pair: Pair) -> pd.DataFrame:
        found = evals.probing(sae, pair.train, pair.test, [k for k in KS if k <= sae.d_sae])
        return found.assign(attribute=found.attribute.map(dict(zip("ab", pair.name.split(" / ")))))

    return _on_pairs(together, windows, of_pair)


def _on_pairs(together: Together, windows: int, of_pair: Callable[[SAE, Pair], pd.DataFrame]) -> Iterator[Row]:
    """A table of each SAE on every pair of attributes, below one another. One pair is in memory at a time."""
    import pandas as pd

    spec = together[0][0].spec
    lm, cut = runs.language_model(spec.model), _windows(spec.model, spec.text)
    tables: list[list[pd.DataFrame]] = [[] for _ in together]
    for pair in pairs(lm, spec.layer, cut, train=windows, validation=windows // 8, test=windows // 4):
        for (run,), of_run in zip(together, tables):
            of_run.append(of_pair(run.sae, pair).assign(pair=pair.name))
    for of_run in tables:
        yield pd.concat(of_run).to_dict("list")


TEXT, CODE = "tokens of held-out text", "windows of held-out code"
MEASURES = {
    "recovery": Measure(recovery, TEXT),
    "scores": Measure(scores, fewest=FEWEST),
    "behaviour": Measure(behaviour, TEXT, per_dimension=PER_DIMENSION),
    "stability": Measure(stability, TEXT, every_two),
    "features": Measure(features, TEXT, with_the_next, labelled=True),
    "scr": Measure(scr, CODE, labelled=True, least=32),
    "probing": Measure(probing, CODE, labelled=True, least=32),
    "convergence": Measure(convergence, groups=every_two),
    "contexts": Measure(contexts, TEXT),
    "browser": Measure(browser, TEXT, with_the_next, labelled=True),
}


def _read(spec: RunSpec, tokens: int) -> HeldOut:
    return _held_out(spec.model, spec.layer, tokens, spec.context, spec.text, spec.outliers)


@lru_cache(maxsize=1)
def _held_out(model: str, layer: int, tokens: int, context: int, source: str, outliers: float) -> HeldOut:
    return held_out(runs.language_model(model), layer, tokens, context, source, outliers=outliers)


@lru_cache(maxsize=1)
def _windows(model: str, source: str) -> Windows:
    """Of all held-out text, which takes a quarter of a minute to label: kept for the next measure."""
    docs, tokenizer = text.documents(source, "held_out"), runs.language_model(model).tokenizer
    return labelled_windows(docs, tokenizer, labelling=labelling_of(source))


@lru_cache(maxsize=1)
def _vocabulary(model: str) -> list[str]:
    tokenizer = runs.language_model(model).tokenizer
    return tokenizer.batch_decode([[i] for i in range(len(tokenizer))])


def _short(values: Tensor) -> list[float]:
    return [float(f"{v:.4g}") for v in values.detach().tolist()]
