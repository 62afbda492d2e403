"""Many workers, some of which die: every spec is trained, once, and the sweep ends complete."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from joblib import effective_n_jobs

import aligned
from aligned.cli import main
from aligned.store import runs, sweeps
from aligned.store.runs import Run
from aligned.store.sweeps import SweepError
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]
HEAD = """
import aligned
from tests.conftest import SMALL
specs = aligned.grid(SMALL, tokens=[40_960], constraint=["none", "projected"], seed=range(6))
"""
RAY = """
import os, signal, threading, time
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def workers():
    raylet = second.all_processes["raylet"][0].process.pid
    children = open(f"/proc/{raylet}/task/{raylet}/children").read().split()
    return [int(c) for c in children if "PoolActor" in open(f"/proc/{c}/cmdline").read()]

def kill():
    place = os.environ["ALIGNED_STORE"]
    while sum(os.path.exists(f"{place}/{spec.name}/spec.json") for spec in specs) < 4:
        time.sleep(0.02)
    print("killed a node with workers:", len(workers()), flush=True)
    cluster.remove_node(second, allow_graceful=False)

threading.Thread(target=kill, daemon=True).start()
aligned.sweep(specs, engine="ray", workers=2)
print("nodes left:", sum(node["Alive"] for node in ray.nodes()))
"""
DASK = """
import os
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        os.environ |= {"ALIGNED_ENGINE": "dask", "DASK_SCHEDULER_ADDRESS": cluster.scheduler_address}
        aligned.sweep(specs)
"""


def started(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return out


def whole(place: Path) -> int:
    return len(list(place.glob("*/spec.json")))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 900  # on a machine that is busy with other work
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def complete(place: Path) -> None:
    assert whole(place) == 12
    assert main(["runs", "verify"]) == 0
    assert not list((place / "training").iterdir())


@pytest.mark.parametrize(("n", "kills"), [(3, 2), pytest.param(10, 5, marks=pytest.mark.all)])
def test_many_processes_one_grid_and_random_kills(n: int, kills: int, place: Path) -> None:
    chance = random.Random(0)
    processes = [started("aligned.sweep(specs)") for _ in range(n)]
    wait_for(lambda: whole(place) > 0)
    for _ in range(kills):
        time.sleep(chance.uniform(0.2, 1.5))
        victim = chance.randrange(n)
        processes[victim].kill()
        processes[victim].communicate()
        processes[victim] = started("aligned.sweep(specs)")
    for process in processes:
        ended(process)
    complete(place)


def test_processes_at_one_grid_train_each_spec_once(place: Path) -> None:
    count = """
from aligned.store import runs
train, trained = runs.train, []
runs.train = lambda spec, *a, **k: trained.append(spec.name) or train(spec, *a, **k)
aligned.sweep(specs)
print(*trained)
"""
    together = " ".join(ended(process) for process in [started(count) for _ in range(2)]).split()
    named = [word for word in together if word.startswith("embedded-")]
    assert len(named) == len(set(named)) == 12
    complete(place)


def test_a_worker_of_loky_is_killed(place: Path) -> None:
    process = started("aligned.sweep(specs, engine='loky', workers=2)")
    wait_for(lambda: whole(place) > 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(c): Path(f"/proc/{c}/cmdline").read_text() for c in children}
    os.kill(next(c for c, command in commands.items() if "popen_loky" in command), signal.SIGKILL)
    ended(process)
    complete(place)


@pytest.mark.parametrize("workers", [None, 1])
def test_workers_of_loky_share_the_cores(place: Path, workers: int | None) -> None:
    """One thread each by default, all cores for a sole one; what this process had is what it has afterwards."""
    cores, before = effective_n_jobs(-1), torch.get_num_threads()
    specs = aligned.grid(SMALL, seed=[0, 1])
    aligned.sweep(specs, "loky", workers)
    assert {aligned.run(spec).provenance["threads"] for spec in specs} == {cores if workers == 1 else 1}
    assert torch.get_num_threads() == before


def test_a_node_of_a_ray_cluster_is_killed(place: Path) -> None:
    out = ended(started(RAY))
    assert "killed a node with workers: 1" in out
    assert "nodes left: 1" in out
    complete(place)


def test_an_engine_and_its_cluster_are_named_by_the_environment(place: Path) -> None:
    ended(started(DASK))
    complete(place)


def test_one_failed_run_does_not_stop_the_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = replace(SMALL, seed=4), replace(SMALL, seed=5)
    (place / "training").mkdir()
    (place / "training" / bad.name).touch()  # where its checkpoint belongs
    for engine in (None, "loky"):
        with pytest.raises(SweepError, match=f"1 of . runs failed(.|\n)*{bad.name}: FileExistsError(.|\n)*seed=4"):
            aligned.sweep([bad, good], engine)
        assert runs.finished(good) is not None
    other = replace(good, layer=2, seed=6)
    monkeypatch.setattr(runs, "activations", lambda *key: None if key[1] == 2 else 1 / 0)
    monkeypatch.setattr(runs, "_train", lambda spec, *_: Run(spec, place))
    with pytest.raises(SweepError, match=r"1 of 2 runs failed(.|\n)*ZeroDivisionError") as error:
        aligned.sweep([replace(good, layer=1, seed=6), other])
    assert other not in error.value.failures


def test_engines_that_will_not_do_are_refused_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="engine is 'slurm'; it is None or one of loky, dask, ray"):
        aligned.sweep([SMALL], engine="slurm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Client"):
        aligned.sweep([SMALL], engine="dask")  # no cluster that this process is connected to
    with pytest.raises(ValueError, match="workers is 0; it is a whole number from 1"):
        aligned.sweep([SMALL], engine="loky", workers=0)
    with pytest.raises(TypeError, match="a sweep takes a list of RunSpec, and was given RunSpec"):
        aligned.sweep(SMALL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eval_tokens is -5"):
        aligned.records([SMALL], -5)
    monkeypatch.setattr("aligned.checks.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"ray is not installed: .* `pip install '\.\[ray\]'`"):
        aligned.sweep([SMALL], engine="ray")


def test_what_is_there_what_is_missing_and_how_long_it_takes_is_said_first(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aligned.run(SMALL)
    aligned.sweep(aligned.grid(SMALL, seed=[0, 1, 2], constraint=["projected", "tied"]))
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["topk", "64", "projected", "1", "2"]
    assert said[2].split() == ["topk", "64", "tied", "0", "3"]
    assert said[3].startswith("5 of 6 runs to train, 20,480 tokens in all: about ")


@pytest.mark.parametrize("steps", [1, 2])
def test_the_time_of_a_few_steps_is_estimated_too(steps: int) -> None:
    few = replace(SMALL, tokens=steps * SMALL.batch)
    assert "1 of 1 runs to train" in sweeps._plan([few], [few], 1.0)


def test_threads_that_wait_sleep_unless_the_environment_says_otherwise() -> None:
    """The runtimes read it when they are loaded, with torch: it is set by then."""
    show = "import sys, aligned, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    plain = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for environment, expected in ((plain, "passive False"), (plain | {"OMP_WAIT_POLICY": "active"}, "active False")):
        told = subprocess.run([sys.executable, "-c", show], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert told.stdout.strip() == expected
