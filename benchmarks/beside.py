"""How much of its speed a sweep keeps beside another process that is busy all the time.

    aligned bench beside                           # a few minutes
    OMP_WAIT_POLICY=active aligned bench beside    # the same with threads that spin while they wait

The same small sweep runs in turns alone and beside a process that does nothing but count. A store of its own, removed
afterwards, holds the runs. On two cores a fair share is about three quarters of the speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import aligned
from aligned.spec import RunSpec
from aligned.store.sweeps import Engine

SPEC = RunSpec(d_sae=2048, activation="topk", sparsity=32, constraint="projected", tokens=200_000)
RUNS, TURNS = 4, 3
ENGINES: tuple[Engine | None, ...] = (None, "loky")


@contextmanager
def busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def tokens_per_second(engine: Engine | None, seeds: range) -> float:
    specs = aligned.grid(SPEC, seed=seeds)
    start = time.perf_counter()
    with redirect_stdout(StringIO()):
        aligned.sweep(specs, engine)
    return len(specs) * SPEC.tokens / (time.perf_counter() - start)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as store:
        os.environ["ALIGNED_STORE"] = store
        number = iter(range(10**6))

        def seeds() -> range:  # that no run in the store has
            first = next(number) * RUNS
            return range(first, first + RUNS)

        for engine in ENGINES:
            tokens_per_second(engine, seeds())  # activations, compilation, workers
            alone, beside = [], []
            for _ in range(TURNS):
                alone.append(tokens_per_second(engine, seeds()))
                with busy():
                    beside.append(tokens_per_second(engine, seeds()))
            a, b = statistics.median(alone), statistics.median(beside)
            print(
                f"{engine or 'this process':14s} alone {a:10,.0f} tokens/s   beside a busy process {b:10,.0f} tokens/s"
                f"   keeps {b / a:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
