"""Many runs: in this process, over its cores, or over a cluster."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Literal, get_args

import torch
from filelock import Timeout
from tqdm import tqdm

from aligned import runs
from aligned.activations import store
from aligned.runs import Run
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.train import Trainer

Engine = Literal["loky", "dask", "ray"]
DEATHS = 5  # rounds in which workers may die before a sweep gives up


class SweepError(RuntimeError):
    """Some runs of a sweep failed; the others are in the store. The message names each with its error."""


def sweep(specs: Sequence[RunSpec], engine: Engine | None = None, workers: int | None = None) -> list[Run]:
    """The runs of many specs; those that are not in the store are trained.

    What is there, what is missing and an estimate of the time are printed first, and what would fail after long work
    (a model, a layer, a text) fails then. Those with a model, layer and text in common share one pool of activations,
    which is made before anything is handed out: the language model runs once. Any number of sweeps may share a store:
    what another process trains is waited for, last.

    Args:
        specs: what to train, in the order in which runs are returned.
        engine: who does it: this process (None), or joblib's `loky` (processes here), `dask` or `ray` (a cluster that
            this process is connected to, and that sees the same store).
        workers: how many runs at a time; by default one for each core of the engine.

    Raises:
        SweepError: some runs failed, after all others were finished.
        ValueError: an engine that there isn't.
    """
    if engine is not None and engine not in get_args(Engine):
        raise ValueError(f"engine is {engine!r}; it is None or one of {', '.join(get_args(Engine))}")
    missing = sorted((s for s in dict.fromkeys(specs) if runs.finished(s) is None), key=_pool)
    if missing:
        for model, layer, source, context, _ in dict.fromkeys(map(_pool, missing)):
            _check(model, layer, source, context)
        print(_plan(specs, missing, workers if engine else 1))
        failures: dict[RunSpec, str] = {}
        for key, group in groupby(missing, _pool):
            model, layer, source, context, tokens = key
            runs.activations(model, layer, source, tokens, context)
            together = list(group)
            failures |= _here(together) if engine is None else _spread(together, engine, workers)
        if failures:
            listed = "\n".join(f"  {spec.name}: {error}\n    {spec}" for spec, error in failures.items())
            raise SweepError(f"{len(failures)} of {len(missing)} runs failed; the others are in the store:\n{listed}")
    return [runs.run(spec) for spec in specs]


def _pool(spec: RunSpec) -> tuple[str, int, str, int, int]:
    """What decides the pool of activations that a run is trained on."""
    return spec.model, spec.layer, spec.text, spec.context, spec.tokens


def _check(model: str, layer: int, source: str, context: int) -> None:
    """Raise now what would otherwise be raised after long work: a model, layer, context or text that will not do."""
    runs.language_model(model).hook(layer)
    runs.language_model(model).check_context(context)
    runs.held_out_blocks(model, source, context, context)


def _here(missing: list[RunSpec]) -> dict[RunSpec, str]:
    failures: dict[RunSpec, str] = {}
    elsewhere: list[RunSpec] = []
    with tqdm(total=sum(s.tokens for s in missing), unit="tok", unit_scale=True, desc="training") as bar:
        for wait, turn in ((False, missing), (True, elsewhere)):
            for spec in turn:
                bar.set_postfix_str(f"{spec.activation} {spec.sparsity:g} {spec.constraint} s{spec.seed}")
                try:
                    runs.run(spec, bar.update, wait)
                except Timeout:  # another process is at it
                    elsewhere.append(spec)
                except Exception as error:
                    failures[spec] = f"{type(error).__name__}: {error}"
    return failures


def _spread(missing: list[RunSpec], engine: Engine, workers: int | None) -> dict[RunSpec, str]:
    from joblib import Parallel, delayed, parallel_config

    if engine == "ray":
        from ray.util.joblib import register_ray

        register_ray()

    class Counting(Parallel):
        def print_progress(self) -> None:
            bar.update(len(missing) - len(left) + self.n_completed_tasks - bar.n)

    failures: dict[RunSpec, str] = {}
    died: Exception | None = None
    left = missing
    threads = max(1, (os.cpu_count() or 1) // (workers or os.cpu_count() or 1))
    with tqdm(total=len(missing), unit="run", desc=f"training with {engine}") as bar:
        for _ in range(DEATHS):
            tasks = [delayed(_task)(spec, str(store().resolve()), threads) for spec in left]
            try:
                with parallel_config(backend=engine, n_jobs=workers or -1):
                    failures |= {spec: error for spec, error in Counting(batch_size=1)(tasks) if error is not None}
            except Exception as error:  # a worker died; its runs' checkpoints are in the store
                died = error
            left = [spec for spec in left if spec not in failures and runs.finished(spec) is None]
            if not left:
                return failures
    return failures | {spec: f"its worker died {DEATHS} times, last with {died!r}" for spec in left}


def _task(spec: RunSpec, place: str, threads: int) -> tuple[RunSpec, str | None]:
    os.environ["ALIGNED_STORE"] = place
    torch.set_num_threads(threads)
    try:
        runs.run(spec, lambda _: None)
    except Exception as error:
        return spec, f"{type(error).__name__}: {error}"
    return spec, None


def _plan(specs: Sequence[RunSpec], missing: list[RunSpec], workers: int | None) -> str:
    """A table of what is there and what is missing, and about how long the rest will take."""

    def kind(s: RunSpec) -> tuple[str, int, str]:
        return s.activation, s.d_sae, s.constraint

    every, absent = Counter(map(kind, dict.fromkeys(specs))), Counter(map(kind, missing))
    lines = [f"{'activation':12s}{'width':>8s}  {'constraint':14s}{'there':>6s}{'missing':>9s}"]
    for (activation, d_sae, constraint), count in every.items():
        gone = absent[activation, d_sae, constraint]
        lines.append(f"{activation:12s}{d_sae:8d}  {constraint:14s}{count - gone:6d}{gone:9d}")
    speeds = [_tokens_per_second(runs.language_model(s.model).d_in, replace(s, seed=0)) for s in missing]
    seconds = sum(s.tokens / speed for s, speed in zip(missing, speeds)) / (workers or os.cpu_count() or 1)
    lines.append(
        f"{len(missing)} of {sum(every.values())} runs to train, {sum(s.tokens for s in missing):,} tokens in all: "
        f"about {_duration(seconds)} at this machine's speed, and the language model's part"
    )
    return "\n".join(lines)


@lru_cache
def _tokens_per_second(d_in: int, spec: RunSpec) -> float:
    """Measured, on a few steps with random activations."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sae = SAE(d_in, spec.d_sae, spec.activation, spec.sparsity, spec.constraint, spec.init).to(device)
    trainer = Trainer(sae, spec)
    x = torch.randn(spec.batch, d_in, device=device) / d_in**0.5
    trainer.update(x)
    start = time.perf_counter()
    for _ in range(3):
        trainer.update(x)["loss"].item()
    return 3 * spec.batch / (time.perf_counter() - start)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
