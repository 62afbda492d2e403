"""Killed at any moment, out of room, or given a damaged checkpoint: training ends with the same bits, or says why."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from aligned import files
from aligned.training.loop import train
from tests.training.test_training import Synthetic, spec

# Processes that can be killed are forked from one that has everything imported. Each still compiles its kernels.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.test_unkillable"])
KILLED = spec(activation="batchtopk", constraint="projected")


def run(folder: Path, begun: Connection, dies: int = 0) -> None:
    """Train, with a checkpoint after every step and slow enough to be hit; or die in the middle of writing one."""
    torch.set_num_threads(1)
    if dies:
        _die_in_write(dies)

    def step(_: int) -> None:
        begun.send("a step")
        time.sleep(0.01)

    sae, _ = train(KILLED, Synthetic(), folder, save_every=0, progress=step)
    torch.save(sae.state_dict(), folder / "sae.pt")


def _die_in_write(number: int) -> None:
    written, save_file = 0, files.save_file

    def half(tensors: object, place: Path, facts: object) -> None:
        nonlocal written
        written += 1
        save_file(tensors, place, facts)  # type: ignore[arg-type]
        if written == number:
            os.truncate(place, os.path.getsize(place) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    files.save_file = half  # type: ignore[assignment]


def start(folder: Path, dies: int = 0) -> tuple[multiprocessing.Process, Connection]:
    folder.mkdir(parents=True, exist_ok=True)
    begun, end = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=run, args=(folder, end, dies))
    process.start()
    end.close()
    return process, begun  # type: ignore[return-value]


def ended(folder: Path, dies: int = 0) -> int | None:
    process, _begun = start(folder, dies)
    process.join(300)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    sae, _ = train(KILLED, Synthetic(), tmp_path_factory.mktemp("whole"))
    return sae.state_dict()


@pytest.mark.parametrize("many", [4, pytest.param(20, marks=pytest.mark.all)])
def test_kills_at_random_moments_change_nothing(
    many: int, tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    chance, kills, reached = random.Random(0), 0, 0
    while True:
        process, begun = start(tmp_path)
        begun.recv()
        if kills < many:
            time.sleep(chance.uniform(0, 0.06))
            process.kill()
        process.join(300)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        if (tmp_path / "checkpoint.safetensors").exists():
            step = files.load(tmp_path / "checkpoint.safetensors")[1]["step"]
            assert step >= reached  # what was reached is never lost
            reached = step
    assert kills == many
    assert reached > 0
    last = torch.load(tmp_path / "sae.pt", weights_only=True)
    assert all(torch.equal(last[name], value) for name, value in uninterrupted.items())


def test_a_kill_in_the_middle_of_writing_a_checkpoint(tmp_path: Path, uninterrupted: dict[str, torch.Tensor]) -> None:
    """The half-written file stays beside the whole one, is never read, and is gone at the next start."""
    assert ended(tmp_path, dies=30) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".checkpoint.safetensors.*"))) == 1
    assert files.load(tmp_path / "checkpoint.safetensors")[1]["step"] == 29
    assert ended(tmp_path) == 0
    assert not list(tmp_path.glob(".checkpoint.safetensors.*"))
    last = torch.load(tmp_path / "sae.pt", weights_only=True)
    assert all(torch.equal(last[name], value) for name, value in uninterrupted.items())


def test_no_room_for_a_checkpoint_is_said_and_the_last_one_kept(tmp_path: Path) -> None:
    s = spec()
    train_until(s, tmp_path, 10)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no room to write checkpoint\.safetensors in .*What was there is kept"):
            train(s, Synthetic(), tmp_path, save_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    train(s, Synthetic(), tmp_path)


def test_a_damaged_checkpoint_is_refused_by_name_and_set_aside(tmp_path: Path) -> None:
    whole, _ = train(spec(), Synthetic(), tmp_path / "whole")
    for damage in ("truncated", "flipped", "empty", "not ours"):
        folder = tmp_path / damage
        train_until(spec(), folder, 10)
        place, other = folder / "checkpoint.safetensors", folder / "something else"
        other.write_text("keep me")
        data = bytearray(place.read_bytes())
        if damage == "flipped":
            data[-100] ^= 1
        place.write_bytes(
            {"truncated": data[: len(data) // 2], "flipped": data, "empty": b"", "not ours": b"x" * 99}[damage]
        )
        with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is damaged.* training starts over"):
            again, _ = train(spec(), Synthetic(), folder)
        assert torch.equal(again.W_dec, whole.W_dec)
        assert other.read_text() == "keep me"
        assert (folder / "checkpoint.safetensors.0").exists()


def test_a_checkpoint_of_another_spec_is_refused_by_name(tmp_path: Path) -> None:
    train_until(spec(seed=1), tmp_path, 10)
    with pytest.warns(UserWarning, match=f"of another spec \\({spec(seed=1).hash}\\), not {spec().hash}.* starts over"):
        again, _ = train(spec(), Synthetic(), tmp_path)
    assert torch.equal(again.W_dec, train(spec(), Synthetic(), tmp_path / "new")[0].W_dec)


def test_kernels_give_the_same_bits_on_a_new_machine_and_later(tmp_path: Path) -> None:
    """A new machine compiles, a resumed run may find code compiled: both must do the same."""
    script = """
import hashlib, torch
from aligned.training import kernels_cpu
from tests.training.test_kernels import LENGTHS, ragged, random
v, d, g_e, g_d, x = (random(40, 768, seed=i) for i in range(5))
out = torch.zeros(40, 800)
kernels_cpu.encoder(v, d, True, True, out)
squares = kernels_cpu.pull_back(g_e, g_d, v, d, True)
starts, features, values = ragged(LENGTHS, 13)
difference, dots = kernels_cpu.reconstruct(values, features, starts, d, d[0], x[: len(LENGTHS)])
made = torch.cat([a.flatten() for a in (out, d, g_e, g_d, squares, difference, dots)])
print(hashlib.sha256(made.numpy().tobytes()).hexdigest())
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    sums = {
        subprocess.run(
            [sys.executable, "-c", script], env=environment, cwd=Path(__file__).parents[2], capture_output=True,
            text=True, check=True,
        ).stdout
        for _ in range(2)
    }  # fmt: skip
    assert len(sums) == 1


class Stopped(Exception):
    pass


def train_until(s: object, folder: Path, step: int) -> None:
    """Train that many steps, with a checkpoint after each, and stop."""
    steps = 0

    def stop(_: int) -> None:
        nonlocal steps
        steps += 1
        if steps > step:
            raise Stopped

    with pytest.raises(Stopped):
        train(s, Synthetic(), folder, save_every=0, progress=stop)  # type: ignore[arg-type]
