"""Records: one row a run, measured now or published before.

`results/` holds the records of the published runs, one JSON object a line: spec, metrics, provenance. A figure that
asks for specs which are all there is drawn in seconds, from them; what its parameters make missing is trained.

    aligned publish    # writes the records of every measured run in the store to results/
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from itertools import chain, groupby, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from aligned import files
from aligned.checks import said
from aligned.files import home
from aligned.methods import method
from aligned.progress import tqdm
from aligned.report.measures import MEASURES, Measure
from aligned.report.published import PLANS, REAL, planned
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import Run
from aligned.store.sweeps import sweep

if TYPE_CHECKING:
    import pandas as pd

RESULTS = home() / "results"


def records(
    asked: Iterable[Run | RunSpec], eval_tokens: int, use_published: bool = True, measure: str = "recovery"
) -> pd.DataFrame:
    """What was measured, with the fields of its spec: one row for each run, or for each pair of runs that differ in
    their seed alone.

    A spec may stand for its run. Then its published record (`results/`) is used if there is one and `use_published`
    allows it. A spec that belongs to the plan (`aligned.report.published`) and is not published yet is left out, so
    that opening a page never starts hours of training by surprise. Every other spec is trained now, by a sweep that
    first prints the cost. Answers are kept in the runs' folders as they come.

    Args:
        asked: runs or specs.
        eval_tokens: of held-out text; for `scr` and `probing`, windows of held-out code to train probes on; `scores`
            and `convergence` need none.
        use_published: whether published records will do. False trains and measures all that the store does not have.
        measure: one of `aligned.report.measures.MEASURES`; what its columns mean, its function there says. `stability`
            is of every two seeds, `features` of each seed and the next: `seed` is the first one's, `other_seed` the
            second's.

    Returns:
        A table. Its `attrs` hold what each run was `made` by, with its spec and whether its record is `published`; what
        was `measured_on`; and the specs that are `missing`.

    Raises:
        TypeError, ValueError: no list of runs or specs; no such measure; eval_tokens under 1 (for `scr` and `probing`
            32); for pairs, a spec of which there is one seed only; nothing to show, since all that was asked for is
            planned and not published yet.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure is {measure!r}; there are {', '.join(MEASURES)}")
    of = list(asked) if isinstance(asked, Iterable) else []
    if not of or not all(isinstance(one, Run | RunSpec) for one in of):
        raise ValueError(f"records are of a list of runs or specs, one at least, and {said(asked)} was given")
    MEASURES[measure].check([r.spec if isinstance(r, Run) else r for r in of], eval_tokens)
    return _table(of, eval_tokens, measure, planned(measure, eval_tokens) if use_published else None)


def drawn(specs: Iterable[RunSpec], size: int, measure: str) -> pd.DataFrame:
    """`records`, from published ones alone: nothing is trained or measured, and what is not published is left out.

    Raises:
        ValueError: none is published.
    """
    specs = list(specs)
    return _table(specs, size, measure, frozenset(specs))


def drawn_of(
    grids: Mapping[str, Sequence[RunSpec]], eval_tokens: int, use_published: bool = True, measure: str = "recovery"
) -> dict[str, pd.DataFrame]:
    """`records` of several grids, by name. A grid of which nothing is published yet is left out, and a line says so;
    one without a spec is left out."""
    found, missing = {}, []
    for name, specs in grids.items():
        if not specs:
            continue
        try:
            found[name] = records(specs, eval_tokens, use_published, measure)
        except NothingPublished:
            missing.append(name)
    if missing:
        print(f"Not published yet ({measure}): {'; '.join(missing)}.")
    return found


class NothingPublished(ValueError):
    """All that was asked for is planned, and nothing of it is published yet."""


def of_parts(
    model: str, *parts: str, measure: str = "recovery", where: Callable[[RunSpec], bool] = lambda spec: True
) -> pd.DataFrame:
    """The published records of some parts of a language model's plan (`aligned.report.published`), as far as they are
    there. A part that the plan lacks is left out.

    Args:
        model: whose plan.
        parts: of it.
        measure: as `records` takes it.
        where: which of their SAEs.

    Raises:
        NothingPublished: the plan has none of these parts, or none of their records is published yet; says what would
            make them.
    """
    planned_of = PLANS[model].parts if model in PLANS else {}
    there = {part: planned_of[part] for part in parts if part in planned_of}
    if not there:
        raise NothingPublished(f"the plan of {model} has no part {' or '.join(parts)}")
    (size,) = {dict(part.measures)[measure] for part in there.values()}
    try:
        return drawn(dict.fromkeys(s for part in there.values() for s in part.specs if where(s)), size, measure)
    except NothingPublished as error:
        raise NothingPublished(
            f"no record ({measure}) of these SAEs of {model} is published yet: "
            f"`aligned publish --train {model} {' '.join(there)}` trains and measures them"
        ) from error


