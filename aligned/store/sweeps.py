"""Many runs: in this process, over its cores, or over a cluster."""

from __future__ import annotations

import atexit
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from tempfile import mkdtemp
from typing import Literal, get_args
from unittest.mock import patch

import torch
from filelock import Timeout

from aligned.checks import installed, whole
from aligned.files import store
from aligned.language.activations import Pool, Raw
from aligned.progress import tqdm
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import Run
from aligned.training.fused import Trainer

Engine = Literal["loky", "dask", "ray"]
TIMED = 10  # steps that a training has at least whose speed is measured
DEATHS = 5  # rounds in which workers may die before a sweep gives up
RAY_NOTICES = 30  # seconds
_CORES = os.cpu_count() or 1  # of this machine


class SweepError(RuntimeError):
    """Some runs of a sweep failed; the others are in the store. `failures` and the message name each with its error."""

    def __init__(self, failures: dict[RunSpec, str], asked: int) -> None:
        self.failures = failures
        listed = "\n".join(f"  {spec.name}: {error}\n    {spec}" for spec, error in failures.items())
        super().__init__(f"{len(failures)} of {asked} runs failed; the others are in the store:\n{listed}")


def sweep(specs: Sequence[RunSpec], engine: Engine | None = None, workers: int | None = None) -> list[Run]:
    """The runs of many specs; those that are not in the store are trained.

    First, it prints which runs exist, which are missing, and an estimate of the time. Errors that would otherwise come
    after long work (in a model, a layer or a text) are raised at this point. Runs with the same model, layer and text
    share one pool of activations, which is made before any run is given to a worker, so the language model runs once.
    Any number of sweeps may share a store: runs that another process is training are left to the end and waited for.

    Args:
        specs: what to train, in the order in which runs are returned.
        engine: who does it: this process (None), or joblib's `loky` (processes here), `dask` or `ray` (the cluster that
            this process is connected to, or that `DASK_SCHEDULER_ADDRESS` or `RAY_ADDRESS` names; its machines must see
            the store at the same place; where no Ray is named, one is started on this machine, which no other reaches).
            `ALIGNED_ENGINE` stands in for None.
        workers: how many runs at a time; at most, and by default, one for each core of the engine. Each has one thread;
            where loky has fewer workers than cores, each has its share of them.

    Raises:
        SweepError: some runs failed, after all others were finished.
        TypeError: something else than specs, or than a number of workers.
        ValueError, NotInstalled: an engine that there isn't, is not installed, or is not connected.
        ValueError: a run is there, and its text or model has changed since.
        OSError: the store can't be written, or has no room for the runs.
    """
    specs = list(specs) if isinstance(specs, Iterable) else specs
    if not isinstance(specs, list) or not all(isinstance(spec, RunSpec) for spec in specs):
        raise TypeError(f"a sweep takes a list of RunSpec, and was given {specs!r}")
    workers = None if workers is None else whole("workers", workers, 1)
    engine = engine or os.environ.get("ALIGNED_ENGINE") or None  # type: ignore[assignment]  # checked next
    with _connected(engine):
        missing = sorted((s for s in dict.fromkeys(specs) if runs.finished(s) is None), key=runs.pool_of)
        if missing:
            runs.check_writable()
            for model, layer, source, _, context in dict.fromkeys(map(runs.pool_of, missing)):
                runs.check_reads(model, layer, source, context)
            at_once = _workers(engine, workers) if engine else 1
            for model, of_model in groupby(missing, lambda spec: spec.model):
                runs.check_room(list(of_model), runs.language_model(model).d_in, at_once)
            print(_plan(specs, missing, _pace(engine, workers)))
            failures: dict[RunSpec, str] = {}
            for key, group in groupby(missing, runs.pool_of):
                together = list(group)
                try:
                    spare = runs.takes(together, runs.language_model(key[0]).d_in, at_once)
                    pool = runs.activations(*key, spare)
                    failures |= _spread(together, pool, engine, workers) if engine else _here(together, pool)
                except KeyboardInterrupt:
                    print("stopped; what is finished is in the store, and the same sweep goes on from the checkpoints")
                    raise
                except Exception as error:  # of the pool; those of runs are caught one by one
                    failures |= dict.fromkeys(together, f"{type(error).__name__}: {error}")
            if failures:
                raise SweepError(failures, len(missing))
    return [runs.run(spec) for spec in specs]


def _connected(engine: Engine | None) -> AbstractContextManager[object]:
    """joblib, set to an engine. Raises where the engine is unknown, not installed or not connected."""
    from joblib import parallel_config

    if engine is None:
        return nullcontext()
    if engine not in get_args(Engine):
        raise ValueError(f"engine is {engine!r}; it is None or one of {', '.join(get_args(Engine))}")
    if engine != "loky":
        installed({"ray": "ray", "dask": "distributed"}[engine], engine)
    if engine == "dask" and (address := os.environ.get("DASK_SCHEDULER_ADDRESS")):
        return parallel_config(backend="dask", n_jobs=-1, scheduler_host=address)
    if engine != "ray":
        return parallel_config(backend=engine, n_jobs=-1)
    import ray
    from ray.util.joblib import register_ray

    register_ray()
    if not ray.is_initialized():
        _start_ray()
    each = {"num_cpus": 1, "num_gpus": int("GPU" in ray.cluster_resources())}  # Ray hides GPUs that were not asked for
    return parallel_config(backend="ray", n_jobs=-1, ray_remote_args=each)