def facets(
    activations: Iterable[str], measure: str = "recovery", models: Iterable[str] = REAL, part: str = ""
) -> dict[tuple[str, str], pd.DataFrame]:
    """The published records of each activation and language model, under the two names. What is not published yet is
    left out.

    Args:
        activations: which.
        measure: as `records` takes it.
        models: which, of `aligned.report.published.PLANS`.
        part: of the plan; by default the one that has the activation's name.
    """
    found = {}
    for activation, model in product(activations, models):
        with suppress(NothingPublished):
            rows = of_parts(model, part or activation, measure=measure)
            if len(rows := rows[rows.activation == activation]):
                found[activation, model] = rows
    return found


def _table(asked: Sequence[Run | RunSpec], size: int, measure: str, later: frozenset[RunSpec] | None) -> pd.DataFrame:
    """One row for each group asked for. If the group is published, the row comes from there. If all its SAEs are in
    `later` and the store has no answer, there is no row. Otherwise the runs are those given, those in the store, or
    trained now. If `later` is None, published records are ignored and no group is left out."""
    import pandas as pd

    what = MEASURES[measure]
    given = {r.spec: r for r in asked if isinstance(r, Run)}
    specs = [r.spec if isinstance(r, Run) else r for r in asked]
    known = {} if later is None else {s: record for s, record in published().items() if s not in given}
    left = (later or frozenset()) - set(given)
    keys = {group: what.key(measure, size, group) for group in what.groups(specs)}
    answers: dict[tuple[RunSpec, ...], dict[str, dict[str, Any]]] = {}
    made: dict[RunSpec, dict[str, Any]] = {}
    rest = []
    for group, key in keys.items():
        match _state(group, key, known, left):
            case "published":
                answers[group] = known[group[0]]["metrics"]
                made |= {s: {**_made_by(known[s], key), "published": True} for s in group}
            case "here":
                rest.append(group)
    if not rest and not answers:
        raise NothingPublished(
            f"none of the {len(keys)} records ({measure}) is published yet; `use_published = False` trains and "
            "measures the SAEs here"
        )
    for model in {spec.model for spec in chain(*rest)}:
        what.check_model(model, size)
    found = dict(given) | {r.spec: r for r in sweep([s for s in dict.fromkeys(chain(*rest)) if s not in given])}
    answers |= _measured({tuple(found[s] for s in g): keys[g] for g in rest}, what, size)
    made |= {s: {**found[s].provenance, "published": False} for s in chain(*rest) if s not in made}
    rows = []
    for group, key in keys.items():
        if group in answers:
            other = {"other_seed": group[1].seed} if len(group) == 2 else {}
            rows.append({**answers[group]["alignment"], **answers[group][key], **asdict(group[0]), **other})
    table = pd.DataFrame(rows)
    table.attrs = {
        "made": [{"spec": asdict(s), **by} for s, by in made.items()],
        "measured_on": what.measured_on(size, {spec.text for spec in specs}, list(table.get("eval_tokens", []))),
        "missing": [asdict(s) for s in dict.fromkeys(chain(*keys)) if s not in made],
    }
    return table


def foreseen(specs: Sequence[RunSpec], size: int, measure: str, use_published: bool) -> dict[str, set[RunSpec]]:
    """What `records` would do with these specs: which SAEs it would take from what is `published`, which are `left` out
    until they are published, and which it would open or train `here`; and which of the latter are still `to_measure`.

    Args:
        specs, size, measure, use_published: as for `records`.
    """
    what = MEASURES[measure]
    known, left = (published(), planned(measure, size)) if use_published else ({}, frozenset())
    found: dict[str, set[RunSpec]] = {"published": set(), "left": set(), "here": set(), "to_measure": set()}
    for group in what.groups(list(specs)):
        key = what.key(measure, size, group)
        found[state := _state(group, key, known, left)] |= set(group)
        if state == "here" and not _answered(group, key):
            found["to_measure"] |= set(group)
    return found


def _state(
    group: tuple[RunSpec, ...], key: str, known: Mapping[RunSpec, dict[str, Any]], left: frozenset[RunSpec]
) -> Literal["published", "left", "here"]:
    if all(s in known for s in group) and key in known[group[0]]["metrics"]:
        return "published"
    return "left" if left.issuperset(group) and not _answered(group, key) else "here"


def _answered(group: tuple[RunSpec, ...], key: str) -> bool:
    """Whether the store has the runs of a group, and the answer."""
    there = [runs.finished(spec) for spec in group]
    return all(run is not None for run in there) and key in (there[0].metrics if there[0] else {})


def published() -> dict[RunSpec, dict[str, Any]]:
    """The published records: spec, metrics, provenance.

    Raises:
        ValueError: a line that is none; names file and line.
    """
    found: dict[RunSpec, dict[str, Any]] = {}
    for place in sorted(RESULTS.glob("*.jsonl")):
        of = place.stat()
        found |= _in_file(place, (of.st_ino, of.st_size, of.st_mtime_ns))
    return found


@lru_cache(maxsize=16)
def _in_file(place: Path, stamp: tuple[int, ...]) -> dict[RunSpec, dict[str, Any]]:
    """The records in a file, which a page asks for many times. With another stamp, the file is read again."""
    found = {}
    for number, line in enumerate(place.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not all(isinstance(record[part], dict) for part in ("spec", "metrics", "provenance")):
                raise TypeError("spec, metrics and provenance are JSON objects")
            found[RunSpec(**record["spec"])] = record
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{place}, line {number}, is no record of this version ({type(error).__name__}: {error}): mend it, "
                "or take it out"
            ) from error
    return found