def _start_ray() -> None:
    """Connect to the cluster that `RAY_ADDRESS` names. Without one start Ray for this process alone: it then listens on
    the loopback address, and its files are in a folder that no other user can enter, because every user may write to
    the files that Ray makes."""
    import ray
    from ray._private import ray_constants

    if os.environ.get("RAY_ADDRESS"):
        ray.init()
        return
    private = mkdtemp(prefix="ray-")

    def stop() -> None:
        ray.shutdown()
        shutil.rmtree(private, ignore_errors=True)

    atexit.register(stop)
    with patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False):  # or it takes the address that others reach
        ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=f"{private}/ray")


def _workers(engine: Engine, asked: int | None) -> int:
    """As many as were asked for, where the engine has that many cores, or GPUs, now: a node may have gone."""
    from joblib import effective_n_jobs

    there = effective_n_jobs(-1)
    if engine == "ray":
        import ray

        there = int(ray.cluster_resources().get("GPU", there))
    return min(asked or there, there)


def _pace(engine: Engine | None, workers: int | None) -> float:
    """The time that runs take on the engine, divided by their time in this process, one after the other. loky's workers
    share what this process has; each worker of a cluster has a GPU, or a core, of its own."""
    if engine in (None, "loky"):
        return 1.0
    return (1 if torch.cuda.is_available() else _CORES) / _workers(engine, workers)


def _here(missing: list[RunSpec], pool: Raw) -> dict[RunSpec, str]:
    failures: dict[RunSpec, str] = {}
    elsewhere: list[RunSpec] = []
    with tqdm(total=sum(s.tokens for s in missing), unit="tok", unit_scale=True, desc="training") as bar:
        for wait, turn in ((False, missing), (True, elsewhere)):
            for spec in turn:
                bar.set_postfix_str(f"{spec.activation} {spec.sparsity:g} {spec.constraint} s{spec.seed}")
                try:
                    runs.run(spec, bar.update, wait, pool)
                except Timeout:  # another process is at it
                    elsewhere.append(spec)
                except Exception as error:
                    failures[spec] = f"{type(error).__name__}: {error}"
    return failures


def _spread(missing: list[RunSpec], pool: Raw, engine: Engine, workers: int | None) -> dict[RunSpec, str]:
    from joblib import Parallel, delayed, effective_n_jobs

    failures: dict[RunSpec, str] = {}
    place, n = str(store().resolve()), _workers(engine, workers)
    threads = max(1, effective_n_jobs(-1) // n) if engine == "loky" else 1
    shared = pool if isinstance(pool, Pool) else None  # a stream is each worker's own

    def left() -> list[RunSpec]:
        return [spec for spec in missing if spec not in failures and runs.finished(spec) is None]

    class Counting(Parallel):
        def print_progress(self) -> None:
            bar.update(before + self.n_completed_tasks - bar.n)

    why = ""
    with tqdm(total=len(missing), unit="run", desc="training") as bar:
        for _ in range(DEATHS):
            before, nodes = len(missing) - len(left()), _nodes() if engine == "ray" else 0
            try:
                done = Counting(n_jobs=_workers(engine, workers), batch_size=1)(
                    delayed(_task)(spec, place, shared, threads) for spec in left()
                )
            except Exception as error:  # a worker died; the checkpoints of its runs are in the store
                why = f"a worker died in each of {DEATHS} rounds, in the last with {error!r}"
                if engine == "ray":
                    _settle(nodes)
            else:
                failures |= {spec: error for spec, error in done if error is not None}
                why = f"its worker finished it, but it is not in {place}: all workers must see that folder there"
                break
    return failures | dict.fromkeys(left(), why)


def _nodes() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def _settle(nodes: int) -> None:
    """Give Ray time to notice that a node is gone; else it may place a worker on that node and wait for it."""
    end = time.monotonic() + RAY_NOTICES
    while _nodes() == nodes and time.monotonic() < end:
        time.sleep(0.5)


def _task(spec: RunSpec, place: str, pool: Pool | None, threads: int) -> tuple[RunSpec, str | None]:
    os.environ["ALIGNED_STORE"] = place
    try:
        with _threads(threads):
            runs.run(spec, lambda _: None, pool=pool)
    except Exception as error:
        return spec, f"{type(error).__name__}: {error}"
    return spec, None


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """torch and Numba with at most `n` threads; afterwards with what they had: a sole worker is this very process."""
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(n)
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


def _plan(specs: Sequence[RunSpec], missing: list[RunSpec], pace: float) -> str:
    """A table of what is there and what is missing, and about how long the rest will take."""

    def kind(s: RunSpec) -> tuple[str, int, str]:
        return s.activation, s.d_sae, s.constraint

    every, absent = Counter(map(kind, dict.fromkeys(specs))), Counter(map(kind, missing))
    lines = [f"{'activation':12s}{'width':>8s}  {'constraint':14s}{'there':>6s}{'missing':>9s}"]
    for (activation, d_sae, constraint), count in every.items():
        gone = absent[activation, d_sae, constraint]
        lines.append(f"{activation:12s}{d_sae:8d}  {constraint:14s}{count - gone:6d}{gone:9d}")
    longer = [replace(s, seed=0, tokens=max(s.tokens, TIMED * s.batch), distinct=0) for s in missing]
    speeds = [_tokens_per_second(runs.language_model(s.model).d_in, s) for s in longer]
    seconds = sum(s.tokens / speed for s, speed in zip(missing, speeds)) * pace
    readers = ", ".join(repr(runs.language_model(model)) for model in dict.fromkeys(s.model for s in missing))
    lines.append(
        f"{len(missing)} of {sum(every.values())} runs to train, {sum(s.tokens for s in missing):,} tokens in all: "
        f"about {_duration(seconds)} at this machine's speed, and before that "
        f"{readers} reads the text"
    )
    return "\n".join(lines)


@lru_cache
def _tokens_per_second(d_in: int, spec: RunSpec) -> float:
    """Measured, on a few steps with random activations."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(spec.start(d_in).to(device), spec)
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