def publish() -> int:
    """Write the records of every measured run in the store to `results/<model>-layer<layer>.jsonl`, beside those that
    are there; runs of code that was not committed are left out. Returns how many there are now.

    Raises:
        ValueError: a published record that can't be read; nothing is written then.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    with FileLock(RESULTS / ".publish.lock"):  # another process may publish from another store
        known = published()
        for folder in runs.folders():
            try:
                run = Run(runs.spec_of(folder), folder)
                runs.check(folder)
            except runs.Damaged as error:
                print(f"left out: {error}")
                continue
            if run.provenance.get("dirty", True) or run.provenance.get("commit") is None:
                print(f"left out, since its code was not committed: {folder.name}")
            elif run.metrics:
                known[run.spec] = _joined(known.get(run.spec), _record(run))
        lines: dict[str, list[str]] = {}
        for spec in sorted(known, key=lambda spec: spec.name):
            file = f"{Path(spec.model).name}-layer{spec.layer}.jsonl"
            lines.setdefault(file, []).append(json.dumps(known[spec]) + "\n")
        for file, text in lines.items():
            files.write_text(RESULTS / file, "".join(text))
    return len(known)


def _record(run: Run) -> dict[str, Any]:
    made = {k: v for k, v in run.provenance.items() if k != "checksums"}
    return {"spec": asdict(run.spec), "metrics": {"alignment": run.alignment, **run.metrics}, "provenance": made}


def _joined(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """A spec's published record with what is newly measured of it. Where the spec was trained again, the results of the
    earlier training are kept, each measure with its own provenance under `earlier`."""
    if before is None:
        return now
    earlier = {key: _made_by(before, key) for key in before["metrics"] if key not in now["metrics"]}
    earlier = {key: made for key, made in earlier.items() if made != now["provenance"]}
    return {**now, "metrics": {**before["metrics"], **now["metrics"]}} | ({"earlier": earlier} if earlier else {})


def _made_by(record: dict[str, Any], key: str) -> dict[str, Any]:
    """The provenance of the SAE that a measure was taken of."""
    return record.get("earlier", {}).get(key, record["provenance"])


def _measured(
    keys: dict[tuple[Run, ...], str], what: Measure, size: int
) -> dict[tuple[RunSpec, ...], dict[str, dict[str, Any]]]:
    """For each group: the answer, under its key, and the first run's alignment scores. Missing answers are measured
    now."""

    def source(group: tuple[Run, ...]) -> tuple[str, int, str]:
        spec = group[0].spec
        return spec.model, spec.layer, spec.text

    answers = {
        g: {key: g[0].metrics[key], "alignment": g[0].alignment} for g, key in keys.items() if key in g[0].metrics
    }
    missing = sorted((g for g in keys if g not in answers), key=source)
    with tqdm(total=len(missing), desc="measuring", disable=None if missing else True) as bar:
        for _, alike in groupby(missing, source):
            together = list(alike)
            _check_weights(together)
            for group, answer in zip(together, what.of(together, size)):
                alignment, *_ = [run.alignment for run in group]  # of a pair's second run too, which so is published
                answers[group] = {keys[group]: group[0].keep(keys[group], answer), "alignment": alignment}
                bar.update()
    return {tuple(r.spec for r in g): answers[g] for g in keys}


def _check_weights(together: list[tuple[Run, ...]]) -> None:
    for run in chain(*together):
        if runs.language_model(run.spec.model).fingerprint != run.provenance["model_fingerprint"]:
            raise ValueError(
                f"{run.spec.name} was trained on other weights than {run.spec.model} has now: "
                f"`aligned runs remove {run.spec.name}`, and it is trained again"
            )


def setting(*tables: pd.DataFrame) -> str:
    """One line: which model and SAEs the numbers come from, and how many of the SAEs asked for are among them.

    Args:
        tables: from `records`.
    """
    made = _made(tables)
    read = dict.fromkeys(table.attrs["measured_on"] for table in tables if table.attrs["measured_on"])
    measured = f"; measured on {', '.join(read)}" if read else ""
    return f"*Shown: {shown(made)}{measured}.{_so_far(tables)}*"


def precision(made: dict[str, Any]) -> str:
    """The format of numbers in which a published SAE was trained, by its provenance: bf16 or float32."""
    return str(made.get("precision", "bf16"))  # the only one before records said which


def precisions(specs: Iterable[RunSpec]) -> str:
    """In which precision the published ones of some SAEs were trained, and at which sparsities if there are several:
    `bf16`, or `float32 (k = 16), bf16 (k = 64)`; a dash where none is published."""
    known = published()
    of: dict[str, dict[str, None]] = {}
    for spec in sorted(set(specs) & set(known), key=lambda spec: spec.sparsity):
        at = f"{'k' if spec.method.counts else 'λ'} = {spec.sparsity:g}"
        of.setdefault(precision(known[spec]["provenance"]), {})[at] = None
    if len(of) < 2:
        return next(iter(of), "-")
    return ", ".join(f"{name} ({', '.join(at)})" for name, at in of.items())


def error_of_text(*tables: pd.DataFrame) -> str:
    """How much a difference between arms in CE recovered varies by chance with the choice of the evaluation text,
    compared with its spread between seeds (`benchmarks/held_out.py`): a sentence for each language model.

    Args:
        tables: from `records`; models and activations for which this was not measured are left out. Without tables,
            all for which it was.
    """
    place = RESULTS / "held-out.json"
    rows = json.loads(place.read_text())["rows"] if place.is_file() else []
    asked = {pair for table in tables for pair in zip(table.model, table.activation)}
    of_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if not tables or (row["model"], row["activation"]) in asked:
            of_model.setdefault(row["model"], []).append(row)
    sentences = []
    for model, of in of_model.items():
        ratios = [row["error"] / row["between_seeds"] for row in of]
        each = " and ".join(f"{ratio:.2f} ({row['activation']}, {row['sparsity']:g})" for ratio, row in zip(ratios, of))
        narrow = max(ratios) > 0.2
        longest = PLANS[model].recovery if model in PLANS and not tables else 0
        less = ""
        if longest > of[0]["tokens"]:
            less = (
                f" (claims are judged on up to {longest:,} tokens there, on which this error is "
                f"{math.sqrt(of[0]['tokens'] / longest):.2g} times as large)"
            )
        much = " The intervals are over seeds and do not include this error, so they are too narrow." if narrow else ""
        sentences.append(
            f"On {model} the choice of the text was measured, too, with {of[0]['tokens']:,} held-out tokens: another "
            "text of that length would move the difference between the arms in CE recovered by a standard error that "
            f"is {each} times the standard deviation over seeds{less}.{much}"
        )
    return "\n\n".join(sentences)


def low_and_dead(features: pd.DataFrame) -> list[str]:
    """In a line for each kind of standard SAE: how many features have an alignment score under 1/2, and whether these
    are the dead ones.

    Args:
        features: from `records(..., measure="features")`.
    """
    import numpy as np

    lines = []
    of_kind = features[features.constraint == "none"].groupby(["model", "activation", "sparsity"], sort=False)
    for (model, activation, sparsity), rows in of_kind:
        low, dead = np.concatenate([*rows.score]) < 0.5, np.concatenate([*rows.density]) == 0
        told = f"no score is under 1/2; {dead.mean():.1%} of the features are dead"
        if low.any():
            told = f"{low.mean():.1%} of the scores are under 1/2; of these features {dead[low].mean():.1%} are dead"
            told += "" if low.all() else f", of the others {dead[~low].mean():.1%}"
        lines.append(f"- {activation}, {'k' if method(activation).counts else 'λ'} = {sparsity:g}, on {model}: {told}")
    return lines


def _so_far(tables: Iterable[pd.DataFrame]) -> str:
    """How many SAEs a page shows, where it could not show all."""
    there = _made(tables).keys()
    missing = {RunSpec(**spec) for table in tables for spec in table.attrs["missing"]} - there
    return f" {len(there)} of {len(there) + len(missing)} SAEs are published so far." if missing else ""


def shown(of: Iterable[RunSpec]) -> str:
    """Model, layer, widths, tokens, seeds and, where there is more than one, the start of some SAEs."""
    specs = set(of)
    seeds = len({spec.seed for spec in specs})
    starts = {
        "small": "the small start",
        "small_encoder": "the small start with decoder rows of norm 1",
        "unit": "rows of norm 1",
    }
    penalised = _all(starts[s.init] for s in specs if not s.method.counts)  # the others have one start
    repeated = {s.distinct for s in specs if s.distinct}
    different = f" ({_all(f'{tokens:,}' for tokens in repeated)} different ones)" if repeated else ""
    tokens = _all(f"{s.steps * s.batch:,}" for s in specs)
    return (
        f"{_all(s.model for s in specs)}, layer {_all(s.layer for s in specs)}; SAEs of width "
        f"{_all(s.d_sae for s in specs)}, trained on {tokens} tokens each{different}; "
        f"{seeds} seed{'s' * (seeds > 1)}{f'; SAEs with a penalty start from {penalised}' if penalised else ''}"
    )


def provenance(*tables: pd.DataFrame) -> str:
    """What a page says under its figures, in Markdown: which model and text, how many tokens, made by what.

    Args:
        tables: from `records`.
    """
    made = _made(tables)
    if not made:
        return "- nothing is shown: none of these SAEs is published yet"
    how, published = list(made.values()), sum(of["published"] for of in made.values())
    trained_on = [f"{s.steps * s.batch:,}" for s in made]
    source = f"the published records of {published} SAEs" if published else "runs in the store"
    if 0 < published < len(made):
        source += f", and {len(made) - published} runs in the store"
    return "\n".join(
        (
            f"- language model: {_all(s.model for s in made)}, layer {_all(s.layer for s in made)}, "
            f"weights {_all(m['model_fingerprint'] for m in how)}",
            f"- SAEs: {len(made)}, width {_all(s.d_sae for s in made)}, {_all(trained_on)} tokens of "
            f"{_all(s.text for s in made)} each",
            f"- drawn from {source}{'; nothing was trained for this page' if published == len(made) else ''}",
            f"- trained on: {_all(m['device'] for m in how)}, {_all(m['threads'] for m in how)} thread(s) a run, "
            f"{sum(m['seconds'] for m in how) / 60:.0f} minutes in all",
            f"- commit: {_all(str(m['commit'])[:10] for m in how)}",
            f"- versions: {_all(', '.join(f'{k} {v}' for k, v in m['versions'].items()) for m in how)}",
        )
    )


def of_other_trainings(table: pd.DataFrame, other: pd.DataFrame) -> list[RunSpec]:
    """The specs for which the two tables come from different trainings: their SAEs were trained again between the two
    measures, perhaps on another machine, and agree but for rounding.

    Args:
        table, other: from `records`.
    """
    first, second = _made([table]), _made([other])
    return [spec for spec in first if spec in second and first[spec] != second[spec]]


def _made(tables: Iterable[pd.DataFrame]) -> dict[RunSpec, dict[str, Any]]:
    """What made each run that some tables hold."""
    tables = list(tables)
    if not all({"made", "measured_on", "missing"} <= set(table.attrs) for table in tables):
        raise ValueError("a table is not as `records` returned it: pandas drops `attrs` where tables are joined")
    return {RunSpec(**of["spec"]): of for table in tables for of in table.attrs["made"]}


def _all(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))
